// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletGraph

extension ConformanceCase {
    private static let columns = [1, 7, 64, 130, 576]

    /// Ops from rows to rows.
    static func rowCases(_ catalog: any KernelCatalog) -> [ConformanceCase] {
        catalog.activationTypes.flatMap { dtype in
            columns.flatMap { count in
                normCases(dtype, count) + activationCases(dtype, count)
                    + elementCases(dtype, count)
            }
        }
    }

    private static func normCases(_ dtype: DType, _ count: Int) -> [ConformanceCase] {
        var cases: [ConformanceCase] = []
        let tolerance = Tolerances.formula + 2 * Tolerances.rounding(dtype)
        for kind in ["rms", "layer"] where kind == "rms" || count > 1 {
            for (hasWeight, hasBias) in [(true, false), (true, true), (false, false)] {
                for format in [nil, "int8g64"] {
                    var attributes: [String: AttributeValue] = [
                        "kind": .string(kind), "epsilon": 1e-5,
                    ]
                    attributes["format"] = format.map { .string($0) }
                    let detail =
                        "\(dtype.rawValue) \(kind)\(hasWeight ? " weight" : "")"
                        + "\(hasBias ? " bias" : "") \(count) \(format ?? "")"
                    let stored = attributes
                    @Sendable func vectors(_ builder: inout CaseBuilder) throws -> [ValueID?] {
                        [
                            hasWeight ? try builder.parameter("w", dtype, [count]) : nil,
                            hasBias ? try builder.parameter("b", dtype, [count]) : nil,
                        ]
                    }
                    cases.append(
                        ConformanceCase("norm", detail, tolerance: tolerance) { builder in
                            let x = try builder.rows(count, dtype, in: -3..<5)
                            let more = try vectors(&builder)
                            builder.output(try builder.op("norm", [x] + more, stored))
                        })
                    cases.append(
                        ConformanceCase("addNorm", detail, tolerance: tolerance) { builder in
                            let x = try builder.rows(count, dtype, in: -3..<5)
                            let y = try builder.rows(count, dtype, name: "residual")
                            let more = try vectors(&builder)
                            let results = try builder.ops("addNorm", [x, y] + more, stored)
                            builder.output(results[0], "sum")
                            builder.output(results[1], "normed")
                        })
                }
            }
        }
        return cases
    }

    private static func activationCases(_ dtype: DType, _ count: Int) -> [ConformanceCase] {
        var cases: [ConformanceCase] = []
        let tolerance = Tolerances.formula + 2 * Tolerances.rounding(dtype)
        for kind in ["silu", "gelu", "geluTanh", "relu"] {
            for format in [nil, "int8g64"] {
                var attributes: [String: AttributeValue] = ["kind": .string(kind)]
                attributes["format"] = format.map { .string($0) }
                let detail = "\(dtype.rawValue) \(kind) \(count) \(format ?? "")"
                let stored = attributes
                cases.append(
                    ConformanceCase("activation", detail, tolerance: tolerance) { builder in
                        let x = try builder.rows(count, dtype, in: -12..<12)
                        builder.output(try builder.op("activation", [x], stored))
                    })
                cases.append(
                    ConformanceCase("gatedActivation", detail, tolerance: tolerance) { builder in
                        // Both halves of one merged row: strided operands.
                        let x = try builder.rows(2 * count, dtype, in: -12..<12)
                        let parts = try builder.ops("split", [x], ["sizes": .ints([count, count])])
                        builder.output(
                            try builder.op("gatedActivation", [parts[0], parts[1]], stored))
                    })
            }
        }
        return cases
    }

    private static func elementCases(_ dtype: DType, _ count: Int) -> [ConformanceCase] {
        let detail = "\(dtype.rawValue) \(count)"
        let rounded = Tolerances.formula + Tolerances.rounding(dtype)
        var cases: [ConformanceCase] = []
        func unary(_ op: String, _ tolerance: Double, _ attributes: [String: AttributeValue] = [:])
        {
            cases.append(
                ConformanceCase(op, detail, tolerance: tolerance) { builder in
                    let x = try builder.rows(count, dtype, in: -4..<4)
                    builder.output(try builder.op(op, [x], attributes))
                })
        }
        for op in ["add", "mul"] {
            cases.append(
                ConformanceCase(op, detail, tolerance: Tolerances.exact) { builder in
                    let a = try builder.rows(count, dtype)
                    let b = try builder.rows(count, dtype, name: "other")
                    builder.output(try builder.op(op, [a, b]))
                })
        }
        unary("scale", Tolerances.exact, ["factor": 0.375])
        unary("softCap", rounded, ["cap": 2.5])
        unary("softmax", rounded)
        unary("normalizeRows", rounded)
        unary("l2Normalize", rounded)
        unary("meanPool", rounded)
        unary("quantize", Tolerances.exact, ["format": "int8g64"])
        for target in [DType.f32, .f16, .bf16] {
            cases.append(
                ConformanceCase(
                    "cast", "\(detail) to \(target.rawValue)", tolerance: Tolerances.exact
                ) { builder in
                    let x = try builder.rows(count, dtype, in: -4..<4)
                    let y = try builder.op("cast", [x], ["dtype": .string(target.rawValue)])
                    builder.output(y)
                })
        }
        cases.append(
            ConformanceCase("dequantize", detail, tolerance: Tolerances.exact) { builder in
                let x = try builder.rows(count, dtype, in: -4..<4)
                let codes = try builder.op("quantize", [x], ["format": "int8g64"])
                let y = try builder.op("dequantize", [codes], ["dtype": .string(dtype.rawValue)])
                builder.output(y)
            })
        return cases
    }

    /// Ops that move rows and columns, and the sampler.
    static func shapeCases(_ catalog: any KernelCatalog) -> [ConformanceCase] {
        catalog.activationTypes.flatMap { dtype -> [ConformanceCase] in
            [3, 67, 130].flatMap { count -> [ConformanceCase] in
                let detail = "\(dtype.rawValue) \(count)"
                return [
                    ConformanceCase("slice", detail, tolerance: Tolerances.exact) { builder in
                        let x = try builder.rows(count, dtype)
                        builder.output(
                            try builder.op("slice", [x], ["start": 1, "count": .int(count - 2)]))
                    },
                    ConformanceCase("concat", detail, tolerance: Tolerances.exact) { builder in
                        let x = try builder.rows(count, dtype)
                        let y = try builder.rows(count, dtype, name: "other")
                        let part = try builder.ops("split", [y], ["sizes": .ints([2, count - 2])])
                        builder.output(
                            try builder.op("concat", [part[1], x, part[0], x], ["axis": 1]))
                    },
                    ConformanceCase("reshape", detail, tolerance: Tolerances.exact) { builder in
                        let x = try builder.rows(count, dtype)
                        builder.output(
                            try builder.op("reshape", [x], ["shape": .string("T,\(count)")]))
                    },
                    ConformanceCase("gatherRows", detail, tolerance: Tolerances.exact) { builder in
                        let x = try builder.rows(count, dtype)
                        builder.output(
                            try builder.op("gatherRows", [x, builder.input("logitRows")]))
                    },
                    ConformanceCase(
                        "gatherRows", detail + " int8g64", tolerance: Tolerances.exact
                    ) { builder in
                        let x = try builder.rows(count, dtype)
                        let codes = try builder.op("quantize", [x], ["format": "int8g64"])
                        builder.output(
                            try builder.op("gatherRows", [codes, builder.input("logitRows")]))
                    },
                    ConformanceCase("sample", detail, tolerance: Tolerances.exact) { builder in
                        let x = try builder.rows(count, dtype)
                        let rows = try builder.op("gatherRows", [x, builder.input("logitRows")])
                        builder.output(try builder.op("sample", [rows]))
                    },
                ]
            }
        }
    }
}
