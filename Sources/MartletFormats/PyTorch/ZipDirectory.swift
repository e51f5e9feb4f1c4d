// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Members of a zip file that is not compressed: views of its bytes by name.
///
/// Reads the central directory, with its 64-bit form. Source: PKWARE's description of the format.
struct ZipDirectory {
    /// Bytes of each member.
    let members: [String: ByteView]

    private static let memberLimit = 1 << 18
    private let bytes: ByteView

    /// Reads the directory at the end of a file.
    ///
    /// - Throws: `MartletError` `.corrupt` for a damaged file, `.unsupported` for compressed members.
    init(_ bytes: ByteView) throws {
        self.bytes = bytes
        var (count, start) = try Self.end(bytes)
        guard count <= Self.memberLimit else {
            throw MartletError(
                .corrupt, "zip: \(count) members, at most \(Self.memberLimit) are read")
        }
        var members: [String: ByteView] = [:]
        let end = start
        while count > 0 {
            let entry = try Self.entry(bytes, at: &start)
            let content = try Self.content(of: entry, bytes, before: end)
            guard members.updateValue(content, forKey: entry.name) == nil else {
                throw MartletError(.corrupt, "zip: member '\(entry.name)' is there twice")
            }
            count -= 1
        }
        self.members = members
    }

    private struct Entry {
        var name: String
        var byteCount: Int
        var header: Int
    }

    private static func failure(_ what: String) -> MartletError {
        MartletError(
            .corrupt, "zip: \(what)", mend: "The file may be cut short: fetch it again")
    }

    private static func need<Value>(_ value: Value?) throws -> Value {
        guard let value else { throw failure("a field lies outside the file") }
        return value
    }

    /// Number of members and place of the directory, from the record at the end.
    private static func end(_ bytes: ByteView) throws -> (count: Int, start: Int) {
        // A comment of up to 64 KiB may follow the record.
        let lowest = max(0, bytes.count - 22 - 0xffff)
        guard
            let end = stride(from: bytes.count - 22, through: lowest, by: -1).first(where: {
                bytes.load(UInt32.self, at: $0) == 0x0605_4b50
                    && bytes.load(UInt16.self, at: $0 + 20).map(Int.init) == bytes.count - $0 - 22
            })
        else { throw failure("there is no directory at the end of \(bytes.count) bytes") }
        let count = try need(bytes.load(UInt16.self, at: end + 10))
        let size = try need(bytes.load(UInt32.self, at: end + 12))
        let start = try need(bytes.load(UInt32.self, at: end + 16))
        guard count == .max || size == .max || start == .max else {
            return (Int(count), Int(start))
        }
        guard bytes.load(UInt32.self, at: end - 20) == 0x0706_4b50,
            let wide = bytes.load(UInt64.self, at: end - 12).flatMap(Int.init(exactly:)),
            bytes.load(UInt32.self, at: wide) == 0x0606_4b50, wide <= end - 20 - 56,
            let count = bytes.load(UInt64.self, at: wide + 32).flatMap(Int.init(exactly:)),
            let start = bytes.load(UInt64.self, at: wide + 48).flatMap(Int.init(exactly:))
        else { throw failure("the 64-bit directory is damaged") }
        return (count, start)
    }

    /// The directory's entry at `place`, which moves behind it.
    private static func entry(_ bytes: ByteView, at place: inout Int) throws -> Entry {
        guard bytes.load(UInt32.self, at: place) == 0x0201_4b50 else {
            throw failure("the directory has no entry at byte \(place)")
        }
        func short(_ offset: Int) throws -> Int {
            Int(try need(bytes.load(UInt16.self, at: place + offset)))
        }
        func word(_ offset: Int) throws -> Int {
            Int(try need(bytes.load(UInt32.self, at: place + offset)))
        }
        let (nameCount, extraCount, commentCount) = (try short(28), try short(30), try short(32))
        let nameBytes = try need(bytes.slice(place + 46, count: nameCount))
        guard let name = nameBytes.withUnsafeBytes({ String(validating: $0, as: UTF8.self) }) else {
            throw failure("a member's name at byte \(place + 46) is not UTF-8")
        }
        let (flags, method) = (try short(8), try short(10))
        guard method == 0, flags & 1 == 0 else {
            throw MartletError(
                .unsupported,
                "zip member '\(name)' is \(flags & 1 == 1 ? "encrypted" : "compressed (method \(method))")",
                mend: "Save the file with torch.save, which stores members as they are")
        }
        let extra = try need(bytes.slice(place + 46 + nameCount, count: extraCount))
        var sizes = [try word(24), try word(20), try word(42)]
        try widen(&sizes, extra)
        guard sizes[0] == sizes[1] else {
            throw failure("member '\(name)' is stored as \(sizes[1]) bytes but holds \(sizes[0])")
        }
        place += 46 + nameCount + extraCount + commentCount
        return Entry(name: name, byteCount: sizes[0], header: sizes[2])
    }

    /// Fills in 64-bit fields (size, stored size, place) for those that are all ones.
    private static func widen(_ fields: inout [Int], _ extra: ByteView) throws {
        guard fields.contains(0xffff_ffff) else { return }
        var place = 0
        while let kind = extra.load(UInt16.self, at: place),
            let size = extra.load(UInt16.self, at: place + 2)
        {
            place += 4
            guard kind == 1 else {
                place += Int(size)
                continue
            }
            for index in fields.indices where fields[index] == 0xffff_ffff {
                fields[index] = try need(
                    extra.load(UInt64.self, at: place).flatMap(Int.init(exactly:)))
                place += 8
            }
            return
        }
        throw failure("a 64-bit size is missing")
    }

    /// A member's bytes, which lie behind its own header and before the directory.
    private static func content(
        of entry: Entry, _ bytes: ByteView, before end: Int
    ) throws -> ByteView {
        let header = entry.header
        guard header <= bytes.count, bytes.load(UInt32.self, at: header) == 0x0403_4b50,
            let nameCount = bytes.load(UInt16.self, at: header + 26),
            let extraCount = bytes.load(UInt16.self, at: header + 28),
            case let start = header + 30 + Int(nameCount) + Int(extraCount), start <= end,
            entry.byteCount <= end - start,
            let content = bytes.slice(start, count: entry.byteCount)
        else {
            throw failure(
                "member '\(entry.name)' of \(entry.byteCount) bytes does not lie inside the file")
        }
        return content
    }
}
