// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A safetensors file, memory-mapped; tensors are views of it.
///
/// Error names in messages are those of the reference reader. Source: safetensors format, 8-byte
/// header length, JSON header, data; offsets count from the end of the header.
package struct SafetensorsFile: CheckpointSource {
    struct Entry: Sendable {
        let dtype: DType
        let shape: [Int]
        let range: Range<Int>
    }

    /// Largest header accepted, as in the reference reader.
    static let headerLimit = 100_000_000

    /// Strings of the header's `__metadata__`.
    package let metadata: [String: String]
    private let entries: [String: Entry]
    private let data: ByteView

    /// Opens a file.
    ///
    /// - Throws: `MartletError` `.corrupt` for a damaged file, `.notFound` or `.io` if it cannot be read.
    package init(path: String) throws {
        do {
            try self.init(bytes: MappedFile.map(path))
        } catch let error as MartletError {
            throw error.reading(path)
        }
    }

    /// Reads a file's bytes.
    ///
    /// - Throws: `MartletError` `.corrupt` for damaged content.
    package init(bytes: ByteView) throws {
        try GitLFSPointer.refuse(bytes)
        guard bytes.count >= 8 else {
            throw MartletError(.corrupt, "HeaderTooSmall: \(bytes.count) bytes, at least 8 needed")
        }
        let declared = bytes.withUnsafeBytes {
            UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self))
        }
        guard declared <= UInt64(Self.headerLimit) else {
            throw MartletError(
                .corrupt, "HeaderTooLarge: \(declared) bytes, at most \(Self.headerLimit) allowed")
        }
        guard let header = bytes.slice(8, count: Int(declared)),
            let data = bytes.slice(8 + header.count, count: bytes.count - 8 - header.count)
        else {
            throw MartletError(
                .corrupt, "InvalidHeaderLength: \(declared) bytes in a file of \(bytes.count)")
        }
        let json = try JSONValue.parse(
            header, name: "safetensors header", refusesDuplicateKeys: true,
            valueLimit: CheckpointText.valueLimit)
        guard let object = json.object else {
            throw MartletError(.corrupt, "InvalidHeader: not a JSON object")
        }
        var entries: [String: Entry] = [:]
        var metadata: [String: String] = [:]
        for member in object.members {
            let (name, value) = (member.key, member.value)
            if name == "__metadata__" {
                for text in value.object?.members ?? [] { metadata[text.key] = text.value.string }
            } else {
                entries[name] = try Self.entry(name, value)
            }
        }
        try Self.checkLayout(entries, dataCount: data.count)
        self.entries = entries
        self.metadata = metadata
        self.data = data
    }

    private static func entry(_ name: String, _ value: JSONValue) throws -> Entry {
        guard let typeName = value["dtype"]?.string,
            let shape = value["shape"]?.array?.compactMap(\.int),
            shape.count == value["shape"]?.array?.count,
            let offsets = value["data_offsets"]?.array?.compactMap(\.int), offsets.count == 2
        else { throw MartletError(.corrupt, "InvalidHeader: tensor '\(name)' lacks a field") }
        guard let dtype = dtypes[typeName] else {
            throw MartletError(.unsupported, "tensor '\(name)' has unknown dtype '\(typeName)'")
        }
        guard let count = TensorData.elementCount(shape),
            case let (size, overflow) = count.multipliedReportingOverflow(by: dtype.byteCount),
            !overflow
        else {
            throw MartletError(.corrupt, "ValidationOverflow: tensor '\(name)' of shape \(shape)")
        }
        guard offsets[0] >= 0, offsets[0] <= offsets[1], offsets[1] - offsets[0] == size else {
            throw MartletError(
                .corrupt,
                "InvalidOffset: tensor '\(name)' has bytes \(offsets), its shape needs \(size)")
        }
        return Entry(dtype: dtype, shape: shape, range: offsets[0]..<offsets[1])
    }

    /// Tensors must follow each other without overlap or hole and fill the data.
    private static func checkLayout(_ entries: [String: Entry], dataCount: Int) throws {
        var end = 0
        for (name, entry) in entries.sorted(by: {
            ($0.value.range.lowerBound, $0.value.range.upperBound, $0.key)
                < ($1.value.range.lowerBound, $1.value.range.upperBound, $1.key)
        }) {
            guard entry.range.lowerBound == end else {
                throw MartletError(
                    .corrupt,
                    "InvalidOffset: tensor '\(name)' starts at \(entry.range.lowerBound), not \(end)"
                )
            }
            end = entry.range.upperBound
        }
        guard end == dataCount else {
            throw MartletError(
                .corrupt,
                "MetadataIncompleteBuffer: tensors take \(end) bytes, the file has \(dataCount)",
                mend: "The file may be cut short: fetch it again")
        }
    }

    static let dtypes: [String: DType] = [
        "F64": .f64, "F32": .f32, "F16": .f16, "BF16": .bf16, "F8_E4M3": .f8e4m3,
        "F8_E5M2": .f8e5m2, "I64": .i64, "I32": .i32, "I16": .i16, "I8": .i8, "U64": .u64,
        "U32": .u32, "U16": .u16, "U8": .u8, "BOOL": .bool,
    ]

    package var names: [String] { entries.keys.sorted() }
    package func contains(_ name: String) -> Bool { entries[name] != nil }
    package func shape(of name: String) throws -> [Int] { try entry(name).shape }
    package func storage(of name: String) throws -> ElementFormat { .plain(try entry(name).dtype) }

    package func weight(_ name: String) throws -> WeightValue { .plain(try tensor(name)) }

    /// A tensor as a view of the file.
    ///
    /// - Throws: `MartletError` `.notFound` if there is none of that name.
    package func tensor(_ name: String) throws -> TensorData {
        let entry = try entry(name)
        guard let bytes = data.slice(entry.range.lowerBound, count: entry.range.count) else {
            throw MartletError(.corrupt, "InvalidOffset: tensor '\(name)' lies outside the file")
        }
        return try TensorData(
            dtype: entry.dtype, shape: entry.shape,
            bytes: bytes.aligned(to: entry.dtype.byteCount))
    }

    private func entry(_ name: String) throws -> Entry {
        guard let entry = entries[name] else {
            throw MartletError.missingTensor(name)
        }
        return entry
    }
}
