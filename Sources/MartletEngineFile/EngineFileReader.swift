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
    private let parametersByName: [String: [Int]]

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
        try Self.check(table, header.checksumCRC, "checksum table")
        try Self.check(json, header.manifestCRC, "manifest")
        let manifest = try EngineJSON.decode(EngineManifest.self, from: json, part: "manifest")
        try manifest.validate(bodyEnd: header.checksumOffset)
        let checksums = table.array(of: UInt32.self).map { UInt32(littleEndian: $0) }
        if let chunk = firstDamagedChunk(of: body, checksums, threadCount: threadCount) {
            let start = EngineHeader.pageSize + chunk * EngineHeader.chunkSize
            let section = manifest.sections.last { $0.offset < start + EngineHeader.chunkSize }
            throw MartletError(
                .corrupt,
                "engine is damaged in the MiB at \(start)"
                    + (section.map { " (\($0.key))" } ?? ""),
                mend: EngineHeader.rebuild)
        }
        self.bytes = bytes
        self.path = path
        self.manifest = manifest
        identity = contentIdentity([table, json])
        parametersByName = Dictionary(
            manifest.parameters.enumerated().map { ($1.name, [$0]) }, uniquingKeysWith: +)
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

    /// A parameter and its bytes, the one made most closely for the device.
    package func parameter(
        _ name: String, for device: EngineTarget
    ) -> (entry: EngineParameter, bytes: ByteView)? {
        let best = (parametersByName[name] ?? [])
            .map { manifest.parameters[$0] }
            .filter { manifest.sections[$0.section].key.target.serves(device) }
            .max {
                manifest.sections[$0.section].key.target.specificity
                    < manifest.sections[$1.section].key.target.specificity
            }
        guard let entry = best,
            let bytes = view(manifest.sections[entry.section])?
                .slice(entry.offset, count: entry.byteCount)
        else { return nil }
        return (entry, bytes)
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
                mend: "Run with --retarget auto, or build the engine again on this machine",
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
            guard let (entry, bytes) = parameter(wanted.name, for: device) else {
                throw MartletError(
                    .corrupt, "engine lacks parameter '\(wanted.name)' for \(device.name)",
                    mend: EngineHeader.rebuild, context: ["file": path, "tensor": wanted.name])
            }
            guard entry.layout == wanted.layout, entry.format == wanted.format,
                entry.shape == wanted.shape
            else {
                throw MartletError(
                    .shapeMismatch,
                    "engine parameter '\(wanted.name)' is \(entry.format) "
                        + "\(entry.shape) in \(entry.layout), its plan wants \(wanted.format) "
                        + "\(wanted.shape) in \(wanted.layout)",
                    mend: EngineHeader.rebuild, context: ["file": path, "tensor": wanted.name])
            }
            return bytes
        }
    }
}
