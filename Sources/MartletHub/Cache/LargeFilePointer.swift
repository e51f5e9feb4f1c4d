// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// The text that Git keeps in place of a large file.
///
/// Source: the Git LFS specification, version 1.
enum LargeFilePointer {
    /// A pointer has fewer bytes.
    static let lengthLimit = 1024

    /// Whether some bytes are a pointer.
    static func isOne(_ bytes: [UInt8]) -> Bool {
        bytes.starts(with: "version https://git-lfs.github.com/spec/".utf8)
    }

    /// What to say where weights were expected.
    static func error(_ file: HubFile, sender: String) -> MartletError {
        MartletError(
            .corrupt, "\(sender) has a Git LFS pointer in place of \(file), not the weights",
            mend: "Whoever keeps it must run git lfs pull (or upload the file itself); "
                + "take another mirror or repository until then")
    }
}
