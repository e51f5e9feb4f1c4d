// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Castagnoli's cyclic redundancy check, as the engine file stores it per MiB.
public enum CRC32C {
    /// Sixteen tables of 256 entries, one after the other.
    ///
    /// `@unchecked Sendable`: written once before the first use, then only read, and never freed.
    private struct Tables: @unchecked Sendable {
        let base: UnsafePointer<UInt32>

        init() {
            let table = UnsafeMutablePointer<UInt32>.allocate(capacity: 16 * 256)
            for i in 0..<256 {
                var value = UInt32(i)
                for _ in 0..<8 { value = (value >> 1) ^ (value & 1 == 1 ? 0x82f6_3b78 : 0) }
                table[i] = value
            }
            for i in 256..<16 * 256 {
                let previous = table[i - 256]
                table[i] = (previous >> 8) ^ table[Int(previous & 0xff)]
            }
            base = UnsafePointer(table)
        }
    }

    private static let tables = Tables()

    /// The check value of some bytes (sixteen tables; a micro-kernel with the CPU's own instruction is faster).
    ///
    /// - Parameters:
    ///   - bytes: What to check.
    ///   - seed: The check value of the bytes before these, so that a stream can be checked in parts.
    /// - Returns: The check value of all of them.
    public static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        guard let start = bytes.baseAddress else { return seed }
        let table = tables.base
        var crc = ~seed
        var next = start
        let end = start + bytes.count
        while end - next >= 16 {
            let low = next.loadUnaligned(as: UInt64.self).littleEndian ^ UInt64(crc)
            let high = (next + 8).loadUnaligned(as: UInt64.self).littleEndian
            crc = fold(low, table + 8 * 256) ^ fold(high, table)
            next += 16
        }
        while next < end {
            let index = (crc ^ UInt32(next.load(as: UInt8.self))) & 0xff
            crc = (crc >> 8) ^ table[Int(index)]
            next += 1
        }
        return ~crc
    }

    /// What eight bytes contribute; `table` is the one of the last byte.
    @inline(__always)
    private static func fold(_ word: UInt64, _ table: UnsafePointer<UInt32>) -> UInt32 {
        @inline(__always)
        func entry(_ byte: UInt64) -> UInt32 {
            table[Int(truncatingIfNeeded: ((7 &- byte) &<< 8) | ((word &>> (8 &* byte)) & 0xff))]
        }
        return (entry(0) ^ entry(1)) ^ (entry(2) ^ entry(3)) ^ (entry(4) ^ entry(5))
            ^ (entry(6) ^ entry(7))
    }
}
