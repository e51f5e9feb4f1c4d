// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCompiler
import MartletCore
package import MartletEngineFile
package import MartletGraph

/// An engine before its weights are packed: what a checkpoint and an engine to re-target both become.
package struct EngineDraft: Sendable {
    /// One target of the engine.
    package struct Target: Sendable {
        let catalog: any KernelCatalog
        let program: TargetProgram

        /// Name of the target.
        package var name: String { catalog.target }
        /// Plans in the order of entry points.
        package var plans: [Plan] { program.plans }
    }

    /// Targets in the order in which they are written; never empty.
    package let targets: [Target]
    /// The optimized device-neutral graphs, one per entry point, which the engine keeps.
    package let graphs: [Graph]
    /// What the engine is.
    package let description: EngineDescription

    let constants: [String: TensorData]
    let values: any ParameterSource
    let text: TextDescription
    /// Sections that hold for every target, such as the tokenizer.
    let shared: [SharedSection]
    /// Reads the files that the engine is made of, where they are not in the description yet.
    private let sources: (@Sendable () throws -> [SourceFingerprint])?
    let onProgress: (@Sendable (String, Double) -> Void)?

    /// Plans graphs for targets.
    ///
    /// - Throws: `MartletError` `.unsupported` naming a node that no kernel of a target computes.
    init(
        graphs: [Graph], catalogs: [any KernelCatalog], disabledRules: Set<String>,
        constants: [String: TensorData],
        values: any ParameterSource, text: TextDescription, shared: [SharedSection],
        sources: (@Sendable () throws -> [SourceFingerprint])? = nil,
        onProgress: (@Sendable (String, Double) -> Void)?,
        describe: ([TargetProgram]) throws -> EngineDescription
    ) throws {
        targets = try catalogs.map { catalog in
            Target(
                catalog: catalog,
                program: try Compiler.emit(graphs, for: catalog, disabledRules: disabledRules))
        }
        description = try describe(targets.map(\.program))
        self.graphs = graphs
        self.constants = constants
        self.values = values
        self.text = text
        self.shared = shared
        self.sources = sources
        self.onProgress = onProgress
    }

    /// Packs into memory, for the first target, what is not packed for it already.
    ///
    /// - Throws: What making or packing a weight throws.
    func inMemory() throws -> LoadedEngine {
        var parameters: ParameterBytes = [:]
        let target = targets[0]
        let requests = target.program.parameters
        for (index, request) in requests.enumerated() {
            parameters[request.parameter] =
                try values.packed(request.parameter, for: target.program.target)
                ?? packed(request, for: target).bytes()
            onProgress?("packing weights", Double(index + 1) / Double(requests.count))
        }
        return LoadedEngine(
            plans: target.plans, parameters: parameters, description: description, path: nil,
            text: text)
    }

    /// Writes an engine file: streamed, atomic, the same bytes for the same input.
    ///
    /// - Throws: `MartletError`; nothing stays at the path then.
    package func write(to path: String) throws {
        let writer = try EngineFileWriter(path: path)
        // Hashing takes about as long as packing, and another core.
        let fingerprints = sources.map { Concurrently($0) }
        // So does compiling kernels.
        let codes = targets.map { target in
            Concurrently { [catalog = target.catalog, plans = target.plans] in
                try catalog.deviceCode(for: plans)
            }
        }
        do {
            for target in targets {
                for plan in target.plans { try writer.addPlan(plan, for: target.program.target) }
            }
            for graph in graphs {
                try writer.addSection(
                    SectionKey(.graph, entryPoint: graph.name), isRequired: false,
                    ByteView(Array(graph.text.utf8)))
            }
            try writeConstants(to: writer)
            for section in shared {
                try writer.addSection(
                    section.key, isRequired: section.isRequired, section.bytes)
            }
            for (index, target) in targets.enumerated() {
                try writeWeights(of: target, index, to: writer) { try codes[index].checkNow() }
                try writeDeviceCode(codes[index].value(), of: target, to: writer)
            }
            var description = description
            if let fingerprints { description.sources = try fingerprints.value() }
            try writer.finish(description)
        } catch {
            writer.cancel()
            throw error
        }
    }

    private func writeConstants(to writer: EngineFileWriter) throws {
        guard !constants.isEmpty else { return }
        try writer.beginSection(SectionKey(.constants))
        for (name, value) in constants.sorted(by: { $0.key < $1.key }) {
            try writer.writeParameter(
                PlanParameter(
                    name: name, layout: PlanParameter.rowMajor, format: value.dtype.rawValue,
                    shape: value.shape), value.bytes)
        }
        writer.endSection()
    }

    private func writeDeviceCode(
        _ code: [String: ByteView], of target: Target, to writer: EngineFileWriter
    ) throws {
        for (name, bytes) in code.sorted(by: { $0.key < $1.key }) {
            try writer.addSection(
                SectionKey(.deviceCode, target: target.program.target, name: name),
                isRequired: false, bytes)
        }
    }

    private func writeWeights(
        of target: Target, _ index: Int, to writer: EngineFileWriter,
        betweenParameters check: () throws -> Void
    ) throws {
        // Constants that kernels take as they are lie in their own section already.
        let requests = target.program.parameters.filter {
            $0.expression != nil || $0.layout != PlanParameter.rowMajor
        }
        try writer.beginSection(SectionKey(.weights, target: target.program.target))
        for (number, request) in requests.enumerated() {
            try check()
            let parameter = packed(request, for: target)
            try writer.writeParameter(request.parameter) { try parameter.forEachPiece($0) }
            let done = Double(index) + Double(number + 1) / Double(requests.count)
            onProgress?("packing weights", done / Double(targets.count))
        }
        writer.endSection()
    }

    /// A parameter in a target's layout, made when its pieces are asked for.
    private func packed(_ request: ParameterRequest, for target: Target) -> PackedParameter {
        let catalog = target.catalog
        return PackedParameter(
            parameter: request.parameter,
            byteCount: catalog.packedByteCount(
                layout: request.layout, format: request.format, shape: request.shape)
        ) { body in
            try values.forEachPiece(
                of: request, rowUnit: catalog.packedRowUnit(layout: request.layout)
            ) { try body(try catalog.pack($0, layout: request.layout)) }
        }
    }
}

/// A section that holds for every target, as it is written.
struct SharedSection {
    let key: SectionKey
    let isRequired: Bool
    let bytes: ByteView
}
