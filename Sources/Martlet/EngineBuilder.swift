// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCompiler
package import MartletCore
package import MartletEngineFile
import MartletFormats
package import MartletGraph
import MartletModels
import MartletQuantization

/// From a traced model to an engine: the compile-time half of `load`.
package struct EngineBuilder {
    /// Version written into engines; engines of other versions are not reused.
    package static let version = "martlet 0.1.0"

    let architecture: any ModelArchitecture
    let weights: any WeightProvider
    let options: LoadOptions
    let catalog: any KernelCatalog

    /// One entry point, compiled.
    package struct Program: Sendable {
        /// The optimized graph, decomposed where the backend needs it.
        package let graph: Graph
        /// Plan, parameters and decisions.
        package let emitted: EmittedPlan
        /// What each pass did.
        package let records: [Pipeline.Record]
        /// The graph as traced.
        package let traced: Graph
    }

    /// Precisions that the options ask for.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for words that mean nothing.
    func recipe() throws -> PrecisionRecipe {
        func weights(_ text: String) throws -> PrecisionRecipe.Weights {
            switch text {
            case "keep": return .keep
            case "none": return .plain
            default:
                let choice = try SchemeRegistry.choice(text)
                return .scheme(name: choice.name, choice.scheme)
            }
        }
        let activations: ActivationFormat?
        switch options.activations {
        case nil: activations = options.dtype == .f32 ? catalog.defaultActivations : nil
        case "exact": activations = nil
        case let text?:
            guard let format = ActivationFormat(rawValue: text),
                format == catalog.defaultActivations
            else {
                throw MartletError(
                    .invalidArgument,
                    "activations '\(text)' are not supported by \(catalog.target)",
                    mend: "Use exact or \(catalog.defaultActivations?.rawValue ?? "nothing else")")
            }
            activations = format
        }
        guard catalog.activationTypes.contains(options.dtype) else {
            throw MartletError(
                .invalidArgument, "dtype \(options.dtype.rawValue) is no activation type",
                mend: "Use \(catalog.activationTypes.map(\.rawValue).joined(separator: ", "))")
        }
        guard catalog.kvTypes.contains(options.kvType) else {
            throw MartletError(
                .invalidArgument, "the KV cache cannot be \(options.kvType.rawValue)",
                mend: "Use \(catalog.kvTypes.map(\.rawValue).joined(separator: ", "))")
        }
        return PrecisionRecipe(
            dtype: options.dtype, weights: try weights(options.quantize),
            embedding: try weights(options.quantizeEmbedding),
            head: try weights(options.quantizeHead), activations: activations,
            kvType: options.kvType)
    }

    /// Traces, rewrites and plans all entry points.
    package func programs() throws -> [Program] {
        var compilerOptions = Compiler.Options()
        compilerOptions.recipe = try recipe()
        compilerOptions.rules = options.rules
        compilerOptions.disabledRules = options.disabledRules
        compilerOptions.taps = options.taps
        let compiler = try Compiler(options: compilerOptions)
        return try architecture.entryPoints.map { entryPoint in
            let traced = try architecture.trace(entryPoint, dtype: options.dtype)
            var records: [Pipeline.Record] = []
            let optimized = try compiler.optimize(traced, weights: weights) { records.append($0) }
            let (graph, emitted) = try compiler.emit(optimized, for: catalog)
            return Program(graph: graph, emitted: emitted, records: records, traced: traced)
        }
    }

    /// Makes and packs all parameters of some programs, one at a time.
    ///
    /// - Parameter store: Called once per parameter, in a fixed order.
    package func pack(
        _ programs: [Program], store: (PlanParameter, ByteView) throws -> Void
    ) throws {
        var seen: Set<ParameterRequest> = []
        let total = max(1, Set(programs.flatMap(\.emitted.parameters)).count)
        for program in programs {
            for (request, parameter) in zip(
                program.emitted.parameters, program.emitted.plan.parameters)
            where seen.insert(request).inserted {
                let value = try Compiler.materialize(
                    request, constants: program.graph.constants, weights: weights)
                try store(parameter, try catalog.pack(value, layout: request.layout))
                options.onBuildProgress?("packing weights", Double(seen.count) / Double(total))
            }
        }
    }
}
