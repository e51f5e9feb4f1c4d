// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
import MartletCore
import MartletBackend
import MartletFormats

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Where engines that `load` built are kept, named by everything that decides their content.
public enum EngineCache {
    /// `MARTLET_CACHE`, else `$XDG_CACHE_HOME/martlet`, else `~/.cache/martlet`; nil without a home.
    public static var defaultFolder: String? {
        if let folder = variable("MARTLET_CACHE") { return folder + "/engines" }
        if let folder = variable("XDG_CACHE_HOME") { return folder + "/martlet/engines" }
        return (variable("HOME") ?? HomeFolder.ofUser).map { $0 + "/.cache/martlet/engines" }
    }

    /// Value of an environment variable; nil if it is empty.
    static func variable(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// Path of the engine for sources and options: name, then what decides the content, then the program.
    static func path(in folder: String, files: [String], name: String, options: LoadOptions)
        -> String
    {
        var identity = [EngineBuilder.version]
        for file in files {
            let path = FileStatus.resolved(file)
            identity.append("\(path) \(FileStatus.identity(path) ?? "")")
        }
        identity += options.identity
        let stem = name.split(separator: ".").dropLast(name.contains(".") ? 1 : 0)
            .joined(separator: ".")
        return
            "\(folder)/\(stem)-\(digest(identity, 12))-\(digest([ProgramIdentity.line], 4)).martlet"
    }

    private static func digest(_ lines: [String], _ byteCount: Int) -> String {
        var hash = SHA256()
        for line in lines { hash.update(data: Array((line + "\n").utf8)) }
        return hexadecimal(hash.finalize().prefix(byteCount))
    }

    /// Makes a folder and those above it.
    static func makeFolder(_ path: String) throws {
        var built = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            built += "/" + part
            if mkdir(built, 0o755) != 0, errno != EEXIST {
                throw MartletError(
                    .io, "cannot make the folder \(built): \(String(cString: strerror(errno)))",
                    mend: "Set MARTLET_CACHE to a folder you can write, or pass --no-cache")
            }
        }
    }
}

extension LoadOptions {
    /// Everything that decides an engine's content, as text.
    var identity: [String] {
        [
            "target \(catalogs.device.target)", "dtype \(dtype.rawValue)", "weights \(quantize)",
            "embedding \(quantizeEmbedding)", "head \(quantizeHead ?? "default")",
            "activations \(activations ?? "default")", "kv \(kvType.rawValue)",
            "disabled \(disabledRules.sorted().joined(separator: ","))",
            "taps \(taps.joined(separator: ","))",
            "architectures \(architectures.typeNames.joined(separator: ","))",
        ]
    }

    /// Whether the same options always give the same engine (user rules are code and have no name for it).
    var isCacheable: Bool { rules.isEmpty }
}
