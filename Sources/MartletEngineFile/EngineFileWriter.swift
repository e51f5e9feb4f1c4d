// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Writes an engine file section by section, in one pass, with little memory.
///
/// Nothing appears at the path before `finish` has brought the whole file to disk; a writer that is
/// released earlier, or that throws, leaves nothing behind. Equal calls write equal bytes.
/// Not thread-safe: one owner at a time.
package final class EngineFileWriter {
    /// Alignment of weight sections by default, in bytes: a huge page.
    package static let weightAlignment = 2 << 20
    /// Alignment of every other section, in bytes.
    package static let sectionAlignment = EngineHeader.pageSize
    /// Alignment of parameters in their section, in bytes: a cache line.
    package static let parameterAlignment = 64

    private let file: PartialFile
    private let onProgress: (Int) -> Void
    private var position = EngineHeader.pageSize
    private var checksums: [UInt32] = []
    private var chunkCRC: UInt32 = 0
    private var sections: [EngineSection] = []
    private var parameters: [EngineParameter] = []
    private var plans: [Plan] = []
    private var isSectionOpen = false
    private var isFinished = false

    /// Starts an engine file.
    ///
    /// - Parameters:
    ///   - path: Final place; an engine there is replaced at the end.
    ///   - onProgress: Called after each MiB or so with the bytes written up to then.
    /// - Throws: `MartletError` `.io` if the folder cannot be written.
    package init(path: String, onProgress: @escaping (Int) -> Void = { _ in }) throws {
        file = try PartialFile(for: path)
        self.onProgress = onProgress
    }

    /// Removes what writers that died left in a folder.
    package static func removeLeftovers(in folder: String) {
        PartialFile.sweep(folder: folder) { _ in true }
    }

    /// Bytes written up to now.
    package var byteCount: Int { position }

    /// Starts a section; the bytes follow through `write` or `writeParameter`.
    ///
    /// - Parameters:
    ///   - key: What it is; no two sections share a key.
    ///   - isRequired: Whether programs that do not know the kind must refuse the engine.
    ///   - alignment: Power of two from 4096 up; by default 2 MiB for weights, else 4096.
    /// - Throws: `MartletError` `.internalError` on a wrong call, `.io` if writing fails.
    package func beginSection(
        _ key: SectionKey, isRequired: Bool = true, alignment: Int? = nil
    ) throws {
        let alignment =
            alignment ?? (key.kind == .weights ? Self.weightAlignment : Self.sectionAlignment)
        guard !isSectionOpen, !isFinished else {
            throw MartletError(.internalError, "section \(key) starts before the last one ended")
        }
        guard alignment >= Self.sectionAlignment, alignment & (alignment - 1) == 0 else {
            throw MartletError(
                .internalError, "alignment \(alignment) is no power of two from 4096 up")
        }
        guard !sections.contains(where: { $0.key == key }) else {
            throw MartletError(.internalError, "two sections \(key)")
        }
        try pad(to: alignment)
        sections.append(
            EngineSection(
                key: key, isRequired: isRequired, offset: position, byteCount: 0,
                alignment: alignment))
        isSectionOpen = true
    }

    /// Adds bytes to the open section.
    ///
    /// - Throws: `MartletError` `.internalError` without an open section, `.io` if writing fails.
    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        guard isSectionOpen else {
            throw MartletError(.internalError, "engine bytes written outside a section")
        }
        try append(bytes)
    }

    /// Adds bytes to the open section.
    ///
    /// - Throws: `MartletError` `.internalError` without an open section, `.io` if writing fails.
    package func write(_ bytes: ByteView) throws { try bytes.withUnsafeBytes { try write($0) } }

    /// Adds a parameter to the open section, at the next multiple of 64 bytes.
    ///
    /// - Parameters:
    ///   - parameter: Its name, layout, format and shape, as plans state them.
    ///   - bytes: Its values in that layout.
    /// - Throws: `MartletError` `.internalError` without an open section, `.io` if writing fails.
    package func writeParameter(_ parameter: PlanParameter, _ bytes: ByteView) throws {
        try writeParameter(parameter) { try $0(bytes) }
    }

    /// Adds a parameter that comes in pieces to the open section, at the next multiple of 64 bytes.
    ///
    /// - Parameters:
    ///   - parameter: Its name, layout, format and shape, as plans state them.
    ///   - pieces: Calls its argument with the pieces of the values, in order.
    /// - Throws: As the other form, and what the closure throws.
    package func writeParameter(
        _ parameter: PlanParameter, pieces: ((ByteView) throws -> Void) throws -> Void
    ) throws {
        guard isSectionOpen, let section = sections.last else {
            throw MartletError(.internalError, "parameter \(parameter.name) outside a section")
        }
        try pad(to: Self.parameterAlignment)
        let start = position
        try pieces { try self.write($0) }
        parameters.append(
            EngineParameter(
                name: parameter.name, section: sections.count - 1,
                offset: start - section.offset, byteCount: position - start,
                layout: parameter.layout, format: parameter.format, shape: parameter.shape))
    }

    /// Ends the open section.
    package func endSection() {
        guard isSectionOpen, !sections.isEmpty else { return }
        sections[sections.count - 1].byteCount = position - sections[sections.count - 1].offset
        isSectionOpen = false
    }

    /// Writes a whole section.
    ///
    /// - Throws: As `beginSection` and `write`.
    package func addSection(
        _ key: SectionKey, isRequired: Bool = true, alignment: Int? = nil, _ bytes: ByteView
    ) throws {
        try beginSection(key, isRequired: isRequired, alignment: alignment)
        try write(bytes)
        endSection()
    }

    /// Writes a plan as a section of its target and entry point.
    ///
    /// - Parameters:
    ///   - plan: What it computes, and on which device.
    ///   - target: The device in more words; nil for any of the plan's.
    /// - Throws: `MartletError` as `Plan.validate` and `addSection`.
    package func addPlan(_ plan: Plan, for target: EngineTarget? = nil) throws {
        try plan.validate()
        let target = target ?? EngineTarget(plan.target)
        guard target.name == plan.target else {
            throw MartletError(
                .internalError, "a plan for '\(plan.target)' is stored for '\(target.name)'")
        }
        try addSection(
            SectionKey(.plan, target: target, entryPoint: plan.entryPoint),
            try EngineJSON.encode(plan))
        plans.append(plan)
    }

    /// Writes the tables and the header, syncs, and gives the file its name.
    ///
    /// - Parameter description: What the engine is.
    /// - Returns: The manifest as written.
    /// - Throws: `MartletError` `.io` if writing fails; the path is then as it was.
    @discardableResult
    package func finish(_ description: EngineDescription) throws -> EngineManifest {
        guard !isSectionOpen, !isFinished else {
            throw MartletError(.internalError, "engine finished inside a section or twice")
        }
        isFinished = true
        do { return try writeTables(description) } catch {
            file.discard()
            throw error
        }
    }

    private func writeTables(_ description: EngineDescription) throws -> EngineManifest {
        let manifest = EngineManifest(
            description: description, targets: Set(plans.map(\.target)).sorted(),
            entryPoints: EngineManifest.entryPoints(of: sections), sections: sections,
            parameters: parameters)
        try manifest.validate(bodyEnd: position)
        if (position - EngineHeader.pageSize) % EngineHeader.chunkSize != 0 {
            checksums.append(chunkCRC)
        }
        let table = ByteView(checksums.map(\.littleEndian))
        let json = try EngineJSON.encode(manifest)
        guard json.count <= EngineHeader.manifestLimit else {
            throw MartletError(
                .limitExceeded,
                "engine manifest of \(json.count) bytes exceeds \(EngineHeader.manifestLimit)")
        }
        let header = EngineHeader(
            checksumOffset: position, manifestOffset: position + table.count,
            manifestByteCount: json.count,
            checksumCRC: table.withUnsafeBytes { CRC32C.checksum($0) },
            manifestCRC: json.withUnsafeBytes { CRC32C.checksum($0) })
        try table.withUnsafeBytes { try file.write($0, at: header.checksumOffset) }
        try json.withUnsafeBytes { try file.write($0, at: header.manifestOffset) }
        let page =
            header.encoded
            + [UInt8](repeating: 0, count: EngineHeader.pageSize - EngineHeader.byteCount)
        try page.withUnsafeBytes { try file.write($0, at: 0) }
        try file.commit()
        onProgress(header.fileByteCount)
        return manifest
    }

    /// Gives up and removes what was written.
    package func cancel() {
        isFinished = true
        isSectionOpen = false
        file.discard()
    }

    private func pad(to alignment: Int) throws {
        let rest = position % alignment
        guard rest != 0 else { return }
        let zeros = ByteView(count: min(alignment - rest, 1 << 16)) { _ in }
        var missing = alignment - rest
        while missing > 0 {
            let step = min(missing, zeros.count)
            try zeros.withUnsafeBytes {
                try append(UnsafeRawBufferPointer(rebasing: $0[..<step]))
            }
            missing -= step
        }
    }

    /// Writes body bytes chunk by chunk, each checked while it is in the cache.
    private func append(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while !rest.isEmpty {
            let filled = (position - EngineHeader.pageSize) % EngineHeader.chunkSize
            let step = min(rest.count, EngineHeader.chunkSize - filled)
            let part = UnsafeRawBufferPointer(rebasing: rest[..<step])
            do { try file.write(part, at: position) } catch {
                cancel()
                throw error
            }
            chunkCRC = CRC32C.checksum(part, seed: chunkCRC)
            position += step
            if filled + step == EngineHeader.chunkSize {
                checksums.append(chunkCRC)
                chunkCRC = 0
                onProgress(position)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[step...])
        }
    }
}
