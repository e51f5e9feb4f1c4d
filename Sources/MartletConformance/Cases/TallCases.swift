// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletGraph

/// Many rows at once, and the fused linears of devices: what kernels for prompts compute.
extension ConformanceCase {
    /// Long prompts of two requests, then a middle one beside single tokens, then single tokens.
    static let tallSteps: [[Part]] = [
        [
            Part(request: 0, tokens: tokens(161, from: 0)),
            Part(request: 1, tokens: tokens(36, from: 5)),
        ],
        [
            Part(request: 0, tokens: [3]), Part(request: 1, tokens: tokens(11, from: 2)),
            Part(request: 2, tokens: [7]),
        ],
        [
            Part(request: 0, tokens: tokens(131, from: 1)), Part(request: 1, tokens: [4]),
            Part(request: 2, tokens: tokens(40, from: 9)),
        ],
        [
            Part(request: 0, tokens: [1]), Part(request: 1, tokens: [5]),
            Part(request: 2, tokens: [8]),
        ],
    ]

    /// Between what one launch of decode's kernels takes and prompts there are batches of 8, 32, 48 and 64 rows.
    private static let batchSteps = [
        [Part(request: 0, tokens: tokens(25, from: 3))],
        [Part(request: 1, tokens: tokens(50, from: 4))],
        [Part(request: 2, tokens: tokens(41, from: 2))],
        [Part(request: 1, tokens: tokens(7, from: 6))],
    ]

    private static func tokens(_ count: Int, from first: Int) -> [Int32] {
        (first..<first + count).map { Int32($0 * 5 % rowCount) }
    }

    /// Outputs N and inputs K; pairs of gate and up are twice N.
    private static let sizes = [(24, 64), (136, 192), (272, 256), (40, 1152)]

    static func tallCases(_ catalog: any KernelCatalog) -> [ConformanceCase] {
        let types = catalog.activationTypes.filter { $0 != .f32 }
        return types.flatMap { dtype in
            sizes.flatMap { n, k in
                let schemes: [QuantizationScheme?] = [
                    nil,
                    QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none),
                    QuantizationScheme(bits: 8, group: .group(64), scaleType: .f16, zero: .none),
                    QuantizationScheme(bits: 4, group: .group(32), scaleType: .f16, zero: .integer),
                    QuantizationScheme(bits: 4, group: .group(64), scaleType: .f16, zero: .none),
                    QuantizationScheme(
                        bits: 4, group: .group(128), scaleType: .f16, zero: .floatMinimum),
                    QuantizationScheme(bits: 4, group: .channel, scaleType: .f32, zero: .none),
                ]
                return schemes.flatMap { scheme in
                    Fused.allCases.filter { fused in
                        catalog.families.contains { $0.op == fused.rawValue }
                    }.map { tall($0, dtype, scheme, n, k) }
                }
            } + chains(dtype, catalog)
        }
    }

    /// Two linears with a norm between them, which devices may compute in both.
    private static func chains(_ dtype: DType, _ catalog: any KernelCatalog) -> [ConformanceCase] {
        let ops: [Fused] = [.linearAdd, .normLinear, .normGatedLinear]
        guard ops.allSatisfy({ op in catalog.families.contains { $0.op == op.rawValue } }) else {
            return []
        }
        let schemes: [QuantizationScheme?] = [
            nil, QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none),
            QuantizationScheme(bits: 4, group: .group(64), scaleType: .f16, zero: .integer),
        ]
        // Behind many inputs two blocks of a GPU cut them.
        let long = schemes.prefix(2).map { scheme in
            chain(.normLinear, dtype, scheme, 9600, 640, 272, steps: Array(batchSteps[1...2]))
        }
        return schemes.flatMap { scheme in
            ops.dropFirst().map { chain($0, dtype, scheme, 1152, 640, 272) }
        } + long
    }

    private static func chain(
        _ op: Fused, _ dtype: DType, _ scheme: QuantizationScheme?, _ k: Int, _ middle: Int,
        _ n: Int, steps: [[Part]] = tallSteps + batchSteps
    ) -> ConformanceCase {
        let weight = scheme.map { "\($0)" } ?? dtype.rawValue
        return ConformanceCase(
            op.rawValue, "\(dtype.rawValue) \(weight) behind a linear \(n)x\(middle)x\(k)",
            tolerance: Tolerances.product + 3 * Tolerances.rounding(dtype),
            smallestMagnitude: Tolerances.termMagnitude, steps: steps
        ) { builder in
            func weights(_ name: String, _ shape: [Int]) throws -> ValueID {
                builder.parameter(
                    name,
                    try scheme.map { try builder.random.quantized($0, shape) }
                        ?? builder.random.plain(dtype, shape))
            }
            let parts = try builder.ops(
                "split", [builder.rows(k + middle, dtype)], ["sizes": .ints([k, middle])])
            let sum = try builder.op(
                "linearAdd", [parts[0], weights("first", [middle, k]), parts[1], nil], [:])
            builder.output(sum, "sum")
            var operands: [ValueID?] = [
                sum, try builder.parameter("gamma", dtype, [middle], in: 0.5..<1.5),
                try weights("w", [op == .normGatedLinear ? 2 * n : n, middle]),
            ]
            var attributes: [String: AttributeValue] = ["epsilon": .float(0.5)]
            attributes[op == .normLinear ? "kind" : "norm"] = "rms"
            if op == .normGatedLinear {
                attributes["kind"] = "silu"
            } else {
                operands.append(nil)
            }
            builder.output(try builder.op(op.rawValue, operands, attributes))
        }
    }

    /// Linears, alone and with what is fused to them.
    private enum Fused: String, CaseIterable {
        case linear, linearAdd, normLinear, normGatedLinear
    }

    private static func tall(
        _ op: Fused, _ dtype: DType, _ scheme: QuantizationScheme?, _ n: Int, _ k: Int
    ) -> ConformanceCase {
        let hasBias = n == 136 && op != .normGatedLinear
        let weight = scheme.map { "\($0)" } ?? dtype.rawValue
        // More roundings where results are intermediate values.
        let tolerance =
            Tolerances.product + Tolerances.rounding(dtype)
            * (op == .linear ? 1 : 2)
        return ConformanceCase(
            op.rawValue, "\(dtype.rawValue) \(weight) tall \(n)x\(k)\(hasBias ? " bias" : "")",
            tolerance: tolerance, smallestMagnitude: Tolerances.termMagnitude,
            steps: tallSteps + (k == 1152 ? batchSteps : [])
        ) { builder in
            // The residual lies beside x: rows of both are wider than their columns.
            var x = try builder.rows(op == .linearAdd ? k + n : k, dtype)
            var residual: ValueID?
            if op == .linearAdd {
                let parts = try builder.ops("split", [x], ["sizes": .ints([k, n])])
                (x, residual) = (parts[0], parts[1])
            }
            let rows = op == .normGatedLinear ? 2 * n : n
            let w = builder.parameter(
                "w",
                try scheme.map { try builder.random.quantized($0, [rows, k]) }
                    ?? builder.random.plain(dtype, [rows, k]))
            let bias = hasBias ? try builder.parameter("b", dtype, [n]) : nil
            var attributes: [String: AttributeValue] = ["dtype": .string(dtype.rawValue)]
            var operands: [ValueID?] = [x, w, bias]
            switch op {
            case .linear: break
            case .linearAdd:
                operands = [x, w, residual, bias]
                attributes = [:]
            case .normLinear, .normGatedLinear:
                operands = [x, try builder.parameter("gamma", dtype, [k], in: 0.5..<1.5), w]
                if op == .normLinear { operands.append(bias) }
                // Once so large that a kernel which misses it is far off.
                attributes = ["epsilon": .float(n == 24 ? 0.5 : 1e-5)]
                attributes[op == .normLinear ? "kind" : "norm"] = "rms"
                if op == .normGatedLinear { attributes["kind"] = n == 24 ? "geluTanh" : "silu" }
            }
            builder.output(try builder.op(op.rawValue, operands, attributes))
        }
    }
}
