// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Values that transformers computed for the tiny model.
struct Golden {
    private let header: JSONValue
    private let data: [UInt8]

    init() throws {
        let bytes = Program.bytes(Program.model + "/golden.safetensors")
        let count = bytes.prefix(8).enumerated().reduce(0) {
            $0 | Int($1.element) << (8 * $1.offset)
        }
        header = try JSONValue.parse(ByteView(Array(bytes[8..<8 + count])), name: "golden")
        data = Array(bytes[(8 + count)...])
    }

    private func raw(_ name: String) -> [UInt32] {
        let ends = (header[name]?["data_offsets"]?.array ?? []).compactMap(\.int)
        guard ends.count == 2 else { return [] }
        return stride(from: ends[0], to: ends[1], by: 4).map { Golden.word(data, $0) }
    }

    /// Token ids.
    func ids(_ name: String) -> [Int] { raw(name).map { Int(Int32(bitPattern: $0)) } }
    /// Values in row-major order.
    func values(_ name: String) -> [Float] { raw(name).map { Float(bitPattern: $0) } }

    /// A little-endian word.
    static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
    }

    /// The values of a `.npy` file of f32 and its header.
    static func array(_ bytes: [UInt8]) -> (header: String, values: [Float]) {
        guard bytes.count > 10, bytes.starts(with: [0x93] + Array("NUMPY".utf8)) else {
            return ("", [])
        }
        let start = 10 + Int(bytes[8]) + Int(bytes[9]) << 8
        return (
            String(decoding: bytes[10..<start], as: UTF8.self),
            stride(from: start, to: bytes.count, by: 4).map { Float(bitPattern: word(bytes, $0)) }
        )
    }
}
