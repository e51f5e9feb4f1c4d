// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

/// The KV arena: equal pages that the groups of the engine share.
///
/// In a page, layer by layer: keys `[kvHead][D][16]`, then values `[kvHead][16][D]`. A group with
/// more than 16 tokens a page sees each page as so many blocks of 16, one after the other.
///
/// `@unchecked Sendable`: an address; block tables decide who writes which page.
struct KVPages: @unchecked Sendable {
    /// Tokens of a block as the micro-kernels know it.
    static let kernelBlock = Int(MARTLET_KV_BLOCK)

    let arena: MappedArena
    let pageBytes: Int
    let pageCount: Int
    /// Pages that blocks are swapped to; of the same memory, so for tests and as a model only.
    let hostArena: MappedArena
    let hostPageCount: Int

    /// - Throws: `MartletError` if groups are damaged or memory does not suffice.
    init(groups: [KVGroup], pageCount: Int?, byteCount: Int?, hostPageCount: Int = 0) throws {
        var bytes = 0
        var unit = 64
        for group in groups {
            bytes = max(bytes, try KVPages.check(group))
            let blocks = group.blockSize / KVPages.kernelBlock
            // A multiple of every group's blocks, so that blocks of 16 lie evenly apart.
            if unit % (64 * blocks) != 0 { unit *= blocks }
            guard unit < 1 << 30 else {
                throw MartletError(.corrupt, "block sizes of the KV groups do not fit one page")
            }
        }
        pageBytes = (bytes + unit - 1) / unit * unit
        let count = groups.isEmpty ? 0 : (pageCount ?? max(byteCount ?? 0, 0) / pageBytes)
        // Slots are 32-bit numbers.
        let largest = groups.map { Int(Int32.max) / $0.blockSize }.min() ?? 0
        guard count >= 0, count <= largest, groups.isEmpty || count > 0 else {
            throw MartletError(
                .limitExceeded, "a KV cache of \(count) pages is outside 1 ... \(largest)",
                mend: "Change --kv-cache-memory")
        }
        self.pageCount = count
        let (total, overflow) = count.multipliedReportingOverflow(by: pageBytes)
        arena = try MappedArena(
            count: overflow ? Int.max : total, purpose: "the KV cache",
            mend: "Lower --kv-cache-memory")
        self.hostPageCount = max(hostPageCount, 0)
        let (swapped, overflows) = self.hostPageCount.multipliedReportingOverflow(by: pageBytes)
        hostArena = try MappedArena(
            count: overflows ? Int.max : swapped, purpose: "swapped pages of the KV cache",
            mend: "Give fewer pages on the host")
    }

    private static func check(_ group: KVGroup) throws -> Int {
        let limit = 1 << 20
        guard (1...limit).contains(group.layerCount), (1...limit).contains(group.kvHeadCount),
            (1...1024).contains(group.headDim), group.blockSize > 0,
            group.blockSize % kernelBlock == 0, group.blockSize <= 1 << 12,
            (group.window ?? 1) > 0, (group.window ?? 1) <= Int(Int32.max)
        else { throw MartletError(.corrupt, "a KV group has sizes out of range: \(group)") }
        guard PanelLayout.floatType(group.scheme.dtype) != nil, group.scheme.scaleBytesPerRow == 0
        else {
            throw MartletError(
                .unsupported,
                "the CPU stores keys and values as f32, f16 or bf16, not \(group.scheme.dtype.rawValue) with scales",
                mend: "Use --kv-dtype f32, f16 or bf16")
        }
        return group.bytesPerBlock
    }

    /// Blocks of 16 in a page of a group.
    static func blocksPerPage(_ group: KVGroup) -> Int { group.blockSize / kernelBlock }

    /// Addresses of one layer of a group.
    func layer(_ layer: Int, of group: KVGroup) -> martlet_kv_layer {
        let head = group.headDim * KVPages.kernelBlock * group.scheme.dtype.byteCount
        let half = head * group.kvHeadCount
        let start = arena.base + layer * 2 * half
        return martlet_kv_layer(
            element: PanelLayout.floatType(group.scheme.dtype) ?? MARTLET_FLOAT_F32,
            head_dim: group.headDim, keys: start, values: start + half,
            block_stride: pageBytes / KVPages.blocksPerPage(group), head_stride: head)
    }

    /// Copies a page within the arena, to the host or back.
    func perform(_ operation: BlockOperation) {
        let (source, destination) = (Int(operation.source), Int(operation.destination))
        let kind = BlockOperation.Kind(rawValue: operation.kind)
        let from = (kind == .swapIn ? hostArena : arena).base + source * pageBytes
        let to = (kind == .swapOut ? hostArena : arena).base + destination * pageBytes
        if from != to { to.copyMemory(from: from, byteCount: pageBytes) }
    }
}
