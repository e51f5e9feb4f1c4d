// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A value of GGUF metadata.
package enum GGUFValue: Sendable {
    /// Any integer type.
    case int(Int)
    /// An unsigned integer above `Int.max`.
    case large(UInt64)
    /// f32 or f64.
    case float(Double)
    /// A truth value.
    case bool(Bool)
    /// A text; bytes that are not UTF-8 are kept by `bytes`.
    case string([UInt8])
    /// A list of one type.
    case array([GGUFValue])

    /// The integer, if it is one.
    package var int: Int? { if case .int(let value) = self { value } else { nil } }
    /// The number, if it is one.
    package var double: Double? {
        switch self {
        case .int(let value): Double(value)
        case .float(let value): value
        default: nil
        }
    }
    /// The truth value, if it is one.
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// The text, with replacement characters where it is not UTF-8.
    package var string: String? {
        if case .string(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
    }
    /// The text's bytes.
    package var bytes: [UInt8]? { if case .string(let bytes) = self { bytes } else { nil } }
    /// The list, if it is one.
    package var array: [GGUFValue]? { if case .array(let values) = self { values } else { nil } }
}

/// Reads GGUF's little-endian fields with every bound checked.
struct GGUFReader {
    let bytes: UnsafeRawBufferPointer
    private(set) var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    func failure(_ message: String) -> MartletError {
        MartletError(.corrupt, "GGUF: \(message) at byte \(position)")
    }

    mutating func read<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) throws
        -> Value
    {
        guard bytes.count - position >= MemoryLayout<Value>.size else { throw failure("file ends") }
        let value = bytes.loadUnaligned(fromByteOffset: position, as: type)
        position += MemoryLayout<Value>.size
        return Value(littleEndian: value)
    }

    /// A count that must be plausible: each element takes at least `elementSize` bytes of the rest.
    mutating func count(elementSize: Int) throws -> Int {
        let declared = try read(UInt64.self)
        guard let count = Int(exactly: declared), count <= (bytes.count - position) / elementSize
        else {
            throw failure("\(declared) elements do not fit the rest of the file")
        }
        return count
    }

    mutating func string() throws -> [UInt8] {
        let count = try count(elementSize: 1)
        defer { position += count }
        return Array(bytes[position..<position + count])
    }

    /// A key or a tensor's name.
    mutating func name() throws -> String {
        guard let text = String(validating: try string(), as: UTF8.self) else {
            throw failure("a name is not UTF-8")
        }
        return text
    }

    mutating func value(type: UInt32, depth: Int = 0) throws -> GGUFValue {
        switch type {
        case 0: return .int(Int(try read(UInt8.self)))
        case 1: return .int(Int(try read(Int8.self)))
        case 2: return .int(Int(try read(UInt16.self)))
        case 3: return .int(Int(try read(Int16.self)))
        case 4: return .int(Int(try read(UInt32.self)))
        case 5: return .int(Int(try read(Int32.self)))
        case 6: return .float(Double(Float(bitPattern: try read(UInt32.self))))
        case 7:
            let byte = try read(UInt8.self)
            guard byte <= 1 else { throw failure("a truth value is \(byte)") }
            return .bool(byte == 1)
        case 8: return .string(try string())
        case 9:
            guard depth < 8 else { throw failure("arrays nest deeper than 8") }
            let element = try read(UInt32.self)
            let sizes: [UInt32: Int] = [
                0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 8: 8, 9: 12, 10: 8, 11: 8, 12: 8,
            ]
            guard let size = sizes[element] else { throw failure("unknown value type \(element)") }
            let count = try count(elementSize: size)
            var values: [GGUFValue] = []
            values.reserveCapacity(count)
            for _ in 0..<count { values.append(try value(type: element, depth: depth + 1)) }
            return .array(values)
        case 10:
            let number = try read(UInt64.self)
            return Int(exactly: number).map(GGUFValue.int) ?? .large(number)
        case 11: return .int(Int(try read(Int64.self)))
        case 12: return .float(Double(bitPattern: try read(UInt64.self)))
        default: throw failure("unknown value type \(type)")
        }
    }
}
