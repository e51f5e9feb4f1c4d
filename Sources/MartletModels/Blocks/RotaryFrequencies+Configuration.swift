// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletFormats

extension RotaryFrequencies {
    /// Reads `rope_theta` and `rope_scaling` (or the newer `rope_parameters`).
    ///
    /// - Throws: `MartletError` `.unsupported` naming a scaling that is not known.
    public init(_ configuration: ConfigurationReader, headDim: Int) throws {
        let nested = try configuration.object("rope_parameters")
        let rules = try configuration.object("rope_scaling") ?? nested
        // Of several bases the innermost counts, as in transformers.
        let outer = try configuration.positive(
            "rope_theta", default: nested?.positive("rope_theta", default: 10_000) ?? 10_000)
        let base = try rules?.positive("rope_theta", default: outer) ?? outer
        try nested?.refuse(["partial_rotary_factor"], unless: [1])
        guard headDim % 2 == 0 else {
            throw MartletError(
                .unsupported,
                "\(configuration.origin): 'head_dim' is \(headDim), but rotary positions need pairs"
            )
        }
        self.init(rotaryDim: headDim, base: base)
        guard let rules else { return }
        if let factors = try rules.doubles("factors") {
            guard factors.count == rotaryDim / 2 else {
                throw configuration.failure(
                    "\(factors.count) rotary factors for \(rotaryDim / 2) pairs")
            }
            if let wrong = factors.first(where: { !($0 > 0 && $0.isFinite) }) {
                throw configuration.failure("a rotary factor is \(wrong), not a number above 0")
            }
            scaling = .factors(factors)
            return
        }
        let old = try rules.word("type", of: Self.types, default: "default")
        switch try rules.word("rope_type", of: Self.types, default: old) {
        case "linear": scaling = .linear(factor: try rules.positive("factor"))
        case "llama3":
            scaling = .llama3(
                factor: try rules.positive("factor"),
                lowFrequencyFactor: try rules.positive("low_freq_factor"),
                highFrequencyFactor: try rules.positive("high_freq_factor"),
                originalContext: try rules.int("original_max_position_embeddings"))
        default: break
        }
    }

    private static let types = ["default", "linear", "llama3"]
}
