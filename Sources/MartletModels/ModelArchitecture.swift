// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore
public import MartletFormats
public import MartletGraph

/// Facts about a model that tools print and limits are derived from.
public struct ModelSummary: Sendable, Hashable, Codable {
    /// Architecture name.
    public var architecture: String
    /// L, layers.
    public var layerCount: Int
    /// H.
    public var hiddenSize: Int
    /// F.
    public var intermediateSize: Int
    /// N, query heads.
    public var headCount: Int
    /// K, KV heads.
    public var kvHeadCount: Int
    /// D.
    public var headDim: Int
    /// V.
    public var vocabularySize: Int
    /// Longest context the model was made for, in tokens.
    public var maxContext: Int

    /// Collects the facts.
    public init(
        architecture: String, layerCount: Int, hiddenSize: Int, intermediateSize: Int,
        headCount: Int, kvHeadCount: Int, headDim: Int, vocabularySize: Int, maxContext: Int
    ) {
        self.architecture = architecture
        self.layerCount = layerCount
        self.hiddenSize = hiddenSize
        self.intermediateSize = intermediateSize
        self.headCount = headCount
        self.kvHeadCount = kvHeadCount
        self.headDim = headDim
        self.vocabularySize = vocabularySize
        self.maxContext = maxContext
    }
}

/// An architecture: reads a configuration, names its weights, and records its entry points.
///
/// It must reject configuration that it cannot honour, naming the key. It knows nothing of
/// quantization, backends, servers or tokenizers.
public protocol ModelArchitecture: Sendable {
    /// Class names in `config.json` that it reads.
    static var names: [String] { get }
    /// Reads a configuration.
    ///
    /// - Throws: `MartletError` `.unsupported` naming the key it cannot honour.
    init(_ configuration: ConfigurationReader) throws
    /// Facts for tools and limits.
    var summary: ModelSummary { get }
    /// Entry points in order; the first is the decoder.
    var entryPoints: [String] { get }
    /// Where its weights are in a checkpoint.
    var weightMap: WeightMap { get }
    /// Records one entry point.
    func record(_ entryPoint: String, _ builder: GraphBuilder)
}

extension ModelArchitecture {
    /// A decoder only.
    public var entryPoints: [String] { ["decode"] }
    /// The names of Hugging Face decoders.
    public var weightMap: WeightMap { .huggingFaceDecoder }

    /// Traces one entry point to a verified graph.
    ///
    /// - Parameters:
    ///   - entryPoint: One of `entryPoints`.
    ///   - dtype: Type of activations.
    ///   - ops: Ops that may be used.
    /// - Throws: `MartletError` if shapes do not fit, naming the module.
    public func trace(
        _ entryPoint: String = "decode", dtype: DType = .f32, ops: OpSet = .builtIn
    ) throws -> Graph {
        let builder = GraphBuilder(name: entryPoint, dtype: dtype, ops: ops)
        record(entryPoint, builder)
        return try builder.finish()
    }
}
