// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
import MartletBackend
package import MartletCompiler
import MartletCore
package import MartletEngineFile
import MartletFormats
package import MartletGraph
package import MartletModels
import MartletQuantization

/// From a model and its weights to an engine: the compile-time half of `load`.
package struct EngineBuilder {
    /// Version written into engines; engines of other versions are not reused.
    package static let version = "martlet 0.1.0"

    let architecture: any ModelArchitecture
    let weights: any WeightProvider
    let options: LoadOptions
    /// Targets of the engine; never empty.
    let catalogs: [any KernelCatalog]

    /// The first target.
    var catalog: any KernelCatalog { catalogs[0] }

    /// Joins a model, its weights and the user's choices.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for a target that does not exist.
    package init(
        architecture: any ModelArchitecture, weights: any WeightProvider, options: LoadOptions
    ) throws {
        self.architecture = architecture
        self.weights = weights
        self.options = options
        catalogs = try options.catalogs.named(options.targets)
    }

    /// One entry point, compiled for the first target.
    package struct Program: Sendable {
        /// The optimized device-neutral graph.
        package let graph: Graph
        /// Plan, parameters and decisions.
        package let emitted: EmittedPlan
        /// What each pass did.
        package let records: [Pipeline.Record]
        /// The graph as traced.
        package let traced: Graph
    }

    /// Traces, rewrites and plans all entry points.
    ///
    /// - Throws: `MartletError` if the model cannot be compiled.
    package func programs() throws -> [Program] {
        let rewritten = try rewritten()
        let program = try Compiler.emit(
            rewritten.map(\.graph), for: catalog, disabledRules: options.disabledRules)
        return zip(rewritten, program.entries).map { entry, emitted in
            Program(
                graph: entry.graph, emitted: emitted, records: entry.records,
                traced: entry.traced)
        }
    }

    /// Everything but the packing of weights.
    ///
    /// - Throws: `MartletError` if the model cannot be compiled for all targets.
    package func draft(_ source: EngineSource) throws -> EngineDraft {
        let graphs = try rewritten().map(\.graph)
        let constants = try Compiler.constants(of: graphs)
        return try EngineDraft(
            graphs: graphs, catalogs: catalogs, disabledRules: options.disabledRules,
            constants: constants,
            values: ModelParameters(constants: constants, weights: weights), text: source.text,
            shared: source.text.sections(), sources: source.fingerprints,
            onProgress: options.onBuildProgress
        ) { try describe(source, graphs, $0[0].parameters) }
    }

    private func rewritten() throws -> [(
        graph: Graph, traced: Graph, records: [Pipeline.Record]
    )] {
        var compilerOptions = Compiler.Options()
        compilerOptions.recipe = try recipe()
        compilerOptions.rules = options.rules
        compilerOptions.disabledRules = options.disabledRules
        compilerOptions.taps = options.taps
        let compiler = try Compiler(options: compilerOptions, for: catalogs)
        return try architecture.entryPoints.map { entryPoint in
            let traced = try architecture.trace(entryPoint, dtype: options.dtype)
            var records: [Pipeline.Record] = []
            let graph = try compiler.optimize(traced, weights: weights) { records.append($0) }
            return (graph, traced, records)
        }
    }

    /// What an engine of these graphs and parameters is.
    ///
    /// - Throws: `MartletError` for precisions that the options cannot mean.
    package func describe(
        _ source: EngineSource, _ graphs: [Graph], _ parameters: [ParameterRequest]
    ) throws -> EngineDescription {
        let summary = architecture.summary
        let activations = Self.activations(graphs)
        if let asked = options.activations, asked != "exact", activations == "exact" {
            options.onWarning?("activations stay exact: no linear has coded weights")
        }
        return EngineDescription(
            builderVersion: Self.version, modelName: source.name,
            architecture: summary.architecture,
            sizes: EngineSizes(
                hiddenSize: summary.hiddenSize, intermediateSize: summary.intermediateSize,
                layerCount: summary.layerCount, headCount: summary.headCount,
                kvHeadCount: summary.kvHeadCount, headDim: summary.headDim,
                vocabularySize: summary.vocabularySize, maxContext: summary.maxContext,
                parameterCount: parameters.filter { $0.expression != nil }
                    .reduce(0) { $0 + $1.shape.reduce(1, *) }),
            precision: EnginePrecision(
                dtype: options.dtype.rawValue, weights: Self.formats(parameters),
                activations: activations,
                kvDType: options.kvType.rawValue),
            options: options.disabledRules.isEmpty
                ? [:] : ["disabledRules": options.disabledRules.sorted().joined(separator: ",")])
    }

    /// The formats that activations are coded in, as `int8g64`; `exact` where none is, whatever was asked for.
    static func activations(_ graphs: [Graph]) -> String {
        let formats = graphs.flatMap(\.nodes).flatMap(\.results).compactMap(\.format.activation)
        let names = Set(formats.map(\.rawValue)).sorted()
        return names.isEmpty ? "exact" : names.joined(separator: ", ")
    }

    /// The formats of matrices, most elements first, such as `int4.g32.min.f16, int8.g32.f16`.
    private static func formats(_ parameters: [ParameterRequest]) -> String {
        var counts: [String: Int] = [:]
        for request in parameters where request.shape.count == 2 {
            counts[request.format.description, default: 0] += request.shape.reduce(1, *)
        }
        return counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map(\.key)
            .joined(separator: ", ")
    }
}

extension EngineBuilder {
    /// Precisions that the options ask for.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for words that mean nothing, or that a target
    ///   does not know.
    func recipe() throws -> PrecisionRecipe {
        for catalog in catalogs { try checkTypes(catalog) }
        var recipe = PrecisionRecipe(
            dtype: options.dtype, weights: try Self.weights(options.quantize),
            embedding: try Self.weights(options.quantizeEmbedding),
            activations: try options.activationFormat(for: catalogs),
            kvType: options.kvType)
        if let head = options.quantizeHead { recipe.head = try Self.weights(head) }
        return recipe
    }

    private static func weights(_ text: String) throws -> PrecisionRecipe.Weights {
        switch text {
        case "keep": return .keep
        case "none": return .plain
        default:
            let choice = try SchemeRegistry.choice(text)
            return .scheme(name: choice.name, choice.scheme)
        }
    }

    /// Checks a word for weights, such as `int4:g64`.
    ///
    /// - Throws: `MartletError` `.invalidArgument` listing the words.
    package static func checkWeights(_ text: String) throws { _ = try weights(text) }

    private func checkTypes(_ catalog: any KernelCatalog) throws {
        guard catalog.activationTypes.contains(options.dtype) else {
            throw MartletError(
                .invalidArgument,
                "dtype \(options.dtype.rawValue) is no activation type of \(catalog.target)",
                mend: "Use \(catalog.activationTypes.map(\.rawValue).joined(separator: ", "))")
        }
        guard catalog.kvTypes.contains(options.kvType) else {
            throw MartletError(
                .invalidArgument,
                "the KV cache of \(catalog.target) cannot be \(options.kvType.rawValue)",
                mend: "Use \(catalog.kvTypes.map(\.rawValue).joined(separator: ", "))")
        }
    }
}

/// What an engine is built from, besides architecture and weights.
package struct EngineSource: Sendable {
    let name: String
    let text: TextDescription
    private let files: [String]

    init(_ source: ModelSource) throws {
        name = source.displayName
        text = try TextDescription(source)
        files = source.files
    }

    /// A model without files: defined in code.
    package init(name: String) {
        self.name = name
        text = TextDescription()
        files = []
    }

    /// What the files are, every byte of them: reads them all.
    ///
    /// - Throws: `MartletError` for a file that cannot be read.
    func fingerprints() throws -> [SourceFingerprint] {
        try files.map { file in
            let bytes = try MappedFile.map(file)
            var hash = SHA256()
            bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
            return SourceFingerprint(
                name: FileStatus.name(file), byteCount: bytes.count,
                hash: "sha256:" + hexadecimal(hash.finalize()))
        }
    }
}
