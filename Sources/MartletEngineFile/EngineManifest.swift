// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What an engine is: everything about it except where its bytes lie.
package struct EngineDescription: Sendable, Hashable, Codable {
    /// Version of the program that built it.
    package var builderVersion: String
    /// Model name as the user knows it.
    package var modelName: String
    /// Architecture name as the registry knows it, such as `llama`.
    package var architecture: String
    /// Sizes of the model.
    package var sizes: EngineSizes
    /// Number formats.
    package var precision: EnginePrecision
    /// Files the engine was built from.
    package var sources: [SourceFingerprint]
    /// Options of the build that change its result, by flag name; part of the cache key.
    package var options: [String: String]

    /// Describes an engine; see the properties.
    package init(
        builderVersion: String, modelName: String, architecture: String, sizes: EngineSizes,
        precision: EnginePrecision, sources: [SourceFingerprint] = [],
        options: [String: String] = [:]
    ) {
        self.builderVersion = builderVersion
        self.modelName = modelName
        self.architecture = architecture
        self.sizes = sizes
        self.precision = precision
        self.sources = sources
        self.options = options
    }
}

/// Sizes of a model that a runtime, a bench or a listing shows and checks.
package struct EngineSizes: Sendable, Hashable, Codable {
    /// Elements of a hidden row.
    package var hiddenSize: Int
    /// Elements of a feed-forward row.
    package var intermediateSize: Int
    /// Layers.
    package var layerCount: Int
    /// Query heads.
    package var headCount: Int
    /// KV heads.
    package var kvHeadCount: Int
    /// Elements of a head.
    package var headDim: Int
    /// Token ids.
    package var vocabularySize: Int
    /// Longest context the model was made for, in tokens.
    package var maxContext: Int
    /// Parameters of the model.
    package var parameterCount: Int

    /// Gathers sizes; see the properties.
    package init(
        hiddenSize: Int, intermediateSize: Int, layerCount: Int, headCount: Int, kvHeadCount: Int,
        headDim: Int, vocabularySize: Int, maxContext: Int, parameterCount: Int
    ) {
        self.hiddenSize = hiddenSize
        self.intermediateSize = intermediateSize
        self.layerCount = layerCount
        self.headCount = headCount
        self.kvHeadCount = kvHeadCount
        self.headDim = headDim
        self.vocabularySize = vocabularySize
        self.maxContext = maxContext
        self.parameterCount = parameterCount
    }
}

/// Number formats of an engine, by the names a user types.
package struct EnginePrecision: Sendable, Hashable, Codable {
    /// Type that unquantized activations are stored in.
    package var dtype: String
    /// Scheme of the weights, or `none`.
    package var weights: String
    /// Activation format of linears, such as `exact` or `int8g64`.
    package var activations: String
    /// Type of the KV cache.
    package var kvDType: String

    /// Names the formats.
    package init(dtype: String, weights: String, activations: String, kvDType: String) {
        self.dtype = dtype
        self.weights = weights
        self.activations = activations
        self.kvDType = kvDType
    }
}

/// What identifies a file that an engine was built from.
package struct SourceFingerprint: Sendable, Hashable, Codable {
    /// File name without its folder.
    package var name: String
    /// Length in bytes.
    package var byteCount: Int
    /// A hash with its kind, such as `sha256:...`; empty if unknown.
    package var hash: String

    /// Identifies a file.
    package init(name: String, byteCount: Int, hash: String) {
        self.name = name
        self.byteCount = byteCount
        self.hash = hash
    }
}

/// The JSON part of an engine file.
package struct EngineManifest: Sendable, Hashable, Codable {
    /// What the engine is.
    package var description: EngineDescription
    /// Devices that have a plan, sorted.
    package var targets: [String]
    /// Entry points that have a plan, in the order of the model: the decoder first.
    package var entryPoints: [String]
    /// Where sections lie, in file order.
    package var sections: [EngineSection]
    /// Where parameters lie, in file order.
    package var parameters: [EngineParameter]

    /// Devices that have plans, in file order.
    package var planTargets: [EngineTarget] {
        var seen: Set<EngineTarget> = []
        return sections.map(\.key).filter { $0.kind == .plan && seen.insert($0.target).inserted }
            .map(\.target)
    }

    /// Entry points of the plans among some sections, in file order.
    static func entryPoints(of sections: [EngineSection]) -> [String] {
        var seen: Set<String> = []
        return sections.map(\.key).filter {
            $0.kind == .plan && seen.insert($0.entryPoint).inserted
        }
        .map(\.entryPoint)
    }
}
