// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletFormats
public import MartletGraph

/// Qwen2 and Qwen2.5: LLaMA with biases on queries, keys and values.
///
/// With `use_sliding_window` the layers from `max_window_layers` on see `sliding_window` tokens.
public struct Qwen2: ModelArchitecture {
    /// Class names in `config.json`.
    public static let names = ["Qwen2ForCausalLM"]
    private let decoder: GatedDecoder
    /// Facts for tools and limits.
    public var summary: ModelSummary { decoder.summary }

    /// Reads a configuration.
    public init(_ configuration: ConfigurationReader) throws {
        _ = try configuration.int("num_key_value_heads")
        let slides = try configuration.bool("use_sliding_window", default: false)
        var decoder = try GatedDecoder(
            configuration, name: "qwen2",
            window: slides ? try GatedDecoder.window(configuration, absent: 4096) : nil,
            firstWindow: slides ? try configuration.count("max_window_layers", default: 28) : 0)
        decoder.hasInputBias = true
        self.decoder = decoder
    }

    /// Records the decoder.
    public func record(_ entryPoint: String, _ builder: GraphBuilder) { decoder.record(builder) }
}
