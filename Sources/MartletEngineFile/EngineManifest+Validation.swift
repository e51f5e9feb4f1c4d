// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension EngineManifest {
    /// Most sections of an engine.
    static let sectionLimit = 1 << 16
    /// Most parameters of an engine.
    static let parameterLimit = 1 << 20
    /// Largest size of a model that is believed.
    static let sizeLimit = 1 << 48

    /// Checks that every part lies where parts may lie.
    ///
    /// - Parameter bodyEnd: Where the body of the file ends, in bytes.
    /// - Throws: `MartletError` `.corrupt` naming the part, `.unsupported` for a required section of
    ///   an unknown kind.
    func validate(bodyEnd: Int) throws {
        guard sections.count <= Self.sectionLimit, parameters.count <= Self.parameterLimit else {
            throw MartletError(
                .limitExceeded,
                "engine lists \(sections.count) sections and \(parameters.count) "
                    + "parameters; the limits are \(Self.sectionLimit) and \(Self.parameterLimit)")
        }
        try validateSections(bodyEnd: bodyEnd)
        try validateParameters()
        let plans = sections.lazy.map(\.key).filter { $0.kind == .plan }
        guard targets == Set(plans.map(\.target.name)).sorted(),
            entryPoints == Self.entryPoints(of: sections)
        else {
            throw MartletError(
                .corrupt, "engine lists other targets or entry points than its plans")
        }
        let sizes = description.sizes
        for size in [
            sizes.hiddenSize, sizes.intermediateSize, sizes.layerCount, sizes.headCount,
            sizes.kvHeadCount, sizes.headDim, sizes.vocabularySize, sizes.maxContext,
            sizes.parameterCount,
        ] where size < 0 || size > Self.sizeLimit {
            throw MartletError(.corrupt, "engine states a model size of \(size)")
        }
    }

    private func validateSections(bodyEnd: Int) throws {
        var keys: Set<SectionKey> = []
        for section in sections {
            let key = section.key
            guard keys.insert(key).inserted else {
                throw MartletError(.corrupt, "engine has two sections \(key)")
            }
            guard key.target.smCount >= 0, key.target.rank >= 0 else {
                throw MartletError(
                    .corrupt, "engine section \(key) has a negative SM count or rank")
            }
            guard !section.isRequired || SectionKind.known.contains(key.kind) else {
                throw MartletError(
                    .unsupported,
                    "engine needs sections of kind '\(key.kind.rawValue)', which this "
                        + "program does not know",
                    mend: "Use a newer version of martlet, or build the engine again")
            }
            let alignment = section.alignment
            guard alignment >= EngineHeader.pageSize, alignment & (alignment - 1) == 0,
                section.offset % alignment == 0
            else {
                throw MartletError(
                    .corrupt,
                    "engine section \(key) at \(section.offset) is not aligned to "
                        + "\(alignment)")
            }
            guard section.offset >= EngineHeader.pageSize,
                isInside(section.offset, section.byteCount, limit: bodyEnd)
            else {
                throw MartletError(
                    .corrupt,
                    "engine section \(key) at \(section.offset) of \(section.byteCount) "
                        + "bytes leaves the body, which ends at \(bodyEnd)")
            }
        }
        let sorted = sections.filter { $0.byteCount > 0 }.sorted { $0.offset < $1.offset }
        for (first, second) in zip(sorted, sorted.dropFirst())
        where first.offset + first.byteCount > second.offset {
            throw MartletError(
                .corrupt,
                "engine sections \(first.key) and \(second.key) overlap at "
                    + "\(second.offset)")
        }
    }

    private func validateParameters() throws {
        var seen: [EngineTarget: Set<PlanParameter>] = [:]
        for parameter in parameters {
            guard sections.indices.contains(parameter.section) else {
                throw MartletError(
                    .corrupt,
                    "engine parameter \(parameter.name) is in section \(parameter.section) "
                        + "of \(sections.count)")
            }
            let section = sections[parameter.section]
            let identity = parameter.identity
            guard seen[section.key.target, default: []].insert(identity).inserted else {
                throw MartletError(.corrupt, "engine has two parameters \(identity)")
            }
            guard parameter.offset % EngineFileWriter.parameterAlignment == 0,
                isInside(parameter.offset, parameter.byteCount, limit: section.byteCount)
            else {
                throw MartletError(
                    .corrupt,
                    "engine parameter \(parameter.name) at \(parameter.offset) of "
                        + "\(parameter.byteCount) bytes does not lie in its section of "
                        + "\(section.byteCount)")
            }
            guard parameter.shape.count <= 8, TensorData.elementCount(parameter.shape) != nil else {
                throw MartletError(
                    .corrupt, "engine parameter \(parameter.name) has shape \(parameter.shape)")
            }
        }
        let sorted = parameters.filter { $0.byteCount > 0 }
            .sorted { ($0.section, $0.offset) < ($1.section, $1.offset) }
        for (first, second) in zip(sorted, sorted.dropFirst())
        where first.section == second.section && first.offset + first.byteCount > second.offset {
            throw MartletError(
                .corrupt, "engine parameters \(first.name) and \(second.name) overlap")
        }
    }
}

/// Whether `start ..< start + count` lies in `0 ..< limit`, whatever the numbers.
func isInside(_ start: Int, _ count: Int, limit: Int) -> Bool {
    start >= 0 && count >= 0 && start <= limit && count <= limit - start
}
