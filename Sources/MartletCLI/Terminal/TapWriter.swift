// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletBackend

/// Writes values of module paths for prompts: one array per path, rows of all steps in order.
enum TapWriter {
    /// Runs each prompt once through the engine and writes its taps; those of a prompt that fails are left out.
    ///
    /// - Throws: `MartletError` if a prompt does not fit one step, or the file cannot be written.
    static func run(_ model: LanguageModel, _ batch: inout PromptBatch, to path: String) throws {
        var members: [(name: String, bytes: [UInt8])] = []
        for index in batch.runnable {
            let named: [String: [[Float]]]
            do { named = try model.namedOutputs(batch.requests[index].prompt) } catch let error
                as MartletError
            {
                batch.fail(index, error)
                continue
            }
            let prefix = batch.requests.count > 1 ? "\(index)/" : ""
            for (name, rows) in named.sorted(by: { $0.key < $1.key })
            where name != "logits" {
                members.append(("\(prefix)\(name).npy", NPY.matrix(rows)))
            }
        }
        if !batch.runnable.isEmpty {
            try OutputFile.write(try ZipWriter.stored(members), to: path)
        }
        try batch.throwFailure()
    }
}

/// A zip archive of uncompressed members, as NumPy's `savez` writes it.
enum ZipWriter {
    /// The archive.
    ///
    /// - Throws: `MartletError` `.limitExceeded` where counts and sizes leave the format's fields.
    static func stored(_ members: [(name: String, bytes: [UInt8])]) throws -> [UInt8] {
        try check(
            memberCount: members.count,
            byteCount: members.reduce(22) { $0 + 76 + 2 * $1.name.utf8.count + $1.bytes.count })
        var file: [UInt8] = [], directory: [UInt8] = []
        func put<Value: FixedWidthInteger>(_ value: Value, _ target: inout [UInt8]) {
            withUnsafeBytes(of: value.littleEndian) { target += $0 }
        }
        for (name, bytes) in members {
            let offset = UInt32(truncatingIfNeeded: file.count)
            let size = UInt32(truncatingIfNeeded: bytes.count)
            var fields: [UInt8] = []
            // Version 2.0, no flags, stored, 1980-01-01.
            for value in [20, 0, 0, 0, 0x21] as [UInt16] { put(value, &fields) }
            var check = CRC32()
            bytes.withUnsafeBytes { check.update($0) }
            put(check.value, &fields)
            put(size, &fields)
            put(size, &fields)
            put(UInt16(truncatingIfNeeded: name.utf8.count), &fields)
            put(UInt16(0), &fields)
            put(UInt32(0x0403_4b50), &file)
            file += fields + Array(name.utf8) + bytes
            put(UInt32(0x0201_4b50), &directory)
            put(UInt16(20), &directory)
            directory += fields
            for value in [0, 0, 0] as [UInt16] { put(value, &directory) }
            put(UInt32(0), &directory)
            put(offset, &directory)
            directory += Array(name.utf8)
        }
        let start = UInt32(truncatingIfNeeded: file.count)
        file += directory
        put(UInt32(0x0605_4b50), &file)
        put(UInt32(0), &file)
        put(UInt16(truncatingIfNeeded: members.count), &file)
        put(UInt16(truncatingIfNeeded: members.count), &file)
        put(UInt32(truncatingIfNeeded: directory.count), &file)
        put(start, &file)
        put(UInt16(0), &file)
        return file
    }

    /// Refuses what needs the format's 64-bit extension.
    static func check(memberCount: Int, byteCount: Int) throws {
        guard memberCount <= 0xffff else {
            throw MartletError(
                .limitExceeded, "\(memberCount) arrays are more than the 65535 of an .npz file",
                mend: "Give fewer prompts, or a narrower --tap")
        }
        guard byteCount <= 0xffff_ffff else {
            throw MartletError(
                .limitExceeded,
                "\(byteCount) bytes of taps are more than the 4 GiB of an .npz file",
                mend: "Give fewer prompts, or a narrower --tap")
        }
    }
}
