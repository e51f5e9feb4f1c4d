// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
package import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Kernels compiled before, a file each: the code, and behind it a hash by which damage is seen.
package struct KernelCache: Sendable {
    private static let hashByteCount = 32
    private let folder: String

    /// Names the folder; it is made when something is written.
    package init(folder: String) { self.folder = folder }

    /// The file of a module's code.
    package func path(_ identity: String) -> String { "\(folder)/\(identity).cubin" }

    /// Code that was kept; nil for none, and for a file that is not as it was written.
    package func read(_ identity: String) -> ByteView? {
        guard let file = try? MappedFile.map(path(identity)), file.count > Self.hashByteCount,
            let code = file.slice(0, count: file.count - Self.hashByteCount),
            let end = file.slice(code.count, count: Self.hashByteCount),
            end.array(of: UInt8.self) == Self.hash(code, identity)
        else { return nil }
        return code
    }

    /// Keeps code for later; a failure only costs time.
    package func write(_ code: ByteView, _ identity: String) {
        var built = folder.hasPrefix("/") ? "" : "."
        for part in folder.split(separator: "/") {
            built += "/" + part
            mkdir(built, 0o755)
        }
        let partial = "\(path(identity)).partial-\(getpid())"
        guard let file = fopen(partial, "wb") else { return }
        let hash = Self.hash(code, identity)
        let written =
            code.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, file) }
            + fwrite(hash, 1, hash.count, file)
        if fclose(file) == 0, written == code.count + hash.count,
            rename(partial, path(identity)) == 0
        {
            return
        }
        unlink(partial)
    }

    /// The hash of code and its name: a file under another's name is none of its own.
    private static func hash(_ code: ByteView, _ identity: String) -> [UInt8] {
        var hash = SHA256()
        hash.update(data: Array(identity.utf8))
        code.withUnsafeBytes { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }
}
