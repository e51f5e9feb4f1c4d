// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// How `attention_decode` shares the keys of requests between blocks: the rule for a bucket of requests
/// (scripts/kernel-lab/bench_attention.py measures it).
struct AttentionSplit {
    private static let multiprocessors = 132
    /// Context that splits are chosen for.
    ///
    /// Constant, so that an engine's code does not depend on limits that are set later; shorter requests use
    /// fewer of their splits.
    private static let context = 32_768

    let headDim: Int
    /// Query heads of a kv head.
    let group: Int
    private(set) var tiles = 1
    private(set) var team = 1
    private(set) var warps = 4
    private(set) var blocks = 2
    private(set) var unit = 16
    private(set) var ring = 2
    private(set) var splits = 1
    private(set) var cluster = 1
    /// Least units of 16 positions in a split.
    private(set) var splitUnits = 8

    init(
        requests: Int, kvHeads: Int, group: Int, headDim: Int, target: KernelArchitecture
    ) {
        self.headDim = headDim
        self.group = group
        // Up to 8 query heads to a kv head: a warp has all of them, and two blocks share a multiprocessor;
        // where requests are few, one has it, so that a short one has a warp for each 16 or 32 positions;
        // where they are many, six small ones without splits, so that one begins or ends beside the keys
        // of others. More heads: pairs of warps share positions, and a block has the multiprocessor.
        let isFew = group <= 8 && requests * kvHeads <= Self.multiprocessors
        let isMany = group <= 8 && requests * kvHeads > 6 * Self.multiprocessors
        if isFew { (warps, blocks, splitUnits) = (8, 1, 12) }
        if isMany { (warps, blocks) = (2, 6) }
        if group > 8 { (tiles, team, warps, blocks, unit) = (group <= 16 ? 1 : 2, 2, 8, 1, 32) }
        let widths = target.capability >= 90 ? [2, 4, 8].filter { heads % $0 == 0 } : []
        cluster = widths.last ?? 1
        chooseRing(target.sharedMemoryPerBlock + 1024)
        let count = requests * kvHeads * headTiles
        let places = Self.multiprocessors * blocks
        let most = isMany ? 1 : max(1, Self.context / 16 / splitUnits)
        splits = Self.splits(count: count, places: places, most: most)
        // A cluster's blocks share what the last split would have to combine alone: 16 parts at most. Clusters
        // of 8 do not fill the chip where each has 8 multiprocessors: half of it then.
        cluster = widths.first { splits / $0 <= 16 } ?? widths.last ?? 1
        if team == 2, count <= 8, widths.contains(8) {
            (cluster, splits) = (8, min(splits, Self.multiprocessors / 2 / count))
        } else if cluster > 2 {
            splits = max(min(splits, places * 31 / 32 / count), 1)
        }
        if splits < cluster { cluster = 1 }
        splits -= splits % cluster
    }

    /// Waves of blocks, each as long as its part of a request, and 6 % of one for start and end.
    private static func splits(count: Int, places: Int, most: Int) -> Int {
        func cost(_ n: Int) -> Double {
            Double((count * n + places - 1) / places) * (1 / Double(n) + 0.06)
        }
        return (1...min(most, places)).min { cost($0) < cost($1) } ?? 1
    }

    private mutating func chooseRing(_ multiprocessorBytes: Int) {
        func fits(_ ring: Int, _ split: AttentionSplit) -> Bool {
            var probe = split
            probe.ring = ring
            return probe.sharedBytes + 1024 <= multiprocessorBytes / probe.blocks
        }
        while !fits(2, self), blocks > 1 { blocks -= 1 }
        while !fits(2, self), warps > team { warps /= 2 }
        ring = (2...8).last { fits($0, self) } ?? 2
    }

    /// Query heads of a block.
    private var heads: Int { min(group, 8 * tiles * team) }
    /// Blocks side by side for one kv head.
    var headTiles: Int { (group + heads - 1) / heads }
    /// Parts of a row's result that are combined through memory.
    var parts: Int { splits / cluster }

    /// Bytes of shared memory, as the kernel lays it out.
    var sharedBytes: Int {
        func up(_ value: Int, _ multiple: Int) -> Int {
            (value + multiple - 1) / multiple * multiple
        }
        let chunks = headDim / 8
        let padded = up(headDim, 32)
        let (key, value) =
            chunks % 8 == 0 ? (chunks, chunks) : ((chunks + 3) / 8 * 8 + 4, chunks | 1)
        let query = padded * 2 + (padded * 2 % 128 == 0 ? 64 : 0)
        let start = up(heads * query + (headDim + 63) / 64 * 256, 128)
        let own = max(ring * 16 * unit * (key + value), up(heads * (headDim + 2) * 4, 16))
        return start + warps / team * own + (cluster > 1 ? heads * (headDim * 4 + 8) + 16 : 0)
    }

    /// Definitions of the kernel, beside those of the attention.
    var defines: [String: Int] {
        [
            "TILES": tiles, "TEAM": team, "WARPS": warps, "BLOCKS": blocks, "UNIT": unit,
            "RING": ring, "SPLITS": splits, "CLUSTER": cluster, "SPLIT_UNITS": splitUnits,
        ]
    }
}
