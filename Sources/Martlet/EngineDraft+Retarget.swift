// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletGraph

/// What happens to an engine that has no plans for the device at hand.
public enum RetargetPolicy: String, Sendable, Hashable, CaseIterable {
    /// It is compiled again from the graph that it keeps, in memory.
    case auto
    /// It is an error that names the command which makes an engine for the device.
    case never
}

extension EngineDraft {
    /// Plans the graphs that an engine keeps for other targets, or with other activations; no checkpoint
    /// is needed.
    ///
    /// - Parameters:
    ///   - file: The engine.
    ///   - catalogs: Targets of the draft.
    ///   - options: Activations, where they are to change; which targets' layouts are understood; who
    ///     hears of progress.
    /// - Throws: `MartletError` `.corrupt`, `.shapeMismatch` or `.limitExceeded` for an engine that
    ///   contradicts itself, `.unsupported` for a target that cannot compute its graph.
    init(
        retargeting file: EngineFileReader, to catalogs: [any KernelCatalog], options: LoadOptions
    ) throws {
        do {
            let constants = try file.constants()
            let disabledRules = file.manifest.description.disabledRules
            var graphs = try file.manifest.entryPoints.map { name in
                guard let text = try file.text(.graph, entryPoint: name) else {
                    throw MartletError(
                        .unsupported, "the engine keeps no graph of '\(name)'",
                        mend: "Build it again from the checkpoint: martlet build")
                }
                return try Compiler.readGraph(text, entryPoint: name, constants: constants)
            }
            if options.activations != nil {
                let format = try options.activationFormat(for: catalogs)
                graphs = try graphs.map {
                    try Compiler.changeActivations(
                        of: $0, to: format, disabledRules: disabledRules)
                }
            }
            try self.init(
                graphs: graphs, catalogs: catalogs, disabledRules: disabledRules,
                constants: constants,
                values: EngineParameters(
                    file: file, constants: constants, catalogs: options.catalogs),
                text: TextDescription(file), shared: file.sharedSections,
                onProgress: options.onBuildProgress
            ) { _ in
                var description = file.manifest.description
                description.builderVersion = EngineBuilder.version
                description.precision.activations = EngineBuilder.activations(graphs)
                return description
            }
        } catch let error as MartletError {
            throw error.adding("file", file.path)
        }
    }
}

extension EngineDescription {
    /// Rules that the engine was built without.
    fileprivate var disabledRules: Set<String> {
        Set((options["disabledRules"] ?? "").split(separator: ",").map(String.init))
    }
}

extension EngineFileReader {
    /// Sections that hold for every target; graphs and constants are written anew.
    fileprivate var sharedSections: [SharedSection] {
        manifest.sections.compactMap { section in
            guard section.key.target == .any,
                ![.graph, .constants, .plan, .weights].contains(section.key.kind),
                let bytes = view(section)
            else { return nil }
            return SharedSection(
                key: section.key, isRequired: section.isRequired, bytes: bytes)
        }
    }
}

/// Weights of an engine file, whatever target they were packed for.
struct EngineParameters: ParameterSource {
    let file: EngineFileReader
    let constants: [String: TensorData]
    let catalogs: CatalogList

    func forEachPiece(
        of request: ParameterRequest, rowUnit: Int?, _ visit: (WeightValue) throws -> Void
    ) throws {
        if request.expression != nil { return try visit(weight(request)) }
        guard let value = constants[request.name] else {
            throw failure(.corrupt, "the engine lacks constant '\(request.name)'", request)
        }
        try visit(.plain(value))
    }

    func packed(_ parameter: PlanParameter, for target: EngineTarget) -> ByteView? {
        file.parameter(parameter, for: target)
    }

    private func weight(_ request: ParameterRequest) throws -> WeightValue {
        let stored = file.entries(named: request.name)
        guard !stored.isEmpty else {
            throw failure(.corrupt, "the engine lacks weight '\(request.name)'", request)
        }
        let wanted = request.parameter
        let alike = stored.filter { $0.format == wanted.format && $0.shape == wanted.shape }
        guard !alike.isEmpty else {
            throw failure(
                .shapeMismatch,
                "the engine has weight \(stored[0].identity), its kept graph wants "
                    + "\(wanted.format) \(wanted.shape)", request)
        }
        for entry in alike {
            let target = file.target(of: entry)
            guard let catalog = catalogs.all.first(where: { $0.target == target.name }),
                let bytes = file.bytes(of: entry)
            else { continue }
            do {
                return try catalog.unpack(
                    bytes, layout: entry.layout, format: request.format, shape: request.shape)
            } catch let error as MartletError {
                throw MartletError(
                    error.code, "weight \(entry.identity) cannot be unpacked",
                    mend: "Build the engine again from the checkpoint: martlet build",
                    context: ["file": file.path, "tensor": request.name], cause: error)
            }
        }
        let targets = Set(alike.map { file.target(of: $0).name }).sorted()
        throw failure(
            .unsupported,
            "weight '\(request.name)' is packed for \(targets.joined(separator: ", ")), whose "
                + "layouts this program does not know", request)
    }

    private func failure(
        _ code: MartletError.Code, _ message: String, _ request: ParameterRequest
    ) -> MartletError {
        MartletError(
            code, message, mend: "Build the engine again from the checkpoint: martlet build",
            context: ["file": file.path, "tensor": request.name])
    }
}
