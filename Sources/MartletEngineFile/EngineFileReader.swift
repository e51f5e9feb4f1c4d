// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// An engine file in memory: mapped, checked, and read in place.
///
/// Views keep the mapping alive. The file must not be changed while mapped; writers replace engines
/// by renaming, which leaves an open mapping as it was.
package struct EngineFileReader: Sendable {
    /// Where it was opened; empty for bytes in memory.
    package let path: String
    /// What it holds.
    package let manifest: EngineManifest
    /// 32 hexadecimal digits that differ between engines of different content.
    ///
    /// Made of all checksums and the manifest. Not cryptographic: it guards against mix-ups, not
    /// against an attacker.
    package let identity: String
    /// Length of the file in bytes.
    package var byteCount: Int { bytes.count }

    private let bytes: ByteView
    private let entriesByName: [String: [Int]]

    /// Maps an engine, checks its structure, and verifies every checksum.
    ///
    /// - Parameters:
    ///   - path: An engine file.
    ///   - threadCount: Threads that verify; nil for one per processor.
    /// - Returns: The engine, every byte verified.
    /// - Throws: `MartletError` `.notFound`, `.io`, `.corrupt`, `.unsupported` or `.limitExceeded`,
    ///   each naming the file.
    package static func open(_ path: String, threadCount: Int? = nil) throws -> EngineFileReader {
        do {
            return try EngineFileReader(
                MappedFile.map(path), path: path, threadCount: threadCount)
        } catch let error as MartletError {
            throw error.adding("file", path)
        }
    }

    /// Reads an engine from memory; checks as `open` does.
    ///
    /// - Parameters:
    ///   - bytes: The whole file.
    ///   - path: Name used by messages.
    ///   - threadCount: Threads that verify; nil for one per processor.
    /// - Throws: `MartletError` as `open`.
    package init(_ bytes: ByteView, path: String = "", threadCount: Int? = nil) throws {
        let parts = try Self.parts(of: bytes)
        let checksums = parts.table.array(of: UInt32.self).map { UInt32(littleEndian: $0) }
        if let chunk = firstDamagedChunk(of: parts.body, checksums, threadCount: threadCount) {
            let start = EngineHeader.pageSize + chunk * EngineHeader.chunkSize
            let section = parts.manifest.sections.last {
                $0.offset < start + EngineHeader.chunkSize
            }
            throw MartletError(
                .corrupt,
                "engine is damaged in the MiB at \(start)"
                    + (section.map { " (\($0.key))" } ?? ""),
                mend: EngineHeader.rebuild)
        }
        self.bytes = bytes
        self.path = path
        manifest = parts.manifest
        identity = contentIdentity([parts.table, parts.json])
        entriesByName = Dictionary(
            manifest.parameters.enumerated().map { ($1.name, [$0]) }, uniquingKeysWith: +)
    }

    /// What an engine says of itself; its structure is checked, its content neither read nor verified.
    ///
    /// - Throws: `MartletError` as `open`.
    package static func manifest(at path: String) throws -> EngineManifest {
        do {
            return try parts(of: MappedFile.map(path)).manifest
        } catch let error as MartletError {
            throw error.adding("file", path)
        }
    }

    /// Parts of an engine file, their structure checked.
    private static func parts(of bytes: ByteView) throws -> (
        manifest: EngineManifest, table: ByteView, json: ByteView, body: ByteView
    ) {
        let header = try bytes.withUnsafeBytes { try EngineHeader($0) }
        guard
            let padding = bytes.slice(
                EngineHeader.byteCount, count: EngineHeader.pageSize - EngineHeader.byteCount),
            padding.withUnsafeBytes({ $0.allSatisfy { $0 == 0 } })
        else {
            throw MartletError(
                .corrupt, "engine header page is damaged", mend: EngineHeader.rebuild)
        }
        guard
            let table = bytes.slice(
                header.checksumOffset, count: header.manifestOffset - header.checksumOffset),
            let json = bytes.slice(header.manifestOffset, count: header.manifestByteCount),
            let body = bytes.slice(EngineHeader.pageSize, count: header.bodyByteCount)
        else { throw MartletError(.corrupt, "engine header describes parts outside the file") }
        try check(table, header.checksumCRC, "checksum table")
        try check(json, header.manifestCRC, "manifest")
        let manifest = try EngineJSON.decode(EngineManifest.self, from: json, part: "manifest")
        try manifest.validate(bodyEnd: header.checksumOffset)
        return (manifest, table, json, body)
    }

    private static func check(_ part: ByteView, _ expected: UInt32, _ name: String) throws {
        let crc = part.withUnsafeBytes { CRC32C.checksum($0) }
        guard crc == expected else {
            throw MartletError(
                .corrupt,
                "engine \(name) is damaged (checksum \(hex(expected)), computed \(hex(crc)))",
                mend: EngineHeader.rebuild)
        }
    }

    /// The bytes of a section, the one made most closely for the device.
    ///
    /// - Returns: Nil if no such section serves the device.
    package func section(
        _ kind: SectionKind, name: String = "", entryPoint: String = "",
        for device: EngineTarget = .any
    ) -> ByteView? {
        let candidates = manifest.sections.filter { section in
            section.key.kind == kind && section.key.name == name
                && section.key.entryPoint == entryPoint && section.key.target.serves(device)
        }
        return candidates.max { $0.key.target.specificity < $1.key.target.specificity }
            .flatMap(view)
    }

    /// The bytes of a section of the table; nil if the entry is not of this file.
    package func view(_ section: EngineSection) -> ByteView? {
        bytes.slice(section.offset, count: section.byteCount)
    }

    /// The text of a section, such as the graph or the chat template.
    ///
    /// - Throws: `MartletError` `.corrupt` if it is not UTF-8.
    package func text(
        _ kind: SectionKind, name: String = "", entryPoint: String = ""
    ) throws -> String? {
        guard let view = section(kind, name: name, entryPoint: entryPoint) else { return nil }
        guard let text = view.withUnsafeBytes({ String(validating: $0, as: UTF8.self) }) else {
            throw MartletError(
                .corrupt, "engine section \(kind.rawValue) is not UTF-8", context: ["file": path])
        }
        return text
    }

    /// The bytes of a parameter, the ones stored most closely for the device.
    ///
    /// - Returns: Nil if the engine does not hold this weight in this layout, format and shape for it.
    package func parameter(_ wanted: PlanParameter, for device: EngineTarget) -> ByteView? {
        entries(named: wanted.name)
            .filter { $0.identity == wanted && target(of: $0).serves(device) }
            .max { target(of: $0).specificity < target(of: $1).specificity }
            .flatMap(bytes(of:))
    }

    /// All forms in which the engine holds a weight, for whatever target, in file order.
    package func entries(named name: String) -> [EngineParameter] {
        (entriesByName[name] ?? []).map { manifest.parameters[$0] }
    }

    /// The target that a parameter of the table was packed for.
    package func target(of entry: EngineParameter) -> EngineTarget {
        manifest.sections[entry.section].key.target
    }

    /// The bytes of a parameter of the table.
    package func bytes(of entry: EngineParameter) -> ByteView? {
        view(manifest.sections[entry.section])?.slice(entry.offset, count: entry.byteCount)
    }

    /// Values of the constants that the engine's graphs name.
    ///
    /// - Throws: `MartletError` `.corrupt` for one that is not stored as plain rows.
    package func constants() throws -> [String: TensorData] {
        var constants: [String: TensorData] = [:]
        for entry in manifest.parameters
        where manifest.sections[entry.section].key == SectionKey(.constants) {
            guard entry.layout == PlanParameter.rowMajor, let type = DType(rawValue: entry.format),
                let bytes = bytes(of: entry)
            else {
                throw MartletError(
                    .corrupt, "engine constant \(entry.identity) is not stored as rows",
                    mend: EngineHeader.rebuild)
            }
            constants[entry.name] = try TensorData(dtype: type, shape: entry.shape, bytes: bytes)
        }
        return constants
    }

    /// Whether the engine has plans of all its entry points for a device.
    package func serves(_ device: EngineTarget) -> Bool {
        manifest.entryPoints.allSatisfy { section(.plan, entryPoint: $0, for: device) != nil }
    }

    /// The plan of an entry point, with every index checked and every parameter present.
    ///
    /// - Throws: `MartletError` `.unsupported` if the engine has none for the device, `.notFound` for
    ///   an unknown entry point, `.corrupt` or `.shapeMismatch` if the plan does not fit the engine.
    package func plan(entryPoint: String, for device: EngineTarget) throws -> Plan {
        guard manifest.entryPoints.contains(entryPoint) else {
            throw MartletError(
                .notFound,
                "engine has no entry point '\(entryPoint)', only "
                    + manifest.entryPoints.joined(separator: ", "),
                context: ["file": path])
        }
        guard let view = section(.plan, entryPoint: entryPoint, for: device) else {
            throw MartletError(
                .unsupported,
                "engine was built for \(manifest.targets.joined(separator: ", ")), "
                    + "not for \(device.name)",
                mend: "Allow --retarget auto, or write an engine for it: martlet build \(path) "
                    + "--target \(device.name) --output NEW.martlet",
                context: ["file": path])
        }
        let plan = try EngineJSON.decode(Plan.self, from: view, part: "plan '\(entryPoint)'")
        try plan.validate()
        _ = try parameters(of: plan, for: device)
        return plan
    }

    /// The bytes of a plan's parameters, in the plan's order.
    ///
    /// - Throws: `MartletError` `.corrupt` for one that is missing, `.shapeMismatch` for one whose
    ///   layout, format or shape is not the plan's.
    package func parameters(of plan: Plan, for device: EngineTarget) throws -> [ByteView] {
        try plan.parameters.map { wanted in
            if let bytes = parameter(wanted, for: device) { return bytes }
            let others = entries(named: wanted.name).filter { target(of: $0).serves(device) }
            guard let found = others.first?.identity else {
                throw MartletError(
                    .corrupt, "engine lacks parameter '\(wanted.name)' for \(device.name)",
                    mend: EngineHeader.rebuild, context: ["file": path, "tensor": wanted.name])
            }
            throw MartletError(
                .shapeMismatch, "engine has parameter \(found), its plan wants \(wanted)",
                mend: EngineHeader.rebuild, context: ["file": path, "tensor": wanted.name])
        }
    }
}
