// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
import MartletCore

/// The hash that names a file's content on the hub, computed while bytes stream by.
package struct ContentHash {
    /// What the hub calls the file by.
    package enum Expectation: Sendable, Hashable {
        /// SHA-256 of the bytes (large files), 64 hexadecimal digits.
        case sha256(String)
        /// Git's SHA-1 of a blob of known length (small files), 40 hexadecimal digits.
        case gitBlob(String, byteCount: Int)
        /// A name that is no known hash: only the length can be checked.
        case unknown
    }

    private var sha256 = SHA256()
    private var sha1: Insecure.SHA1?
    private let expectation: Expectation

    /// Starts a hash that can be compared with an expectation.
    package init(_ expectation: Expectation) {
        self.expectation = expectation
        if case .gitBlob(_, let byteCount) = expectation {
            var hash = Insecure.SHA1()
            hash.update(data: Array("blob \(byteCount)\0".utf8))
            sha1 = hash
        }
    }

    /// Takes in more bytes.
    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        sha256.update(bufferPointer: bytes)
        sha1?.update(bufferPointer: bytes)
    }

    /// Ends the hash.
    ///
    /// - Returns: SHA-256 in hexadecimal, and the found and wanted digests if they differ.
    package func finish() -> (sha256: String, mismatch: (found: String, wanted: String)?) {
        let digest = hexadecimal(sha256.finalize())
        switch expectation {
        case .sha256(let wanted):
            return (digest, digest == wanted ? nil : (digest, wanted))
        case .gitBlob(let wanted, _):
            guard let sha1 else { return (digest, nil) }
            let found = hexadecimal(sha1.finalize())
            return (digest, found == wanted ? nil : (found, wanted))
        case .unknown:
            return (digest, nil)
        }
    }
}
