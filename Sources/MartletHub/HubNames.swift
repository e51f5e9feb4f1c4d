// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Which strings may become parts of cache paths and addresses.
package enum HubNames {
    /// Whether the text is `owner/name` as the hub allows it: at most 96 characters of letters,
    /// digits, `-`, `_` and `.` in each part, neither starting nor ending with `-` or `.`.
    package static func isRepository(_ text: String) -> Bool {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, text.utf8.count <= 193 else { return false }
        return parts.allSatisfy { part in
            guard let first = part.utf8.first, let last = part.utf8.last else { return false }
            return part.utf8.count <= 96 && part.utf8.allSatisfy(isWord)
                && first != UInt8(ascii: ".") && first != UInt8(ascii: "-")
                && last != UInt8(ascii: ".") && last != UInt8(ascii: "-")
                && !part.contains("--") && !part.contains("..")
        }
    }

    /// Whether the text is a relative path that stays inside its folder.
    package static func isRelativePath(_ text: String) -> Bool {
        guard !text.isEmpty, text.utf8.count <= 1024 else { return false }
        guard text.utf8.allSatisfy({ $0 >= 32 && $0 != 127 && $0 != UInt8(ascii: "\\") }) else {
            return false
        }
        return text.split(separator: "/", omittingEmptySubsequences: false).allSatisfy {
            !$0.isEmpty && $0 != "." && $0 != ".." && $0.utf8.count <= 255
        }
    }

    /// Whether the text may name a blob or a commit in the cache: one path component of at most
    /// 128 letters, digits, `-`, `_` and `.`, not starting with a dot.
    package static func isComponent(_ text: String) -> Bool {
        guard let first = text.utf8.first, first != UInt8(ascii: "."), text.utf8.count <= 128 else {
            return false
        }
        return text.utf8.allSatisfy(isWord)
    }

    /// Whether the text is that many hexadecimal digits in lower case.
    package static func isHexadecimal(_ text: String, count: Int) -> Bool {
        text.utf8.count == count
            && text.utf8.allSatisfy {
                (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
                    || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
            }
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
            UInt8(ascii: "."):
            true
        default: false
        }
    }
}
