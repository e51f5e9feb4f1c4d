// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore

extension ConformanceCase {
    /// All cases for the types that a backend offers.
    package static func all(for catalog: any KernelCatalog) -> [ConformanceCase] {
        linearCases(catalog) + embeddingCases(catalog) + rowCases(catalog) + shapeCases(catalog)
            + attentionCases(catalog) + tallCases(catalog)
    }

    /// Schemes whose codes, group shapes, zeros and scale types are all met.
    static let schemes: [QuantizationScheme] = [4, 8].flatMap { bits in
        [.channel, .tensor, .group(32), .group(64), .group(128)].flatMap { group in
            [.none, .integer, .floatMinimum].flatMap { zero in
                [DType.f32, .f16, .bf16].map {
                    QuantizationScheme(bits: bits, group: group, scaleType: $0, zero: zero)
                }
            }
        }
    }
}
