// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    private static let cacheAttributes = ["group", "layer", "kvHeadCount", "headDim"]
    private static let attentionAttributes = [
        "group", "layer", "headCount", "kvHeadCount", "headDim", "scale", "window", "softCap",
        "causal",
    ]

    /// Positions, the KV cache and attention over it.
    static let attentionOps: [OpDefinition] = [
        OpDefinition(
            "rotary", "rotates pairs of each head by position * inverse frequency",
            operands: ["x", "positions", "inverseFrequencies"],
            attributes: ["headDim", "style", "magnitude"]
        ) { context in
            let x = try context.operand(0), frequencies = try context.operand(2)
            let headDim = try context.int("headDim")
            _ = try context.word("style", of: ["half", "interleaved"])
            try context.require(
                headDim > 0 && (try context.columns(x)) % headDim == 0,
                "columns of \(x) are not heads of \(headDim)")
            try context.require(
                frequencies.rank == 1 && (frequencies.columns ?? .max) <= headDim / 2,
                "needs at most \(headDim / 2) frequencies, not \(frequencies)")
            return [x]
        },
        OpDefinition(
            "kvWrite", "stores keys and values of the step in a layer's cache",
            operands: ["k", "v"], attributes: cacheAttributes, isPure: false
        ) { context in
            let width = Dimension(try context.product("kvHeadCount", "headDim"))
            for index in 0...1 {
                let x = try context.operand(index)
                try context.require(
                    x.rank == 2 && x.shape[1] == width, "needs \(width) columns, not \(x)")
            }
            return [TensorType(.cache, [])]
        },
        OpDefinition(
            "cache", "a layer's cache as earlier steps wrote it, by any entry point of the engine",
            operands: [], attributes: cacheAttributes
        ) { _ in [TensorType(.cache, [])] },
        OpDefinition(
            "attention", "softmax(scale * q * transpose(K)) * V over the paged cache",
            operands: ["q", "cache", "positions", "slopes?"], attributes: attentionAttributes
        ) { context in
            let q = try context.operand(0)
            try context.require(
                (try context.operand(1)).format == .cache,
                "needs a cache: written here, or read by `cache`")
            try checkHeads(context, q)
            return [q]
        },
        OpDefinition(
            "cachedAttention", "rotary on q and k, kvWrite and attention in one",
            operands: ["q", "k", "v", "positions", "inverseFrequencies?", "slopes?"],
            attributes: attentionAttributes + ["style", "magnitude"],
            optionalAttributes: ["format"], isPure: false, decompose: decomposeCachedAttention
        ) { context in
            let q = try context.operand(0), k = try context.operand(1), v = try context.operand(2)
            try checkHeads(context, q)
            let style = try context.word("style", of: ["none", "half", "interleaved"])
            try context.require(
                (style == "none") == (context.optional(4) == nil),
                "frequencies and 'style' must agree")
            let width = Dimension(try context.product("kvHeadCount", "headDim"))
            try context.require(
                k.shape.last == width && k == v, "needs k and v of \(width) columns, not \(k), \(v)"
            )
            return [TensorType(try context.quantizedFormat(q.format.dtype ?? .f32), q.shape)]
        },
    ]

    private static func checkHeads(_ context: OpContext, _ q: TensorType) throws {
        let heads = try context.int("headCount"), kvHeads = try context.int("kvHeadCount")
        let width = try context.product("headCount", "headDim")
        try context.require(
            kvHeads > 0 && heads % kvHeads == 0, "\(heads) heads cannot share \(kvHeads) KV heads")
        try context.require(
            q.rank == 2 && q.shape[1] == Dimension(width),
            "needs \(width) columns of queries, not \(q)")
    }

    @Sendable
    private static func decomposeCachedAttention(
        _ node: Node, _ graph: inout Graph
    ) throws -> [ValueID] {
        let path = node.path
        var attributes = node.attributes
        let format = attributes.removeValue(forKey: "format")
        let style = attributes.removeValue(forKey: "style") ?? "none"
        let magnitude = attributes.removeValue(forKey: "magnitude") ?? 1.0
        var (q, k) = (node.operands[0], node.operands[1])
        if style != "none" {
            let rotary: [String: AttributeValue] = [
                "headDim": attributes["headDim"] ?? 0, "style": style, "magnitude": magnitude,
            ]
            let rest = [node.operands[3], node.operands[4]]
            q = try graph.insert("rotary", [q] + rest, rotary, path: path, before: node.id)[0]
            k = try graph.insert("rotary", [k] + rest, rotary, path: path, before: node.id)[0]
        }
        let cache = try graph.insert(
            "kvWrite", [k, node.operands[2]],
            attributes.filter { cacheAttributes.contains($0.key) },
            path: path, before: node.id)[0]
        let slopes = node.operands.count > 5 ? node.operands[5] : nil
        let result = try graph.insert(
            "attention", [q, cache, node.operands[3], slopes], attributes, path: path,
            before: node.id)
        guard let format else { return result }
        return try graph.insert(
            "quantize", [result[0]], ["format": format], path: path, before: node.id)
    }
}
