// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Writes little-endian files for tests, well-formed or not.
struct Bytes {
    var content: [UInt8] = []

    mutating func add<Value: FixedWidthInteger>(_ value: Value) {
        withUnsafeBytes(of: value.littleEndian) { content += $0 }
    }

    mutating func add(_ text: String) {
        add(UInt64(text.utf8.count))
        content += text.utf8
    }

    mutating func pad(to alignment: Int) {
        while content.count % alignment != 0 { content.append(0) }
    }
}

/// A small GGUF file with one tensor of each storage read here.
enum SmallGGUF {
    static func header(
        version: UInt32 = 3, tensors: UInt64, pairs: UInt64
    ) -> Bytes {
        var bytes = Bytes(content: Array("GGUF".utf8))
        bytes.add(version)
        bytes.add(tensors)
        bytes.add(pairs)
        return bytes
    }

    static func info(
        _ bytes: inout Bytes, _ name: String, _ dims: [UInt64], type: UInt32, offset: UInt64
    ) {
        bytes.add(name)
        bytes.add(UInt32(dims.count))
        for size in dims { bytes.add(size) }
        bytes.add(type)
        bytes.add(offset)
    }

    /// Metadata of several types, then an f32 `[2, 4]`, a Q8_0 `[1, 32]` and a Q4_1 `[1, 32]`.
    static var content: [UInt8] {
        var bytes = header(tensors: 3, pairs: 3)
        bytes.add("general.alignment")
        bytes.add(UInt32(4))
        bytes.add(UInt32(32))
        bytes.add("texts")
        bytes.add(UInt32(9))
        bytes.add(UInt32(8))
        bytes.add(UInt64(2))
        bytes.add("a")
        bytes.add("bc")
        bytes.add("nested")
        bytes.add(UInt32(9))
        bytes.add(UInt32(9))
        bytes.add(UInt64(1))
        bytes.add(UInt32(7))
        bytes.add(UInt64(2))
        bytes.content += [1, 0]
        info(&bytes, "plain", [4, 2], type: 0, offset: 0)
        info(&bytes, "eight", [32, 1], type: 8, offset: 32)
        info(&bytes, "four", [32, 1], type: 3, offset: 96)
        bytes.pad(to: 32)
        for index in 0..<8 { bytes.add(Float(index).bitPattern) }
        bytes.add(Half.bits(0.5))
        for index in 0..<32 { bytes.add(Int8(index - 16)) }
        bytes.pad(to: 32)
        bytes.add(Half.bits(2))
        bytes.add(Half.bits(-1))
        for index in 0..<16 { bytes.add(UInt8(index | (15 - index) << 4)) }
        return bytes.content
    }
}
