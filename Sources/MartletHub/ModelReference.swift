// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A model as users name it: a path, `owner/name[:file-or-quantization]` or an alias.
public enum ModelReference: Sendable, Hashable, CustomStringConvertible {
    /// Which file of a repository is meant.
    public enum Selector: Sendable, Hashable {
        /// A file by its path in the repository.
        case file(String)
        /// The GGUF file with this quantization in its name, such as `Q4_1`.
        case quantization(String)
    }

    /// A file or folder on this machine.
    case path(String)
    /// A repository on a hub; without a selector the files that the model needs.
    case repository(HubRepository, Selector?)
    /// A short name of the alias table.
    case alias(ModelAlias)

    /// The reference as a user would type it.
    public var description: String {
        switch self {
        case .path(let path): return path
        case .alias(let alias): return alias.name
        case .repository(let repository, nil): return repository.description
        case .repository(let repository, .file(let name)),
            .repository(let repository, .quantization(let name)):
            return "\(repository):\(name)"
        }
    }
}

extension ModelReference {
    /// Endings that mark a model file.
    package static let fileEndings = [".gguf", ".safetensors", ".martlet"]

    /// Reads a reference.
    ///
    /// In this order: a scheme (`modelscope:`, `hf:`, `hf.co/`); a path that is written as one (`/`, `./`,
    /// `../`, `~/`) or that exists; an alias; `owner/name[@revision][:file-or-quantization]`; a name
    /// that ends like a model file.
    ///
    /// - Parameters:
    ///   - text: What the user typed.
    ///   - aliases: Known short names.
    ///   - home: The user's folder, for `~/`.
    /// - Throws: `MartletError` `.invalidArgument` for a malformed reference, `.notFound` for an
    ///   unknown alias, with the nearest one.
    public init(
        _ text: String, aliases: [ModelAlias] = ModelAlias.builtIn, home: String? = nil
    ) throws {
        guard !text.isEmpty, text.utf8.count <= 4096, !text.utf8.contains(0) else {
            throw MartletError(
                .invalidArgument,
                "a model name has 1 to 4096 bytes and no zero byte, this one has \(text.utf8.count)"
            )
        }
        for (scheme, site) in Self.schemes {
            if let rest = text.droppingPrefix(scheme) {
                self = try Self.repository(rest, site, whole: text)
                return
            }
        }
        if let rest = text.droppingPrefix("~/"), let home {
            self = .path("\(home)/\(rest)")
            return
        }
        let looksLikePath =
            text == "." || text == ".."
            || ["/", "./", "../", "~"].contains { text.hasPrefix($0) }
        if looksLikePath || Disk.entry(text) != nil {
            self = .path(text)
            return
        }
        if let alias = aliases.first(where: { $0.name == text.lowercased() }) {
            self = .alias(alias)
            return
        }
        let base = text.prefix { $0 != ":" && $0 != "@" }
        let endsLikeFile = Self.fileEndings.contains { text.lowercased().hasSuffix($0) }
        if endsLikeFile, base.count == text.count {
            self = .path(text)
            return
        }
        if text.contains("/") {
            self = try Self.repository(text, .huggingFace, whole: text)
            return
        }
        throw Self.unknown(text, aliases)
    }

    private static let schemes: [(prefix: String, site: HubSite)] = [
        ("modelscope:", .modelScope), ("https://modelscope.cn/models/", .modelScope),
        ("https://www.modelscope.cn/models/", .modelScope), ("hf:", .huggingFace),
        ("https://huggingface.co/", .huggingFace), ("https://hf.co/", .huggingFace),
        ("huggingface.co/", .huggingFace), ("hf.co/", .huggingFace),
    ]

    private static func repository(
        _ text: String, _ site: HubSite, whole: String
    ) throws -> ModelReference {
        let head = text.prefix { $0 != ":" }
        let name = head.prefix { $0 != "@" }
        let revision = name.count == head.count ? nil : String(head.dropFirst(name.count + 1))
        let repository = HubRepository(String(name), site: site, revision: revision)
        let tail = head.count == text.count ? nil : String(text.dropFirst(head.count + 1))
        do { try HubFile(repository, tail ?? "all").check() } catch { throw malformed(whole) }
        guard let tail else { return .repository(repository, nil) }
        let isFile = tail.contains("/") || tail.contains(".")
        return .repository(repository, isFile ? .file(tail) : .quantization(tail))
    }

    private static func malformed(_ text: String) -> MartletError {
        MartletError(
            .invalidArgument, "'\(text)' is no model name",
            mend: "Write a path, owner/name, owner/name:FILE.gguf, owner/name:Q4_1 or an alias")
    }

    private static func unknown(_ text: String, _ aliases: [ModelAlias]) -> MartletError {
        let names = aliases.map(\.name)
        let text = text.unicodeScalars.reduce(into: "") {
            $0 += $1.value < 32 ? $1.escaped(asASCII: true) : String($1)
        }
        if let nearest = EditDistance.nearest(text, among: names) {
            return MartletError(
                .notFound, "unknown model '\(text)'", mend: "Did you mean '\(nearest)'?",
                context: ["nearest": nearest])
        }
        return MartletError(
            .notFound, "unknown model '\(text)': no such file and no such alias",
            mend: "Known aliases: \(names.joined(separator: ", ")). Or write owner/name:FILE.gguf")
    }
}

extension String {
    /// The text behind a prefix; nil if it does not start so.
    package func droppingPrefix(_ prefix: String) -> String? {
        hasPrefix(prefix) ? String(dropFirst(prefix.count)) : nil
    }
}
