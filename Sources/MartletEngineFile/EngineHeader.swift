// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// The fixed first bytes of an engine file, little-endian.
///
/// File: header, zeros up to 4096, body (sections with zeros between), checksum table, manifest.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | 8 bytes | `MARTLET` and a zero byte |
/// | 8 | u32 | format version |
/// | 12 | u32 | header length, 64 |
/// | 16 | u64 | file length |
/// | 24 | u64 | offset of the checksum table, also the end of the body |
/// | 32 | u64 | offset of the manifest, also the end of the checksum table |
/// | 40 | u64 | manifest length; the manifest ends the file |
/// | 48 | u32 | CRC32C of the checksum table |
/// | 52 | u32 | CRC32C of the manifest |
/// | 56 | u32 | zero |
/// | 60 | u32 | CRC32C of bytes 0 to 59 |
///
/// The checksum table holds one CRC32C (u32) per MiB of the body, the last one for a shorter rest.
struct EngineHeader: Equatable {
    static let magic: [UInt8] = Array("MARTLET\0".utf8)
    static let formatVersion: UInt32 = 2
    static let byteCount = 64
    /// Where the body starts; sections are aligned to it.
    static let pageSize = 4096
    /// Bytes of body per checksum.
    static let chunkSize = 1 << 20
    /// Largest manifest accepted, in bytes.
    static let manifestLimit = 64 << 20

    var checksumOffset: Int
    var manifestOffset: Int
    var manifestByteCount: Int
    var checksumCRC: UInt32
    var manifestCRC: UInt32

    var fileByteCount: Int { manifestOffset + manifestByteCount }
    var bodyByteCount: Int { checksumOffset - Self.pageSize }

    /// Checksums that a body needs.
    static func chunkCount(_ bodyByteCount: Int) -> Int {
        bodyByteCount / chunkSize + (bodyByteCount % chunkSize == 0 ? 0 : 1)
    }

    var encoded: [UInt8] {
        var bytes = Self.magic
        func append(_ value: some FixedWidthInteger) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        append(Self.formatVersion)
        append(UInt32(Self.byteCount))
        append(UInt64(fileByteCount))
        append(UInt64(checksumOffset))
        append(UInt64(manifestOffset))
        append(UInt64(manifestByteCount))
        append(checksumCRC)
        append(manifestCRC)
        append(UInt32(0))
        append(bytes.withUnsafeBytes { CRC32C.checksum($0) })
        return bytes
    }

    /// Reads and checks a header against the length of the file it came from.
    init(_ bytes: UnsafeRawBufferPointer) throws {
        guard bytes.count >= Self.magic.count,
            bytes.prefix(Self.magic.count).elementsEqual(Self.magic)
        else { throw MartletError(.corrupt, "not an engine file (no MARTLET at its start)") }
        guard bytes.count >= Self.byteCount else {
            throw MartletError(
                .corrupt,
                "engine file of \(bytes.count) bytes is shorter than its header of "
                    + "\(Self.byteCount)")
        }
        func word(_ offset: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }
        func length(_ offset: Int) throws -> Int {
            let value = UInt64(
                littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            guard let length = Int(exactly: value) else {
                throw MartletError(.corrupt, "engine header states a length of \(value) bytes")
            }
            return length
        }
        let crc = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[0..<60]))
        guard word(60) == crc else {
            throw MartletError(
                .corrupt,
                "engine header is damaged (checksum \(hex(word(60))), computed \(hex(crc)))",
                mend: Self.rebuild)
        }
        guard word(8) == Self.formatVersion, word(12) == Self.byteCount, word(56) == 0 else {
            throw MartletError(
                .unsupported,
                "engine format \(word(8)) is not the one this program reads (\(Self.formatVersion))",
                mend: "Build the engine again with this version: martlet build")
        }
        let fileByteCount = try length(16)
        guard fileByteCount == bytes.count else {
            throw MartletError(
                .corrupt,
                "engine file has \(bytes.count) bytes, its header states \(fileByteCount)",
                mend: Self.rebuild)
        }
        checksumOffset = try length(24)
        manifestOffset = try length(32)
        manifestByteCount = try length(40)
        checksumCRC = word(48)
        manifestCRC = word(52)
        guard checksumOffset >= Self.pageSize, checksumOffset <= fileByteCount,
            manifestOffset >= checksumOffset, manifestOffset <= fileByteCount,
            manifestByteCount == fileByteCount - manifestOffset,
            manifestOffset - checksumOffset == 4 * Self.chunkCount(bodyByteCount)
        else {
            throw MartletError(.corrupt, "engine header describes parts that do not fill the file")
        }
        guard manifestByteCount <= Self.manifestLimit else {
            throw MartletError(
                .limitExceeded,
                "engine manifest of \(manifestByteCount) bytes exceeds the limit of "
                    + "\(Self.manifestLimit)")
        }
    }

    init(
        checksumOffset: Int, manifestOffset: Int, manifestByteCount: Int, checksumCRC: UInt32,
        manifestCRC: UInt32
    ) {
        self.checksumOffset = checksumOffset
        self.manifestOffset = manifestOffset
        self.manifestByteCount = manifestByteCount
        self.checksumCRC = checksumCRC
        self.manifestCRC = manifestCRC
    }

    static let rebuild = "Delete the file and build the engine again: martlet build"
}

/// Eight hexadecimal digits.
func hex(_ value: UInt32) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 8 - digits.count) + digits
}
