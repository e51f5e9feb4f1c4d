// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Appends little-endian fields; arrays carry their count before them.
struct ByteWriter {
    var bytes: [UInt8] = []

    mutating func append(_ word: UInt32) {
        withUnsafeBytes(of: word.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func append(_ array: [UInt8]) {
        append(UInt32(truncatingIfNeeded: array.count))
        bytes += array
    }

    mutating func append(_ array: [UInt32]) {
        append(UInt32(truncatingIfNeeded: array.count))
        array.map(\.littleEndian).withUnsafeBytes { bytes.append(contentsOf: $0) }
    }
}

/// Reads what `ByteWriter` wrote and never looks beyond the end.
struct ByteReader {
    private let view: ByteView
    private var position = 0

    init(_ view: ByteView) { self.view = view }

    var isAtEnd: Bool { position == view.count }

    func damaged(_ what: String) -> MartletError {
        MartletError(
            .corrupt, "tokenizer section is damaged: \(what) at byte \(position) of \(view.count)",
            context: ["offset": "\(position)"])
    }

    private mutating func take(_ count: Int) throws -> ByteView {
        guard let slice = view.slice(position, count: count) else {
            throw damaged("\(count) bytes wanted")
        }
        position += count
        return slice
    }

    mutating func bytes(_ count: Int) throws -> [UInt8] {
        try take(count).withUnsafeBytes { Array($0) }
    }

    mutating func word() throws -> UInt32 {
        try take(4).withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
    }

    mutating func byteArray() throws -> [UInt8] { try bytes(Int(try word())) }

    mutating func words() throws -> [UInt32] {
        let count = Int(try word())
        let (length, overflow) = count.multipliedReportingOverflow(by: 4)
        guard !overflow else { throw damaged("count \(count)") }
        return try take(length).withUnsafeBytes { source in
            [UInt32](unsafeUninitializedCapacity: count) { target, initialized in
                UnsafeMutableRawBufferPointer(target).copyMemory(from: source)
                for index in 0..<count { target[index] = UInt32(littleEndian: target[index]) }
                initialized = count
            }
        }
    }

    mutating func flags(_ count: Int, _ what: String) throws -> [Bool] {
        let word = try word()
        guard word >> UInt32(count) == 0 else { throw damaged(what) }
        return (0..<count).map { word >> UInt32($0) & 1 == 1 }
    }

    mutating func identifier() throws -> Int? {
        let word = try word()
        return word == UInt32.max ? nil : Int(word)
    }

    mutating func text() throws -> String {
        guard let text = String(validating: try byteArray(), as: UTF8.self) else {
            throw damaged("text that is no UTF-8")
        }
        return text
    }
}
