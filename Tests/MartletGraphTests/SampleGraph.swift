// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import Testing

/// A small graph that shows one op; together they show every op of the built-in set.
struct SampleGraph: Sendable, CustomTestStringConvertible {
    let name: String
    let record: @Sendable (GraphBuilder) throws -> Void

    init(_ name: String, _ record: @escaping @Sendable (GraphBuilder) throws -> Void) {
        self.name = name
        self.record = record
    }

    var testDescription: String { name }

    func build(dtype: DType = .f32) throws -> Graph {
        let builder = GraphBuilder(name: "sample", dtype: dtype)
        try record(builder)
        return try builder.finish()
    }

    static let attention: [String: AttributeValue] = [
        "group": 0, "layer": 1, "headCount": 4, "kvHeadCount": 2, "headDim": 8, "scale": 0.25,
        "window": 0, "softCap": 0.0, "causal": false,
    ]

    /// A KV group, rows `[T, 32]` for queries and `[T, 16]` for keys and values.
    static func attentionInputs(_ builder: GraphBuilder) -> (q: Tensor, k: Tensor, v: Tensor) {
        _ = builder.kvGroup(
            KVGroup(
                layerCount: 2, kvHeadCount: 2, headDim: 8, scheme: KVScheme(dtype: .bf16),
                window: 40, kind: .crossAttention, blockSize: 32))
        _ = builder.kvGroup(
            KVGroup(
                name: "written.elsewhere", layerCount: 1, kvHeadCount: 2, headDim: 8,
                scheme: KVScheme(dtype: .f32, scaleBytesPerRow: 4)))
        let merged = rows(builder, 64)
        let parts = merged.split([32, 16, 16])
        return (parts[0], parts[1], parts[2])
    }

    /// Rows `[T, columns]` looked up in a table.
    static func rows(_ builder: GraphBuilder, _ columns: Int, name: String = "table") -> Tensor {
        builder.input("tokens").embedding(builder.parameter(name, [10, columns]))
    }

    static func frequencies(_ builder: GraphBuilder) throws -> Tensor {
        builder.constant("frequencies", try TensorData([1, 0.1, 0.01], shape: [3]))
    }

    static let all: [SampleGraph] = [
        SampleGraph("embedding") { $0.output("x", rows($0, 6)) },
        SampleGraph("linear") { builder in
            let x = rows(builder, 6)
            let y = x.linear(builder.parameter("w", [5, 6]), bias: builder.parameter("b", [5]))
            builder.output("y", y.linear(builder.parameter("w2", [3, 5]), dtype: .f32))
        },
        SampleGraph("fusedLinears") { builder in
            let x = rows(builder, 6)
            let gamma = builder.parameter("g", [6])
            let norm: [String: AttributeValue] = ["kind": "rms", "epsilon": 1e-6]
            let sum = builder.record(
                "linearAdd", [x, builder.parameter("w", [6, 6]), x, builder.parameter("b", [6])],
                [:])
            let gate: [String: AttributeValue] = ["kind": "silu", "norm": "rms", "epsilon": 1e-6]
            builder.output(
                "y",
                builder.record("normLinear", [sum, gamma, builder.parameter("v", [5, 6])], norm))
            builder.output(
                "z",
                builder.record(
                    "normGatedLinear", [sum, gamma, builder.parameter("u", [8, 6])], gate))
        },
        SampleGraph("norm") { builder in
            let x = rows(builder, 6)
            let rms = x.norm(epsilon: 1e-5, weight: builder.parameter("w", [6]))
            let layer = rms.norm(
                kind: "layer", epsilon: 0.5, weight: nil, bias: builder.parameter("b", [6]))
            builder.output(
                "y",
                builder.record(
                    "norm", [layer, nil, nil],
                    ["kind": "rms", "epsilon": 1e-6, "format": "int8g64"]))
        },
        SampleGraph("addNorm") { builder in
            let x = rows(builder, 6)
            let y = rows(builder, 6, name: "other")
            let results = builder.record(
                "addNorm", [x, y, builder.parameter("w", [6]), nil],
                ["kind": "rms", "epsilon": 1e-6, "format": "int8g64"], resultCount: 2)
            builder.output("sum", results[0])
            builder.output("normed", results[1])
        },
        SampleGraph("elementwise") { builder in
            let x = rows(builder, 6)
            let y = (x.activation("silu") + x.activation("gelu")) * x.activation("geluTanh")
            builder.output("y", (y * 0.5).softCap(30))
            builder.output(
                "z", builder.record("activation", [x], ["kind": "relu", "format": "int8g64"]))
        },
        SampleGraph("gatedActivation") { builder in
            let parts = rows(builder, 12).split([6, 6])
            builder.output(
                "y", builder.record("gatedActivation", [parts[0], parts[1]], ["kind": "silu"]))
            builder.output(
                "z",
                builder.record(
                    "gatedActivation", [parts[0], parts[1]],
                    ["kind": "geluTanh", "format": "int8g64"]))
        },
        SampleGraph("attention") { builder in
            let (q, k, v) = attentionInputs(builder)
            let positions = builder.input("positions")
            let frequencies = try frequencies(builder)
            let rotary: [String: AttributeValue] = [
                "headDim": 8, "style": "interleaved", "magnitude": 1.0,
            ]
            let turned = builder.record("rotary", [k, positions, frequencies], rotary)
            let cache = builder.record(
                "kvWrite", [turned, v], ["group": 0, "layer": 1, "kvHeadCount": 2, "headDim": 8])
            builder.output(
                "y",
                builder.record(
                    "attention", [q, cache, positions, builder.parameter("slopes", [4])], attention)
            )
        },
        SampleGraph("cache") { builder in
            let q = attentionInputs(builder).q
            let place: [String: AttributeValue] = [
                "group": 1, "layer": 0, "kvHeadCount": 2, "headDim": 8,
            ]
            let cache = builder.record("cache", [], place)
            builder.output(
                "y",
                builder.record(
                    "attention", [q, cache, builder.input("positions")],
                    attention.merging(place) { $1 }))
        },
        SampleGraph("cachedAttention") { builder in
            let (q, k, v) = attentionInputs(builder)
            let positions = builder.input("positions")
            let frequencies = try frequencies(builder)
            let rotary: [String: AttributeValue] = ["style": "half", "magnitude": 1.5]
            let more = attention.merging(rotary) { $1 }
            builder.output(
                "y", builder.record("cachedAttention", [q, k, v, positions, frequencies], more))
            let plain = attention.merging(
                ["style": "none", "magnitude": 1.0, "format": "int8g64", "layer": 0]) { $1 }
            builder.output(
                "z",
                builder.record(
                    "cachedAttention",
                    [q, k, v, positions, nil, builder.parameter("slopes", [4])], plain))
        },
        SampleGraph("shapes") { builder in
            let x = rows(builder, 6)
            let part = builder.record("slice", [x], ["start": 1, "count": 4])
            builder.output("joined", builder.record("concat", [x, part, x], ["axis": 1]))
            let a = builder.parameter("a", [2, 3])
            let b = builder.parameter("b", [4, 3])
            let stacked = builder.record("concat", [a, b], ["axis": 0])
            builder.output("turned", builder.record("transpose", [stacked]))
            builder.output(
                "flat", builder.record("reshape", [x], ["shape": "6*T"]))
            builder.output("picked", x.gatherRows(builder.input("logitRows")))
        },
        SampleGraph("numerics") { builder in
            let x = rows(builder, 6)
            let codes = builder.record("quantize", [x], ["format": "int8g64"])
            builder.output("back", builder.record("dequantize", [codes], ["dtype": "f16"]))
            builder.output("soft", builder.record("softmax", [x.cast(.bf16)]))
            builder.output(
                "unit", builder.record("normalizeRows", [builder.parameter("w", [5, 6])]))
        },
        SampleGraph("outputs") { builder in
            let x = rows(builder, 6)
            builder.output("token", x.gatherRows(builder.input("logitRows")).sample())
            builder.output("pooled", x.meanPool().l2Normalize())
            let all = builder.record("allReduce", [x])
            builder.output("wide", builder.record("allGather", [all], ["rankCount": 2]))
        },
    ]
}
