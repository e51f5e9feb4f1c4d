// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What a section holds; an open set, so that older programs can skip what they do not know.
package struct SectionKind: RawRepresentable, Sendable, Hashable, Codable {
    /// Name in the file.
    package var rawValue: String

    /// Names a kind.
    package init(rawValue: String) { self.rawValue = rawValue }

    /// A `Plan`, as JSON.
    package static let plan = SectionKind(rawValue: "plan")
    /// Weights in the layouts that a plan's kernels want.
    package static let weights = SectionKind(rawValue: "weights")
    /// The optimized device-neutral graph, as text.
    package static let graph = SectionKind(rawValue: "graph")
    /// Values known at build time, such as rotary frequencies.
    package static let constants = SectionKind(rawValue: "constants")
    /// The tokenizer; the engine file does not look inside.
    package static let tokenizer = SectionKind(rawValue: "tokenizer")
    /// The chat template, as text.
    package static let chatTemplate = SectionKind(rawValue: "chatTemplate")
    /// Default sampling options, as JSON.
    package static let generationDefaults = SectionKind(rawValue: "generationDefaults")
    /// Kernels built for one device.
    package static let deviceCode = SectionKind(rawValue: "deviceCode")

    /// Every kind this version reads.
    package static let known: Set<SectionKind> = [
        .plan, .weights, .graph, .constants, .tokenizer, .chatTemplate, .generationDefaults,
        .deviceCode,
    ]
}

/// The device that a section was made for, or that an engine is opened for.
package struct EngineTarget: Sendable, Hashable, Codable {
    /// Device, such as `cpu-avx512vnni` or `cuda-sm_90`; empty for any.
    package var name: String
    /// Streaming multiprocessors the layouts were chosen for; 0 for any count.
    package var smCount: Int
    /// Rank among the devices that share the model.
    package var rank: Int

    /// Names a device.
    package init(_ name: String, smCount: Int = 0, rank: Int = 0) {
        self.name = name
        self.smCount = smCount
        self.rank = rank
    }

    /// Any device.
    package static let any = EngineTarget("")

    /// Whether a section made for this target serves the device.
    package func serves(_ device: EngineTarget) -> Bool {
        name.isEmpty
            || (name == device.name && rank == device.rank
                && (smCount == 0 || smCount == device.smCount))
    }

    /// Order of preference among the targets that serve a device; the highest wins.
    var specificity: Int { (name.isEmpty ? 0 : 2) + (smCount == 0 ? 0 : 1) }
}

/// What tells one section of an engine from another.
package struct SectionKey: Sendable, Hashable, Codable {
    /// Device it is for.
    package var target: EngineTarget
    /// Entry point it belongs to; empty if shared by all.
    package var entryPoint: String
    /// What it holds.
    package var kind: SectionKind
    /// Name among sections of its kind; may be empty.
    package var name: String

    /// Describes a section; see the properties.
    package init(
        _ kind: SectionKind, target: EngineTarget = .any, entryPoint: String = "", name: String = ""
    ) {
        self.kind = kind
        self.target = target
        self.entryPoint = entryPoint
        self.name = name
    }
}

extension SectionKey: CustomStringConvertible {
    /// Form used in messages, such as `weights for cpu`.
    package var description: String {
        var text = kind.rawValue
        if !name.isEmpty { text += " '\(name)'" }
        if !entryPoint.isEmpty { text += " of \(entryPoint)" }
        if !target.name.isEmpty { text += " for \(target.name)" }
        if target.smCount != 0 { text += " with \(target.smCount) SMs" }
        if target.rank != 0 { text += " rank \(target.rank)" }
        return text
    }
}

/// An entry of the section table.
package struct EngineSection: Sendable, Hashable, Codable {
    /// What it is.
    package var key: SectionKey
    /// Whether a program that does not know the kind must refuse the engine.
    package var isRequired: Bool
    /// Where it starts in the file, in bytes.
    package var offset: Int
    /// Length in bytes.
    package var byteCount: Int
    /// Power of two that divides the offset.
    package var alignment: Int
}

/// An entry of the parameter table: where a weight or constant lies, and in which form.
package struct EngineParameter: Sendable, Hashable, Codable {
    /// Name, as in `PlanParameter`.
    package var name: String
    /// Index of its section in the section table.
    package var section: Int
    /// Where it starts in the section, in bytes; a multiple of 64.
    package var offset: Int
    /// Length in bytes.
    package var byteCount: Int
    /// Layout with its parameters, as in `PlanParameter`.
    package var layout: String
    /// Format of the values, as in `PlanParameter`.
    package var format: String
    /// Logical sizes.
    package var shape: [Int]

    /// What plans call it; unique among the parameters of one target.
    package var identity: PlanParameter {
        PlanParameter(name: name, layout: layout, format: format, shape: shape)
    }
}
