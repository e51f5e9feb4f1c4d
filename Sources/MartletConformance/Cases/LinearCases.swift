// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletGraph

extension ConformanceCase {
    /// Outputs N and inputs K: single numbers, primes, part panels, part groups.
    private static let sizes = [(1, 1), (5, 70), (16, 64), (17, 130), (33, 576), (48, 256)]

    static func linearCases(_ catalog: any KernelCatalog) -> [ConformanceCase] {
        var cases: [ConformanceCase] = []
        for dtype in catalog.activationTypes {
            for (n, k) in sizes {
                let tolerance = Tolerances.product + Tolerances.rounding(dtype)
                for weight in [DType.f32, .f16, .bf16] {
                    for hasBias in [false, true] {
                        cases.append(
                            linear(
                                dtype, "\(weight.rawValue) \(n)x\(k)\(hasBias ? " bias" : "")",
                                tolerance, (n, k), hasBias: hasBias, isCoded: false
                            ) { try $0.plain(weight, [n, k]) })
                    }
                }
                // Every scheme on f32 rows; a few on the others.
                for scheme in schemes where dtype == .f32 || scheme.scaleType == .f16 {
                    for isCoded in [false, true] {
                        cases.append(
                            linear(
                                dtype, "\(scheme) \(n)x\(k)\(isCoded ? " int8g64" : "")", tolerance,
                                (n, k), hasBias: n == 17, isCoded: isCoded,
                                hasMinimum: scheme.zero == .floatMinimum
                            ) { try $0.quantized(scheme, [n, k]) })
                    }
                }
            }
        }
        return cases
    }

    private static func linear(
        _ dtype: DType, _ detail: String, _ tolerance: Double, _ size: (n: Int, k: Int),
        hasBias: Bool, isCoded: Bool, hasMinimum: Bool = false,
        weight: @escaping @Sendable (inout SeededRandom) throws -> WeightValue
    ) -> ConformanceCase {
        ConformanceCase(
            "linear", "\(dtype.rawValue) \(detail)", tolerance: tolerance,
            smallestMagnitude: hasMinimum ? Tolerances.termMagnitude : 1e-30
        ) { builder in
            var x = try builder.rows(size.k, dtype)
            if isCoded { x = try builder.op("quantize", [x], ["format": "int8g64"]) }
            let w = builder.parameter("w", try weight(&builder.random))
            let bias = hasBias ? try builder.parameter("b", dtype, [size.n]) : nil
            let y = try builder.op("linear", [x, w, bias], ["dtype": .string(dtype.rawValue)])
            builder.output(y)
        }
    }

    static func embeddingCases(_ catalog: any KernelCatalog) -> [ConformanceCase] {
        var cases: [ConformanceCase] = []
        for dtype in catalog.activationTypes {
            func add(
                _ detail: String, _ columns: Int,
                _ table: @escaping @Sendable (inout SeededRandom) throws -> WeightValue
            ) {
                cases.append(
                    ConformanceCase(
                        "embedding", "\(dtype.rawValue) \(detail) \(columns)",
                        tolerance: Tolerances.exact
                    ) { builder in
                        let table = builder.parameter("table", try table(&builder.random))
                        builder.output(
                            try builder.op(
                                "embedding", [table, builder.input("tokens")],
                                ["dtype": .string(dtype.rawValue)]))
                    })
            }
            for columns in [1, 70, 192] {
                for weight in [DType.f32, .f16, .bf16] {
                    add(weight.rawValue, columns) { try $0.plain(weight, [rowCount, columns]) }
                }
                for scheme in schemes {
                    add(scheme.description, columns) {
                        try $0.quantized(scheme, [rowCount, columns])
                    }
                }
            }
        }
        return cases
    }
}
