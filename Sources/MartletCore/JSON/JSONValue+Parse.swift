// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension JSONValue {
    /// Reads a JSON text of UTF-8 bytes.
    ///
    /// Strict RFC 8259: no comments, no trailing commas, no NaN, no byte order mark, no lone
    /// surrogates, nothing but white space after the value.
    ///
    /// - Parameters:
    ///   - bytes: The whole text.
    ///   - name: What it is, for messages.
    ///   - depthLimit: Arrays and objects within each other; at most 512.
    ///   - refusesDuplicateKeys: Whether a repeated key is an error; otherwise the last one counts.
    ///   - valueLimit: Most values in all; bounds the memory that a hostile text can take.
    /// - Throws: `MartletError` `.corrupt` naming what was expected, its byte offset, line, column.
    public static func parse(
        _ bytes: UnsafeRawBufferPointer, name: String = "JSON", depthLimit: Int = 128,
        refusesDuplicateKeys: Bool = false, valueLimit: Int = .max
    ) throws -> JSONValue {
        var parser = JSONParser(
            bytes: bytes, name: name, depthLimit: min(depthLimit, 512),
            refusesDuplicateKeys: refusesDuplicateKeys, valueLimit: valueLimit)
        return try parser.parse()
    }

    /// Reads a JSON text; see `parse(_:name:depthLimit:refusesDuplicateKeys:)` of raw bytes.
    public static func parse(
        _ bytes: ByteView, name: String = "JSON", depthLimit: Int = 128,
        refusesDuplicateKeys: Bool = false, valueLimit: Int = .max
    ) throws -> JSONValue {
        try bytes.withUnsafeBytes {
            try parse(
                $0, name: name, depthLimit: depthLimit, refusesDuplicateKeys: refusesDuplicateKeys,
                valueLimit: valueLimit)
        }
    }

    /// Reads a JSON text; see `parse(_:name:depthLimit:refusesDuplicateKeys:)` of raw bytes.
    public static func parse(
        _ bytes: [UInt8], name: String = "JSON", depthLimit: Int = 128,
        refusesDuplicateKeys: Bool = false
    ) throws -> JSONValue {
        try bytes.withUnsafeBytes {
            try parse(
                $0, name: name, depthLimit: depthLimit, refusesDuplicateKeys: refusesDuplicateKeys)
        }
    }

    /// Reads a JSON text; see `parse(_:name:depthLimit:refusesDuplicateKeys:)` of raw bytes.
    public static func parse(
        _ text: String, name: String = "JSON", depthLimit: Int = 128,
        refusesDuplicateKeys: Bool = false
    ) throws -> JSONValue {
        try parse(
            Array(text.utf8), name: name, depthLimit: depthLimit,
            refusesDuplicateKeys: refusesDuplicateKeys)
    }
}
