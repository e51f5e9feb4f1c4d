// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletFormats
public import MartletGraph

/// LLaMA 1, 2 and 3 and models of the same shape, such as SmolLM2.
public struct Llama: ModelArchitecture {
    /// Class names in `config.json`.
    public static let names = ["LlamaForCausalLM"]
    private let decoder: GatedDecoder
    /// Facts for tools and limits.
    public var summary: ModelSummary { decoder.summary }

    /// Reads a configuration.
    public init(_ configuration: ConfigurationReader) throws {
        try configuration.refuse(["sliding_window"], unless: [0])
        var decoder = try GatedDecoder(configuration, name: "llama")
        decoder.hasInputBias = try configuration.bool("attention_bias", default: false)
        decoder.hasOutputBias = decoder.hasInputBias
        decoder.hasMLPBias = try configuration.bool("mlp_bias", default: false)
        self.decoder = decoder
    }

    /// Records the decoder.
    public func record(_ entryPoint: String, _ builder: GraphBuilder) { decoder.record(builder) }
}
