// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// Goldens beside this file.
enum Fixture {
    static func json(_ name: String) throws -> JSONValue {
        let folder = #filePath.split(separator: "/").dropLast().joined(separator: "/")
        let view = try MappedFile.map("/\(folder)/Fixtures/\(name)")
        return try JSONValue.parse(view, name: name)
    }

    static func bytes(base64 text: String) throws -> [UInt8] {
        let alphabet = Array(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var bytes: [UInt8] = []
        var bits = 0
        var count = 0
        for byte in text.utf8 where byte != UInt8(ascii: "=") {
            let digit = try #require(alphabet.firstIndex(of: byte))
            bits = (bits << 6 | digit) & 0xFFFF
            count += 6
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> count))
            }
        }
        return bytes
    }
}

/// A small generator with a seed.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// Members of a literal, for variables of templates.
func members(_ value: JSONValue) -> JSONObject { value.object ?? JSONObject() }

extension JSONValue {
    /// The value as a file holds it.
    var fileBytes: ByteView { ByteView(Array(serialized().utf8)) }
}
