// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletFormats
public import MartletGraph

/// Mistral 7B and its kin: LLaMA with grouped heads and, in the first version, a sliding window.
///
/// Source: Jiang et al. 2023. A query sees `sliding_window` tokens, its own included.
public struct Mistral: ModelArchitecture {
    /// Class names in `config.json`.
    public static let names = ["MistralForCausalLM"]
    private let decoder: GatedDecoder
    /// Facts for tools and limits.
    public var summary: ModelSummary { decoder.summary }

    /// Reads a configuration.
    public init(_ configuration: ConfigurationReader) throws {
        // Transformers' default for a key that is not there, unlike null; LLaMA's for heads would differ.
        _ = try configuration.int("num_key_value_heads")
        decoder = try GatedDecoder(
            configuration, name: "mistral",
            window: try GatedDecoder.window(configuration, absent: 4096))
    }

    /// Records the decoder.
    public func record(_ entryPoint: String, _ builder: GraphBuilder) { decoder.record(builder) }
}
