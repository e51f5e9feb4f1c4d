// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// The cyclic redundancy check of zip archives (IEEE 802.3).
package struct CRC32 {
    private static let table: [UInt32] = {
        var table = [UInt32](repeating: 0, count: 8 * 256)
        for i in 0..<256 {
            var value = UInt32(i)
            for _ in 0..<8 { value = (value >> 1) ^ (value & 1 == 1 ? 0xedb8_8320 : 0) }
            table[i] = value
        }
        for i in 256..<(8 * 256) {
            let previous = table[i - 256]
            table[i] = (previous >> 8) ^ table[Int(previous & 0xff)]
        }
        return table
    }()

    private var state: UInt32 = ~0

    /// Starts with no bytes.
    package init() {}

    /// The check value of the bytes so far.
    package var value: UInt32 { ~state }

    /// Takes in more bytes, eight at a time.
    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        var crc = state
        Self.table.withUnsafeBufferPointer { table in
            var i = 0
            while i + 8 <= bytes.count {
                let word =
                    bytes.loadUnaligned(fromByteOffset: i, as: UInt64.self).littleEndian
                    ^ UInt64(crc)
                crc = 0
                for byte in 0..<8 {
                    crc ^= table[(7 - byte) * 256 + Int((word >> (8 * UInt64(byte))) & 0xff)]
                }
                i += 8
            }
            while i < bytes.count {
                crc = (crc >> 8) ^ table[Int((crc ^ UInt32(bytes[i])) & 0xff)]
                i += 1
            }
        }
        state = crc
    }
}
