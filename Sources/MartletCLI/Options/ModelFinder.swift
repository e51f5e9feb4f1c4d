// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletHub

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Finds models, pulling what is missing.
enum ModelFinder {
    /// The hub; what pip says is shown unless the user wants quiet.
    static func hub(isQuiet: Bool) -> Hub {
        var configuration = HubConfiguration()
        configuration.showsChildOutput = !isQuiet
        return Hub(configuration: configuration)
    }

    /// Path of a model that a user named.
    static func path(_ name: String) async throws -> String {
        let hub = hub(isQuiet: false)
        let reference = try hub.reference(name)
        if let path = try hub.lookup(reference) { return path }
        let terminal = PullTerminal(style: PullTerminal.standardStyle())
        return try await Interrupt.cancelling {
            try await hub.resolve(reference, observe: terminal.observer)
        }
    }
}

extension ModelFinder {
    /// What a shell offers for a model: aliases, model files, folders with a `config.json`.
    static var completion: CompletionKind { .custom { _, _, prefix in candidates(prefix) } }

    static func candidates(_ prefix: String) -> [String] {
        let names = ModelAlias.builtIn.map(\.name)
        return names.filter { $0.hasPrefix(prefix) } + files(prefix)
    }

    private static func files(_ prefix: String) -> [String] {
        let folder = prefix.lastIndex(of: "/").map { String(prefix[...$0]) } ?? ""
        return entries(folder.isEmpty ? "." : folder)
            .filter {
                (folder + $0).hasPrefix(prefix) && ($0.first != "." || prefix.hasSuffix("."))
            }
            .flatMap { name in
                let path = folder + name
                guard FileStatus.isFolder(path) else { return isModel(name) ? [path] : [] }
                // With a folder goes what is in it, so that completing its name does not end the word.
                return [path + "/"] + entries(path).filter(isModel).map { "\(path)/\($0)" }
            }
    }

    private static func isModel(_ name: String) -> Bool {
        name.hasSuffix(".gguf") || name.hasSuffix(".martlet")
    }

    /// Names in a folder, sorted; none where it is no folder.
    static func entries(_ folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }
}
