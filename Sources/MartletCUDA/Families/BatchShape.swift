// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// How `linear_batch` is built for a linear and a number of rows: the rule, found by trying all
/// configurations on an H100, and the limits that it keeps (scripts/kernel-lab/batch.py).
struct BatchShape {
    /// Clusters of so many blocks that an H100 runs at once, one block a multiprocessor.
    private static let clusterCounts = [1: 132, 2: 66]

    let layout: FragmentLayout
    let strips: Int
    /// Most rows of x: 8, 16, 32, 48 or 64.
    let tokens: Int
    private let target: KernelArchitecture
    /// Which side of a norm without a kernel it is on.
    private let norm: SharedNorm.Side?
    private(set) var usesWarpgroups = false
    private(set) var cluster = 1
    private(set) var grid = 1
    private(set) var warps = 1
    private(set) var groups = 1
    private(set) var warpStrips = 1
    private(set) var depth = 1
    private(set) var step = 1
    private(set) var panel = 64
    private(set) var buffers = 1

    /// Nil where no configuration fits the GPU.
    init?(
        _ layout: FragmentLayout, tokens: Int, target: KernelArchitecture,
        norm: SharedNorm.Side? = nil
    ) {
        self.layout = layout
        self.norm = norm
        self.tokens = tokens
        self.target = target
        strips = layout.strips
        let words = layout.chunkWords
        step =
            words % 2 == 0 && (chunkGroups == 0 || chunkGroups % (words / 2) == 0) ? 2 : words
        // Warpgroup instructions read x from shared memory once for 64 rows of the weight, in whole boxes; 4-bit
        // codes, which take longest to become operands, gain from 32 rows on.
        usesWarpgroups =
            target.hasWarpgroups && tokens >= (bits == 4 ? 32 : 48) && layout.chunkInputs % 64 == 0
            && step * layout.wordInputs >= 32
        if target.hasWarpgroups, isCut { cluster = 2 }
        let clusters = Self.clusterCounts[cluster] ?? 1
        grid = min(clusters * Self.ceil(strips, 132 * 16), strips) * cluster
        guard choose() else { return nil }
    }

    /// Whether two blocks share x and each reads half of it; the exchange at the end costs 2 us.
    private var isCut: Bool {
        let xBytes = layout.inputs * tokens * 2
        let weightBytes = layout.inputs * Self.ceil(strips, 132) * 2 * bits
        // Warpgroups hide less of x: sooner, where the strips of two blocks fit one.
        if usesWarpgroups {
            return xBytes >= max(weightBytes, 256 << 10) && Self.ceil(strips, 66) <= 16
        }
        // Blocks of two strips have little of the weight to hide x behind.
        return xBytes > (strips <= 2 * 132 ? 500 : 600) << 10 && xBytes >= 2 * weightBytes
    }

    private static func ceil(_ a: Int, _ b: Int) -> Int { (a + b - 1) / b }
    private var bits: Int { layout.scheme?.bits ?? 16 }
    private var chunkGroups: Int {
        layout.groupSize > 0 ? layout.chunkInputs / layout.groupSize : 0
    }
    /// Strips of an owner.
    private var most: Int { Self.ceil(strips, grid / cluster) }
    private var splits: Int { cluster * groups }
    private var panels: Int {
        Self.ceil(Self.ceil(layout.stripChunks, splits) * layout.chunkInputs, panel)
    }

    /// Tries configurations, best first.
    private mutating func choose() -> Bool {
        for count in 1...4 {
            for share in [8, 6, 4, 3, 2, 1] {
                warpStrips = count
                guard chooseWarps(share) else { continue }
                choosePanel(share)
                for most in [4, 3, 2, 1] {
                    for chunks in (1...8).reversed() where chooseRings(most, chunks, share) {
                        return true
                    }
                }
            }
        }
        return false
    }

    private mutating func chooseWarps(_ share: Int) -> Bool {
        let fours = usesWarpgroups ? 4 : 1
        let rowWarps = Self.ceil(Self.ceil(most, warpStrips), fours) * fours
        // 4-bit codes take longest to become operands: more warps for them.
        let limit = usesWarpgroups ? 16 : (bits == 4 ? 16 : 12) * share / 8
        // Panels of warpgroups are best of 128 inputs or more.
        let panelBytes = 4 * tokens * 128 * 2
        groups =
            (!usesWarpgroups ? [8, 4, 2, 1] : tokens > 32 ? [3, 2, 1] : [2, 1]).first {
                (!usesWarpgroups || $0 * panelBytes <= inputBytes(share))
                    && rowWarps * $0 <= limit && $0 * cluster <= layout.stripChunks
            } ?? 1
        warps = rowWarps * groups
        return warps <= 16
    }

    /// Bytes of x in shared memory: an eighth to all of 128 KB, of 144 KB for warpgroups.
    private func inputBytes(_ share: Int) -> Int { share * (usesWarpgroups ? 18 : 16) << 10 }

    /// x: four panels.
    private mutating func choosePanel(_ share: Int) {
        let chunk = layout.chunkInputs
        let stepInputs = layout.wordInputs * step
        let fitting = [256, 128, 64].first { k in
            4 * groups * tokens * k * 2 <= inputBytes(share)
                && (k % chunk == 0 || chunk % k == 0 && k % stepInputs == 0)
        }
        let least = chunk % 64 == 0 ? chunk : 64
        panel =
            fitting
            ?? (least % 64 == 0 ? max(least / (layout.chunkWords / step), 64) : 64)
    }

    /// Weights: chunks of 16 bits want most bytes under way.
    private mutating func chooseRings(_ most: Int, _ chunks: Int, _ share: Int) -> Bool {
        let kilobytes = Double(chunks * warps * warpStrips * layout.chunkWords) / 2
        let limit = bits == 16 ? 100.0 : bits == 8 ? 76 : usesWarpgroups ? 64 : 56
        if chunks > 1, kilobytes > limit * Double(share) / 8 { return false }
        if usesWarpgroups, chunks > (bits == 16 ? 4 : 3) { return false }
        buffers = min(most, panels)
        depth = min(chunks, Self.ceil(layout.stripChunks, splits))
        return fits
    }

    private var fits: Bool {
        let steps = layout.chunkWords / step
        return warps / groups * warpStrips >= most && layout.chunkWords % step == 0
            && chunkGroups % steps == 0 && buffers <= min(panels, warps)
            && sharedBytes <= target.sharedMemoryPerBlock && registers <= registerLimit
            && (panel % layout.chunkInputs == 0 || layout.chunkInputs % panel == 0)
    }

    /// Registers of a thread, about.
    private var registers: Int {
        56 + warpStrips * tokens / 2 + (usesWarpgroups ? 16 * warpStrips : 0)
    }

    private var registerLimit: Int {
        switch Self.ceil(warps, 4) {
        case ...2: 255
        case 3: 168
        case 4: 128
        case 5: 96
        default: 80
        }
    }

    /// Bytes of shared memory, as the kernel lays it out.
    var sharedBytes: Int {
        let place = layout.chunkWords * 512 + chunkGroups * 32 * (layout.hasZeros ? 8 : 4)
        let rings = warps * depth * warpStrips * place
        let x = buffers * groups * tokens * panel * 2
        let rows = most * tokens
        let received = (cluster - 1) * Self.ceil(rows, 2 * cluster) * 2 * 64
        let barriers = max(x + rings, groups * rows * 64) + (buffers + 1) * 16
        let sums = layout.scheme != nil && layout.groupSize == 0 && layout.hasZeros ? tokens * 4 : 0
        let used = Self.ceil(barriers, 128) * 128 + received + (groups + cluster) * sums + normBytes
        return max(used + channelBytes, aloneBytes)
    }

    /// Scales and zeros per channel.
    private var channelBytes: Int {
        layout.scheme != nil && layout.groupSize == 0 ? most * (layout.hasZeros ? 128 : 64) : 0
    }

    private var normBytes: Int {
        switch norm {
        case .inFront: max(warps * 32 / tokens, 1) * tokens * 4
        case .behind: most * tokens * 4
        case nil: 0
        }
    }

    /// As much as forbids two blocks on a multiprocessor: some would stand idle.
    private var aloneBytes: Int {
        switch target.capability {
        case 80, 87: 84 << 10
        case 90...: 116 << 10
        default: 52 << 10
        }
    }

    /// Definitions of the kernel, beside those of the weight.
    var defines: [String: Int] {
        [
            "TOKENS": tokens, "GRID": grid, "CLUSTER": cluster, "WARPS": warps, "GROUPS": groups,
            "STRIPS": warpStrips, "WGMMA": usesWarpgroups ? 1 : 0, "DEPTH": depth, "STEP": step,
            "PANEL": panel, "BUFFERS": buffers,
        ].merging(SharedNorm.Side.defines(norm)) { own, _ in own }
    }
}
