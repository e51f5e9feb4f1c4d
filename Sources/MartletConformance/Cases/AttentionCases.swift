// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletGraph

extension ConformanceCase {
    /// Heads and options of one attention.
    private struct Shape: Sendable {
        var heads = 4
        var kvHeads = 2
        var dim = 16
        var window = 0
        var softCap = 0.0
        var hasSlopes = false
        var style = "half"
        var rotaryDim: Int?
        var isCausal = true

        var detail: String {
            var text = "\(heads)/\(kvHeads)x\(dim) \(style)"
            if let rotaryDim { text += " of \(rotaryDim)" }
            if window > 0 { text += " window \(window)" }
            if softCap > 0 { text += " cap \(softCap)" }
            if hasSlopes { text += " alibi" }
            if !isCausal { text += " all" }
            return text
        }
    }

    private static let shapes = [
        Shape(), Shape(kvHeads: 4), Shape(kvHeads: 1), Shape(heads: 9, kvHeads: 3, dim: 64),
        Shape(heads: 3, kvHeads: 3, dim: 10), Shape(heads: 6, kvHeads: 2, dim: 80),
        Shape(window: 5), Shape(window: 21, style: "none"), Shape(softCap: 1.5),
        Shape(hasSlopes: true, style: "none"), Shape(style: "interleaved"), Shape(rotaryDim: 8),
        Shape(style: "interleaved", rotaryDim: 4), Shape(window: 16, softCap: 2, hasSlopes: true),
        Shape(style: "none", isCausal: false),
    ]

    /// Sizes that kernels for long prompts take, and some that they leave to others.
    private static let tallShapes = [
        Shape(heads: 4, kvHeads: 4, dim: 128), Shape(heads: 9, kvHeads: 3, dim: 64),
        Shape(heads: 8, kvHeads: 1, dim: 128), Shape(dim: 64, window: 70),
        Shape(dim: 128, softCap: 1.5), Shape(dim: 128, hasSlopes: true, style: "none"),
        Shape(dim: 64, style: "interleaved"), Shape(dim: 64, rotaryDim: 32),
        Shape(dim: 128, window: 16, softCap: 2, hasSlopes: true), Shape(dim: 96),
        Shape(heads: 6, dim: 80), Shape(dim: 256), Shape(kvHeads: 1, dim: 256, window: 70),
        Shape(dim: 80, softCap: 1.5, hasSlopes: true), Shape(dim: 64, softCap: 1.5),
        Shape(dim: 112),
    ]

    /// Two requests prefill; then one decodes, one goes on, one begins; then all decode.
    private static let mixedSteps: [[Part]] = {
        func tokens(_ count: Int, from first: Int) -> [Int32] {
            (first..<first + count).map { Int32($0 * 7 % rowCount) }
        }
        return [
            [
                Part(request: 0, tokens: tokens(35, from: 0)),
                Part(request: 1, tokens: tokens(5, from: 3)),
            ],
            [
                Part(request: 1, tokens: tokens(17, from: 8)), Part(request: 0, tokens: [4]),
                Part(request: 2, tokens: tokens(3, from: 1)),
            ],
            [
                Part(request: 0, tokens: [9]), Part(request: 1, tokens: [2]),
                Part(request: 2, tokens: [9]),
            ],
        ]
    }()

    static func attentionCases(_ catalog: any KernelCatalog) -> [ConformanceCase] {
        var cases: [ConformanceCase] = []
        for dtype in catalog.activationTypes {
            for kvType in catalog.kvTypes {
                let tolerance =
                    Tolerances.attention + 2 * Tolerances.rounding(dtype)
                    + 2 * Tolerances.rounding(kvType)
                for shape in shapes {
                    let detail = "\(dtype.rawValue) kv \(kvType.rawValue) \(shape.detail)"
                    let block = catalog.kvBlockSize
                    // Without a causal mask a row sees later ones: one step per request only.
                    let steps = shape.isCausal ? mixedSteps : [mixedSteps[0]]
                    if shape.isCausal {
                        cases.append(
                            ConformanceCase(
                                "attention", detail, tolerance: tolerance, steps: steps
                            ) { try plain(shape, dtype, kvType, block, &$0) })
                    }
                    for format in [nil, "int8g64"] where format == nil || shape.isCausal {
                        cases.append(
                            ConformanceCase(
                                "cachedAttention", detail + (format.map { " " + $0 } ?? ""),
                                tolerance: tolerance, steps: steps
                            ) { try fused(shape, dtype, kvType, block, format, &$0) })
                    }
                }
            }
            for shape in tallShapes where dtype != .f32 {
                let tolerance = Tolerances.attention + 4 * Tolerances.rounding(dtype)
                cases.append(
                    ConformanceCase(
                        "cachedAttention", "\(dtype.rawValue) tall \(shape.detail)",
                        tolerance: tolerance, steps: tallSteps
                    ) { try fused(shape, dtype, dtype, catalog.kvBlockSize, nil, &$0) })
            }
            for shape in shapes where shape.style != "none" {
                cases.append(rotary(shape, dtype))
            }
        }
        return cases
    }

    /// q, k and v as columns of one row, with attributes, frequencies and slopes.
    private static func inputs(
        _ shape: Shape, _ dtype: DType, _ kvType: DType, _ block: Int, _ builder: inout CaseBuilder
    ) throws -> (parts: [ValueID], frequencies: ValueID?, slopes: ValueID?) {
        builder.kvGroup(
            KVGroup(
                layerCount: 2, kvHeadCount: shape.kvHeads, headDim: shape.dim,
                scheme: KVScheme(dtype: kvType), window: shape.window > 0 ? shape.window : nil,
                blockSize: block))
        let (q, kv) = (shape.heads * shape.dim, shape.kvHeads * shape.dim)
        let merged = try builder.rows(q + 2 * kv, dtype)
        let parts = try builder.ops("split", [merged], ["sizes": .ints([q, kv, kv])])
        let slopes =
            shape.hasSlopes
            ? try builder.parameter("slopes", .f32, [shape.heads], in: 0..<0.5) : nil
        return (parts, try frequencies(shape, &builder), slopes)
    }

    private static func frequencies(
        _ shape: Shape, _ builder: inout CaseBuilder
    ) throws -> ValueID? {
        guard shape.style != "none" else { return nil }
        return try builder.parameter(
            "frequencies", .f32, [(shape.rotaryDim ?? shape.dim) / 2], in: 0.01..<1)
    }

    private static func attributes(_ shape: Shape) -> [String: AttributeValue] {
        [
            "group": 0, "layer": 1, "headCount": .int(shape.heads),
            "kvHeadCount": .int(shape.kvHeads),
            "headDim": .int(shape.dim), "scale": .float(1 / Double(shape.dim).squareRoot()),
            "window": .int(shape.window), "softCap": .float(shape.softCap),
            "causal": .bool(shape.isCausal),
        ]
    }

    private static func fused(
        _ shape: Shape, _ dtype: DType, _ kvType: DType, _ block: Int, _ format: String?,
        _ builder: inout CaseBuilder
    ) throws {
        let (parts, frequencies, slopes) = try inputs(shape, dtype, kvType, block, &builder)
        var all = attributes(shape)
        all["style"] = .string(shape.style)
        all["magnitude"] = 1.25
        all["format"] = format.map { .string($0) }
        builder.output(
            try builder.op(
                "cachedAttention", parts + [builder.input("positions"), frequencies, slopes], all))
    }

    private static func plain(
        _ shape: Shape, _ dtype: DType, _ kvType: DType, _ block: Int, _ builder: inout CaseBuilder
    ) throws {
        let (parts, _, slopes) = try inputs(
            {
                var bare = shape
                bare.style = "none"
                return bare
            }(), dtype, kvType, block, &builder)
        let cache = try builder.op(
            "kvWrite", [parts[1], parts[2]],
            [
                "group": 0, "layer": 1, "kvHeadCount": .int(shape.kvHeads),
                "headDim": .int(shape.dim),
            ])
        builder.output(
            try builder.op(
                "attention", [parts[0], cache, builder.input("positions"), slopes],
                attributes(shape)))
    }

    private static func rotary(_ shape: Shape, _ dtype: DType) -> ConformanceCase {
        ConformanceCase(
            "rotary", "\(dtype.rawValue) \(shape.detail)",
            tolerance: Tolerances.formula + Tolerances.rounding(dtype), steps: mixedSteps
        ) { builder in
            let x = try builder.rows(shape.heads * shape.dim, dtype)
            let frequencies = try frequencies(shape, &builder)
            builder.output(
                try builder.op(
                    "rotary", [x, builder.input("positions"), frequencies],
                    ["headDim": .int(shape.dim), "style": .string(shape.style), "magnitude": 0.75]))
        }
    }
}
