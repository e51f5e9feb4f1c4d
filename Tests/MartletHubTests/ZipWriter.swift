// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletHub

/// Writes a zip archive of stored members, as small as a test needs it.
enum ZipWriter {
    static func archive(
        _ members: [(name: String, method: Int, packed: [UInt8], plain: [UInt8])]
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        var directory: [UInt8] = []
        for member in members {
            var check = CRC32()
            member.plain.withUnsafeBytes { check.update($0) }
            let common =
                little(20, 2) + little(0, 2) + little(member.method, 2) + little(0, 4)
                + little(Int(check.value), 4) + little(member.packed.count, 4)
                + little(member.plain.count, 4) + little(member.name.utf8.count, 2) + little(0, 2)
            directory += little(0x0201_4b50, 4) + little(20, 2) + common + little(0, 10)
            directory += little(bytes.count, 4) + Array(member.name.utf8)
            bytes += little(0x0403_4b50, 4) + common + Array(member.name.utf8) + member.packed
        }
        let start = bytes.count
        bytes += directory
        bytes += little(0x0605_4b50, 4) + little(0, 4) + little(members.count, 2)
        bytes +=
            little(members.count, 2) + little(directory.count, 4) + little(start, 4) + little(0, 2)
        return bytes
    }

    private static func little(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { $0 < 8 ? UInt8(truncatingIfNeeded: value >> (8 * $0)) : 0 }
    }
}
