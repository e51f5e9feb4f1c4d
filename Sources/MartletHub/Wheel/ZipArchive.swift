// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Reads members of a zip archive (stored and deflated, zip64) out of mapped memory.
///
/// Source: PKWARE's APPNOTE 6.3, sections 4.3.7 to 4.5.3.
package struct ZipArchive: Sendable {
    /// One file of the archive.
    package struct Member: Sendable, Hashable {
        /// Name with forward slashes, as the directory states it.
        package let name: String
        /// Length when unpacked, bytes.
        package let byteCount: Int
        /// Length in the archive, bytes.
        package let packedByteCount: Int
        let method: Int
        let check: UInt32
        let headerOffset: Int
    }

    /// Members in the order of the directory.
    package let members: [Member]
    private let bytes: ByteView

    /// Reads the directory of an archive.
    ///
    /// - Throws: `MartletError` `.corrupt`, `.unsupported` for an encrypted or split archive.
    package init(_ bytes: ByteView) throws {
        self.bytes = bytes
        let directory = try Self.directory(bytes)
        var reader = ZipFields(bytes, at: directory.offset)
        var members: [Member] = []
        for _ in 0..<directory.count { members.append(try Self.member(&reader)) }
        self.members = members
    }

    /// Unpacks a member, in order, and checks its length and CRC-32.
    ///
    /// - Throws: `MartletError` `.corrupt`, `.unsupported` for other methods than stored and
    ///   deflated, and what the closure throws.
    package func unpack(
        _ member: Member, piece: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        var header = ZipFields(bytes, at: member.headerOffset)
        guard try header.u32() == 0x0403_4b50 else {
            throw MartletError(.corrupt, "zip: no local header for \(member.name)")
        }
        try header.skip(22)
        let nameLength = try header.u16()
        let extraLength = try header.u16()
        try header.skip(nameLength + extraLength)
        guard let packed = bytes.slice(header.position, count: member.packedByteCount) else {
            throw MartletError(
                .corrupt,
                "zip: \(member.name) has \(member.packedByteCount) bytes, the archive ends before")
        }
        var check = CRC32()
        var count = 0
        func take(_ bytes: UnsafeRawBufferPointer) throws {
            check.update(bytes)
            count += bytes.count
            try piece(bytes)
        }
        try packed.withUnsafeBytes { packed in
            switch member.method {
            case 0:
                var start = 0
                while start < packed.count {
                    let end = min(start + 262_144, packed.count)
                    try take(UnsafeRawBufferPointer(rebasing: packed[start..<end]))
                    start = end
                }
            case 8: try Inflate.run(packed, limit: member.byteCount, piece: take)
            default:
                throw MartletError(
                    .unsupported,
                    "zip: \(member.name) uses method \(member.method), only 0 and 8 are read")
            }
        }
        guard count == member.byteCount, check.value == member.check else {
            throw MartletError(
                .corrupt,
                "zip: \(member.name) has \(count) of \(member.byteCount) bytes, CRC-32 "
                    + "\(String(check.value, radix: 16)) instead of \(String(member.check, radix: 16))"
            )
        }
    }

    // MARK: Directory

    private static func directory(_ bytes: ByteView) throws -> (offset: Int, count: Int) {
        // The end record is 22 bytes and a comment of at most 65,535.
        var place = bytes.count - 22
        let lowest = max(0, place - 65_535)
        var found: Int?
        while place >= lowest, place >= 0 {
            var reader = ZipFields(bytes, at: place)
            if try reader.u32() == 0x0605_4b50 {
                var tail = ZipFields(bytes, at: place + 20)
                if try tail.u16() == bytes.count - place - 22 {
                    found = place
                    break
                }
            }
            place -= 1
        }
        guard let end = found else {
            throw MartletError(.corrupt, "zip: no end record in \(bytes.count) bytes")
        }
        var reader = ZipFields(bytes, at: end + 4)
        var disk = try reader.u16()
        try reader.skip(4)
        var count = try reader.u16()
        var size = try reader.u32()
        var offset = try reader.u32()
        if count == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff, end >= 20 {
            var locator = ZipFields(bytes, at: end - 20)
            if try locator.u32() == 0x0706_4b50 {
                try locator.skip(4)
                var record = ZipFields(bytes, at: try locator.u64())
                guard try record.u32() == 0x0606_4b50 else {
                    throw MartletError(.corrupt, "zip: the zip64 end record is missing")
                }
                try record.skip(12)
                disk = try record.u32()
                try record.skip(12)
                count = try record.u64()
                size = try record.u64()
                offset = try record.u64()
            }
        }
        guard disk == 0 else {
            throw MartletError(.unsupported, "zip: split archives are not read")
        }
        // A directory entry has at least 46 bytes.
        guard offset <= bytes.count, size <= bytes.count - offset, count <= size / 46 else {
            throw MartletError(
                .corrupt,
                "zip: a directory of \(count) members, \(size) bytes at \(offset) in "
                    + "\(bytes.count) bytes")
        }
        return (offset, count)
    }

    private static func member(_ reader: inout ZipFields) throws -> Member {
        guard try reader.u32() == 0x0201_4b50 else {
            throw MartletError(.corrupt, "zip: no directory entry at \(reader.position - 4)")
        }
        try reader.skip(4)
        let flags = try reader.u16()
        let method = try reader.u16()
        try reader.skip(4)
        let check = UInt32(truncatingIfNeeded: try reader.u32())
        var packed = try reader.u32()
        var size = try reader.u32()
        let nameLength = try reader.u16()
        let extraLength = try reader.u16()
        let commentLength = try reader.u16()
        try reader.skip(8)
        var offset = try reader.u32()
        let name = try reader.text(nameLength)
        guard flags & 1 == 0 else {
            throw MartletError(.unsupported, "zip: \(name) is encrypted")
        }
        let end = reader.position + extraLength
        while reader.position + 4 <= end {
            let kind = try reader.u16()
            let length = try reader.u16()
            let next = reader.position + length
            if kind == 1 {
                if size == 0xffff_ffff { size = try reader.u64() }
                if packed == 0xffff_ffff { packed = try reader.u64() }
                if offset == 0xffff_ffff { offset = try reader.u64() }
            }
            reader = ZipFields(reader.bytes, at: next)
        }
        reader = ZipFields(reader.bytes, at: end)
        try reader.skip(commentLength)
        return Member(
            name: name, byteCount: size, packedByteCount: packed, method: method, check: check,
            headerOffset: offset)
    }
}

/// Little-endian fields read in order, every read checked.
struct ZipFields {
    let bytes: ByteView
    private(set) var position: Int

    init(_ bytes: ByteView, at position: Int) {
        self.bytes = bytes
        self.position = position
    }

    mutating func u16() throws -> Int { try number(2) }
    mutating func u32() throws -> Int { try number(4) }
    mutating func u64() throws -> Int { try number(8) }

    mutating func skip(_ count: Int) throws { _ = try take(count) }

    mutating func text(_ count: Int) throws -> String {
        try take(count).withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
    }

    private mutating func number(_ count: Int) throws -> Int {
        let value = try take(count).withUnsafeBytes {
            $0.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        }
        guard let number = Int(exactly: value) else {
            throw MartletError(
                .corrupt, "zip: the number \(value) at \(position - count) is too large")
        }
        return number
    }

    private mutating func take(_ count: Int) throws -> ByteView {
        guard let view = bytes.slice(position, count: count) else {
            throw MartletError(
                .corrupt,
                "zip: \(count) bytes wanted at \(position), the archive has \(bytes.count)")
        }
        position += count
        return view
    }
}
