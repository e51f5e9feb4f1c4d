// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
package import MartletCPU
package import MartletCompiler
import MartletCore
package import MartletEngineFile
package import MartletGraph
package import MartletModels

/// A model compiled for a catalog, with its packed weights, ready to run or to be written.
package struct CompiledModel: Sendable {
    /// One entry point.
    package struct Program: Sendable {
        /// As traced.
        package let traced: Graph
        /// As rewritten for any device.
        package let kept: Graph
        /// Plan, parameters and choices.
        package let emitted: EmittedPlan
        /// As the catalog's kernels compute it.
        package var graph: Graph { emitted.graph }
    }

    /// Entry points in order.
    package let programs: [Program]
    /// Packed weights.
    package private(set) var parameters: ParameterBytes = [:]
    /// Parameters in the order they are written, each once.
    package private(set) var order: [PlanParameter] = []

    /// Compiles every entry point of an architecture.
    ///
    /// - Throws: What the compiler throws.
    package init(
        _ architecture: any ModelArchitecture, weights: any WeightProvider,
        options: Compiler.Options = Compiler.Options(),
        catalog: any KernelCatalog = CPUCatalog()
    ) throws {
        let compiler = try Compiler(options: options, for: [catalog])
        let traced = try architecture.entryPoints.map {
            try architecture.trace($0, dtype: options.recipe.dtype)
        }
        let kept = try traced.map { try compiler.optimize($0, weights: weights) }
        let program = try Compiler.emit(
            kept, for: catalog, disabledRules: options.disabledRules)
        programs = traced.indices.map {
            Program(traced: traced[$0], kept: kept[$0], emitted: program.entries[$0])
        }
        let constants = try Compiler.constants(of: kept)
        for request in program.parameters {
            let value = try Compiler.materialize(request, constants: constants, weights: weights)
            parameters[request.parameter] = try catalog.pack(value, layout: request.layout)
            order.append(request.parameter)
        }
    }

    /// The plans.
    package var plans: [Plan] { programs.map(\.emitted.plan) }

    /// An executor whose buffers are filled with NaN before each step.
    ///
    /// - Throws: What the executor throws.
    package func executor(maxTokens: Int = 64) throws -> CPUExecutor {
        try Self.executor(plans: plans, parameters: parameters, maxTokens: maxTokens)
    }

    /// Loads plans with small limits: 4 requests, a context of 256.
    ///
    /// - Throws: What the executor throws.
    package static func executor(
        plans: [Plan], parameters: ParameterBytes, maxTokens: Int = 64
    ) throws -> CPUExecutor {
        var options = CPUOptions(
            limits: StepLimits(
                maxTokens: maxTokens, maxRequests: 4, maxLogitRows: maxTokens, maxContext: 256),
            pageCount: 96, threadCount: 2)
        options.poisonsBuffers = true
        return try CPUExecutor(plans: plans, parameters: parameters, options: options)
    }

    /// Writes the model as an engine file.
    ///
    /// - Throws: What the writer throws.
    package func write(to path: String, summary: ModelSummary) throws {
        let writer = try EngineFileWriter(path: path)
        for plan in plans { try writer.addPlan(plan) }
        try writer.beginSection(SectionKey(.weights, target: EngineTarget("cpu")))
        for parameter in order {
            guard let bytes = parameters[parameter] else { continue }
            try writer.writeParameter(parameter, bytes)
        }
        writer.endSection()
        try writer.finish(
            EngineDescription(
                builderVersion: "tests", modelName: "tiny", architecture: summary.architecture,
                sizes: EngineSizes(
                    hiddenSize: summary.hiddenSize, intermediateSize: summary.intermediateSize,
                    layerCount: summary.layerCount, headCount: summary.headCount,
                    kvHeadCount: summary.kvHeadCount, headDim: summary.headDim,
                    vocabularySize: summary.vocabularySize, maxContext: summary.maxContext,
                    parameterCount: order.reduce(0) { $0 + $1.shape.reduce(1, *) }),
                precision: EnginePrecision(
                    dtype: "f32", weights: "f32", activations: "exact", kvDType: "f32")))
    }

    /// Loads an engine file.
    ///
    /// - Throws: What the reader or the executor throws.
    package static func load(_ path: String, entryPoints: [String]) throws -> CPUExecutor {
        let file = try EngineFileReader.open(path)
        let device = EngineTarget("cpu")
        var parameters: ParameterBytes = [:]
        let plans = try entryPoints.map { name in
            let plan = try file.plan(entryPoint: name, for: device)
            for (parameter, bytes) in zip(
                plan.parameters, try file.parameters(of: plan, for: device))
            {
                parameters[parameter] = bytes
            }
            return plan
        }
        return try executor(plans: plans, parameters: parameters)
    }
}
