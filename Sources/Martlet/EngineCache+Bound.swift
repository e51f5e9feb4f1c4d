// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore
import MartletEngineFile

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// An engine in the cache.
public struct CachedEngine: Sendable, Hashable {
    /// File name, which `martlet rm` takes.
    public let name: String
    /// Path on this machine.
    public let path: String
    /// Name of the model it was built from; nil if the file cannot be read.
    public let modelName: String?
    /// Formats of weights, activations and KV cache in one line; nil if the file cannot be read.
    public let precision: String?
    /// Why the file cannot be read; nil if it can.
    public let problem: String?
    /// Length in bytes.
    public let byteCount: Int
    /// When it was last built or loaded, in nanoseconds since 1970.
    public let lastUse: Int
    /// Files it was built from.
    let sources: [SourceFingerprint]
}

extension EngineCache {
    /// Bytes that cached engines may take together; nil for any number.
    ///
    /// `MARTLET_CACHE_LIMIT`, such as `20GB` or `none`; by default 32 GB.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for a limit that is no size.
    public static var byteLimit: Int? {
        get throws {
            guard let text = variable("MARTLET_CACHE_LIMIT") else { return 32_000_000_000 }
            if text == "none" { return nil }
            guard let limit = ByteCount.parse(text) else {
                throw MartletError(
                    .invalidArgument, "MARTLET_CACHE_LIMIT is '\(text)', which is no size",
                    mend: "Write it as 20GB, or none for no limit")
            }
            return limit
        }
    }

    /// Engines in a folder, the least recently used first.
    public static func list(in folder: String) -> [CachedEngine] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasSuffix(".martlet") }.compactMap { name in
            let path = "\(folder)/\(name)"
            guard let stamp = FileStatus.stamp(path) else { return nil }
            var description: EngineDescription?
            var problem: String?
            do { description = try EngineFileReader.manifest(at: path).description } catch {
                let isForeign = (error as? MartletError)?.code == .unsupported
                problem = isForeign ? (error as? MartletError)?.message : "damaged"
            }
            return CachedEngine(
                name: name, path: path, modelName: description?.modelName,
                precision: description?.precision.line, problem: problem,
                byteCount: stamp.byteCount,
                lastUse: stamp.modified, sources: description?.sources ?? [])
        }.sorted { ($0.lastUse, $0.name) < ($1.lastUse, $1.name) }
    }

    /// Engines in a folder that were built from any of some files, given by name and length.
    public static func list(
        in folder: String, builtFrom files: [(name: String, byteCount: Int)]
    ) -> [CachedEngine] {
        list(in: folder).filter { engine in
            engine.sources.contains { source in
                files.contains { $0 == (source.name, source.byteCount) }
            }
        }
    }

    /// Removes a cached engine; a process that has it loaded keeps its content until it ends.
    ///
    /// - Throws: `MartletError` `.io` if the file cannot be removed.
    public static func remove(_ engine: CachedEngine) throws {
        guard unlink(engine.path) == 0 || errno == ENOENT else {
            throw MartletError(
                .io, "cannot remove \(engine.path): \(String(cString: strerror(errno)))")
        }
    }

    /// Notes that an engine is used now.
    static func touch(_ path: String) {
        // A cache that cannot be written is no reason not to answer.
        _ = utimensat(AT_FDCWD, path, nil, 0)
    }

    /// Removes what earlier builds of the program made for the same files and options, but for the engine
    /// among them that was used last.
    ///
    /// No build takes another's engine, as any part of the compiler may differ. One of them is kept, so
    /// that two builds used in turn do not build anew each time.
    static func removeEarlierBuilds(of kept: String) {
        guard let slash = kept.lastIndex(of: "/"), let dash = kept.lastIndex(of: "-"), slash < dash
        else { return }
        let (folder, stem) = (String(kept[..<slash]), kept[kept.index(after: slash)...dash])
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        let others = names.filter {
            $0.hasPrefix(stem) && $0.hasSuffix(".martlet")
                && $0.utf8.count == kept[slash...].utf8.count - 1 && "\(folder)/\($0)" != kept
        }
        let byUse = others.map { name in
            (path: "\(folder)/\(name)", time: FileStatus.stamp("\(folder)/\(name)")?.modified ?? 0)
        }.sorted { ($0.time, $0.path) > ($1.time, $1.path) }
        for engine in byUse.dropFirst() { unlink(engine.path) }
    }

    /// Removes the least recently used engines until the others take no more than a limit.
    ///
    /// - Parameter kept: The engine that was just built, which stays whatever its size.
    static func trim(_ folder: String, to limit: Int, keeping kept: String) {
        EngineFileWriter.removeLeftovers(in: folder)
        let engines = list(in: folder)
        var total = engines.reduce(0) { $0 + $1.byteCount }
        for engine in engines where total > limit && engine.path != kept {
            guard (try? remove(engine)) != nil else { continue }
            total -= engine.byteCount
        }
    }
}
