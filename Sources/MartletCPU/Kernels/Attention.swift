// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

extension CPUOp {
    /// `kvWrite(k, v)`.
    static let kvWrite = CPUOp(
        "kvWrite",
        families: [
            KernelFamily("kvWrite", op: "kvWrite") { query in
                let k = try query.operand(0)
                let v = try query.operand(1)
                return (try query.rowCost([k, v, k, v], []), [nil, nil])
            }
        ],
        bind: KVWriteKernel.init(binder:))

    /// `attention(q, cache, positions, slopes?)`.
    static let attention = CPUOp(
        "attention", families: [attentionFamily("attention", slopes: 3)],
        bind: AttentionKernel.init(binder:))

    /// `cachedAttention(q, k, v, positions, inverseFrequencies?, slopes?)`: rotary, write, attention.
    static let cachedAttention = CPUOp(
        "cachedAttention", families: [attentionFamily("cachedAttention", slopes: 5)],
        bind: CachedAttentionKernel.init(binder:))

    private static func attentionFamily(_ name: String, slopes: Int) -> KernelFamily {
        KernelFamily(name, op: name) { query in
            let q = try query.operand(0)
            let fused = slopes == 5
            _ = try query.rows(q)
            guard let headDim = query.attributes["headDim"]?.int, headDim >= 1, headDim <= 1024
            else {
                throw Refusal("heads of up to 1024 are computed")
            }
            var layouts = [String?](repeating: nil, count: query.operands.count)
            if fused, query.optional(4) != nil { layouts[4] = try query.vector(4, count: nil) }
            if query.optional(slopes) != nil {
                layouts[slopes] = try query.vector(slopes, count: nil)
            }
            let result = try query.result()
            let rows = fused ? [q, try query.operand(1), try query.operand(2)] : [q]
            // The context is not known here: reading one block per token stands for it.
            return (try query.rowCost(rows, [result], work: 64), layouts)
        }
    }
}

/// Keys and values into the KV cache.
///
/// `@unchecked Sendable`: holds addresses that never change.
struct KVWriter: @unchecked Sendable {
    let kernels: KernelTable
    let layer: martlet_kv_layer
    let groupIndex: Int
    let keys: RowView
    let values: RowView

    /// Keys and values must have the same stride.
    func run(_ step: StepState, heads: Range<Int>, tokens: Range<Int>) {
        guard let slots = step.groups[groupIndex].slots else { return }
        var arguments = martlet_kv_write_arguments()
        arguments.kv = layer
        arguments.keys = UnsafePointer(keys.floats)
        arguments.values = UnsafePointer(values.floats)
        arguments.token_stride = values.floatStride
        arguments.head_stride = layer.head_dim
        arguments.slots = slots
        kernels.pointer.pointee.kv_write(
            &arguments, heads.lowerBound, heads.upperBound, tokens.lowerBound, tokens.upperBound)
    }
}

/// Sizes of attention over a KV group, checked against the group.
struct AttentionShape {
    let groupIndex: Int
    let group: KVGroup
    let layer: Int
    let kvHeadCount: Int
    let headDim: Int

    init(binder: Binder) throws {
        (groupIndex, group) = try binder.group()
        layer = try binder.int("layer", in: 0...group.layerCount - 1)
        kvHeadCount = try binder.int("kvHeadCount", in: group.kvHeadCount...group.kvHeadCount)
        headDim = try binder.int("headDim", in: group.headDim...group.headDim)
    }

    /// Fails unless a view holds so many heads per token.
    func check(_ view: RowView, heads: Int, _ binder: Binder) throws {
        try binder.requireRows(view, .T)
        try binder.require(
            view.columns == heads * headDim,
            "\(view.columns) columns are not \(heads) heads of \(headDim)")
    }
}

/// The plain `kvWrite`.
final class KVWriteKernel: BoundKernel {
    private let writer: KVWriter
    private let keys: RowView
    private let kvHeadCount: Int

    init(binder: Binder) throws {
        let shape = try AttentionShape(binder: binder)
        keys = try binder.input(0)
        let values = try binder.input(1)
        try shape.check(keys, heads: shape.kvHeadCount, binder)
        try shape.check(values, heads: shape.kvHeadCount, binder)
        let staged =
            keys.stride == values.stride
            ? keys
            : try binder.scratchRows(
                columns: keys.columns, rows: keys.rows, floatStride: values.floatStride)
        writer = KVWriter(
            kernels: KernelTable(binder.kernels),
            layer: binder.resources.pages.layer(shape.layer, of: shape.group),
            groupIndex: shape.groupIndex, keys: staged, values: values)
        kvHeadCount = shape.kvHeadCount
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let tokens = worker.share(of: step.tokenCount)
        guard !tokens.isEmpty else { return }
        if writer.keys.base != keys.base {
            for t in tokens { writer.keys.row(t).update(from: keys.row(t), count: keys.columns) }
        }
        writer.run(step, heads: 0..<kvHeadCount, tokens: tokens)
    }
}

/// Attention over paged KV, tile by tile of one request's tokens.
///
/// `@unchecked Sendable`: holds addresses that never change.
struct PagedAttention: @unchecked Sendable {
    /// Tokens of a tile: long enough to reuse keys, short enough to share out.
    static let tileTokens = 32
    private static let rowsPerRead = 16

    let kernels: KernelTable
    let groupIndex: Int
    let kvHeadCount: Int
    let causal: Bool
    private let arguments: martlet_attention_arguments

    init(
        binder: Binder, shape: AttentionShape, queries: RowView, result: RowView, slopes index: Int
    ) throws {
        let headCount = try binder.int("headCount", in: 1...1 << 20)
        try binder.require(
            headCount % shape.kvHeadCount == 0,
            "\(headCount) heads do not share \(shape.kvHeadCount) kv heads evenly")
        try shape.check(queries, heads: headCount, binder)
        try shape.check(result, heads: headCount, binder)
        let window = try binder.int("window", in: 0...Int(Int32.max), default: 0)
        if let kept = shape.group.window {
            try binder.require(
                window > 0 && window <= kept, "a window of \(window) exceeds the group's \(kept)")
        }
        causal = binder.flag("causal", default: true)
        try binder.require(
            !causal || shape.group.kind == .selfAttention,
            "causal attention over an encoder's tokens, of KV group '\(shape.group.name)'")
        var arguments = martlet_attention_arguments()
        arguments.kv = binder.resources.pages.layer(shape.layer, of: shape.group)
        arguments.queries = UnsafePointer(queries.floats)
        arguments.query_token_stride = queries.floatStride
        arguments.query_head_stride = shape.headDim
        arguments.output = result.floats
        arguments.output_token_stride = result.floatStride
        arguments.output_head_stride = shape.headDim
        arguments.heads_per_kv = headCount / shape.kvHeadCount
        arguments.window = Int32(window)
        arguments.scale = Float(try binder.float("scale"))
        arguments.soft_cap = Float(try binder.float("softCap", default: 0))
        arguments.alibi_slopes = try binder.vector(index, count: headCount)
        self.arguments = arguments
        kernels = KernelTable(binder.kernels)
        groupIndex = shape.groupIndex
        kvHeadCount = shape.kvHeadCount
    }

    /// Computes this thread's share: all (tile, kv head) pairs lie one after another by what they cost, and
    /// each thread takes as long a piece, which may begin or end within a tile.
    ///
    /// A long prompt's few tiles beside many answers would not balance if they were dealt out whole.
    func run(_ step: StepState, worker: Worker) {
        let group = step.groups[groupIndex]
        var arguments = arguments
        guard let ends = UnsafePointer(causal ? step.causalEnds : group.fullEnds) else { return }
        arguments.visible_end = ends
        var total = 0
        forEachTile(of: step) { _, tokens in total += kvHeadCount * cost(of: tokens, ends) }
        let first = total * worker.index / worker.count
        let last = total * (worker.index + 1) / worker.count
        var place = 0
        forEachTile(of: step) { request, tokens in
            let cost = cost(of: tokens, ends)
            guard place < last, place + kvHeadCount * cost > first else {
                place += kvHeadCount * cost
                return
            }
            arguments.block_table = UnsafePointer(group.table(of: request))
            for head in 0..<kvHeadCount {
                // Neighbours round alike: a token is one thread's.
                let begin = Self.part(first - place, of: cost, in: tokens.count)
                let end = Self.part(last - place, of: cost, in: tokens.count)
                if begin < end {
                    kernels.pointer.pointee.attention(
                        &arguments, head, head + 1, tokens.lowerBound + begin,
                        tokens.lowerBound + end)
                }
                place += cost
            }
        }
    }

    private func forEachTile(of step: StepState, _ body: (_ request: Int, Range<Int>) -> Void) {
        for request in 0..<step.requestCount {
            var start = Int(step.queryStart[request])
            let end = Int(step.queryStart[request + 1])
            while start < end {
                let stop = min(start + Self.tileTokens, end)
                body(request, start..<stop)
                start = stop
            }
        }
    }

    /// What a kv head of a tile costs: reading a position's key and value takes as long as computing with them
    /// for so many rows.
    private func cost(of tokens: Range<Int>, _ ends: UnsafePointer<Int32>) -> Int {
        let visible = max(Int(ends[tokens.upperBound - 1]), 1)
        let window = Int(arguments.window)
        let positions = window > 0 ? min(visible, window + tokens.count) : visible
        return positions * (Self.rowsPerRead + tokens.count * arguments.heads_per_kv)
    }

    /// The nearest part of so many tokens to a part of their cost.
    private static func part(_ place: Int, of cost: Int, in count: Int) -> Int {
        min(max(place * count + cost / 2, 0) / cost, count)
    }
}

/// The plain `attention`.
final class AttentionKernel: BoundKernel {
    private let attention: PagedAttention

    init(binder: Binder) throws {
        let shape = try AttentionShape(binder: binder)
        let queries = try binder.input(0)
        try binder.requireInput(2, "positions")
        attention = try PagedAttention(
            binder: binder, shape: shape, queries: queries, result: binder.output(0), slopes: 3)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        attention.run(step, worker: worker)
    }
}
