// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCore
package import MartletEngineFile
import MartletFormats
import MartletModels
import MartletTokenizer

/// An engine in memory: plans, packed weights, text description.
///
/// Made by the builder or read from a file.
package struct LoadedEngine: Sendable {
    /// Plans in the order of entry points.
    package var plans: [Plan]
    /// Packed weights by name.
    package var parameters: [String: ByteView]
    /// What the engine is.
    package var description: EngineDescription
    /// Where it was read from; nil if it was built in memory.
    package var path: String?
    var text: TextDescription

    /// Opens and verifies an engine file for a device.
    ///
    /// - Throws: `MartletError` for a damaged file or one without plans for the device.
    package static func open(_ path: String, target: String) throws -> LoadedEngine {
        let file = try EngineFileReader.open(path)
        let device = EngineTarget(target)
        var parameters: [String: ByteView] = [:]
        // The decoder comes first; others follow by name.
        let names = file.manifest.entryPoints.sorted {
            ($0 == "decode" ? 0 : 1, $0) < ($1 == "decode" ? 0 : 1, $1)
        }
        let plans = try names.map { name in
            let plan = try file.plan(entryPoint: name, for: device)
            for (parameter, bytes) in zip(
                plan.parameters, try file.parameters(of: plan, for: device))
            {
                parameters[parameter.name] = bytes
            }
            return plan
        }
        return LoadedEngine(
            plans: plans, parameters: parameters, description: file.manifest.description,
            path: path,
            text: try TextDescription(file))
    }
}

extension EngineBuilder {
    /// Builds an engine in memory.
    func buildInMemory(_ source: EngineSource) throws -> LoadedEngine {
        let programs = try programs()
        var parameters: [String: ByteView] = [:]
        try pack(programs) { parameter, bytes in parameters[parameter.name] = bytes }
        return LoadedEngine(
            plans: programs.map(\.emitted.plan), parameters: parameters,
            description: try describe(source, programs), path: nil, text: source.text)
    }

    /// Builds an engine file: streamed, atomic, the same bytes for the same input.
    ///
    /// - Throws: `MartletError`; nothing stays at the path then.
    package func build(to path: String, _ source: EngineSource) throws {
        let programs = try programs()
        let writer = try EngineFileWriter(path: path)
        do {
            for program in programs { try writer.addPlan(program.emitted.plan) }
            for program in programs {
                try writer.addSection(
                    SectionKey(.graph, entryPoint: program.graph.name), isRequired: false,
                    ByteView(Array(program.graph.text.utf8)))
            }
            try source.text.write(to: writer)
            try writer.beginSection(SectionKey(.weights, target: EngineTarget(catalog.target)))
            try pack(programs) { try writer.writeParameter($0, $1) }
            writer.endSection()
            try writer.finish(try describe(source, programs))
        } catch {
            writer.cancel()
            throw error
        }
    }

    private func describe(
        _ source: EngineSource, _ programs: [Program]
    ) throws -> EngineDescription {
        let summary = architecture.summary
        let requests = Set(programs.flatMap(\.emitted.parameters))
        return EngineDescription(
            builderVersion: Self.version, modelName: source.name,
            architecture: summary.architecture,
            sizes: EngineSizes(
                hiddenSize: summary.hiddenSize, intermediateSize: summary.intermediateSize,
                layerCount: summary.layerCount, headCount: summary.headCount,
                kvHeadCount: summary.kvHeadCount, headDim: summary.headDim,
                vocabularySize: summary.vocabularySize, maxContext: summary.maxContext,
                parameterCount: requests.filter { $0.expression != nil }
                    .reduce(0) { $0 + $1.shape.reduce(1, *) }),
            precision: EnginePrecision(
                dtype: options.dtype.rawValue, weights: Self.formats(requests),
                activations: try recipe().activations?.rawValue ?? "exact",
                kvDType: options.kvType.rawValue), sources: source.fingerprints,
            options: options.disabledRules.isEmpty
                ? [:] : ["disabledRules": options.disabledRules.sorted().joined(separator: ",")])
    }

    /// The formats of matrices, most bytes first, such as `int4.g32.min.f16, int8.g32.f16`.
    private static func formats(_ requests: Set<ParameterRequest>) -> String {
        var counts: [String: Int] = [:]
        for request in requests where request.shape.count == 2 {
            counts[request.format.description, default: 0] += request.shape.reduce(1, *)
        }
        return counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map(\.key)
            .joined(separator: ", ")
    }
}

/// What an engine is built from, besides architecture and weights.
package struct EngineSource: Sendable {
    let name: String
    let text: TextDescription
    let fingerprints: [SourceFingerprint]

    init(_ source: ModelSource) throws {
        name = source.displayName
        text = try TextDescription(source)
        fingerprints = try source.files.map { file in
            let bytes = try MappedFile.map(file)
            let head = bytes.slice(0, count: min(bytes.count, 1 << 20)) ?? ByteView()
            let crc = head.withUnsafeBytes { CRC32C.checksum($0) }
            return SourceFingerprint(
                name: FileStatus.name(file), byteCount: bytes.count,
                hash: "crc32c-head:" + String(crc, radix: 16))
        }
    }

    /// A model without files: defined in code.
    init(name: String) {
        self.name = name
        text = TextDescription()
        fingerprints = []
    }
}
