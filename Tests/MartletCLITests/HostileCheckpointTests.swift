// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// Hostile checkpoints end in one line within twice their size and 64 MB of memory.
///
/// The bound is the system's (`ulimit -d`: memory that can be written), so breaking it ends the
/// program by a signal. What each parser refuses, and every truncation, is the parsers' own tests' matter.
@Suite struct HostileCheckpointTests {
    struct Case: CustomTestStringConvertible {
        let name: String
        let code: Int32
        let message: String
        let make: @Sendable () -> [(String, [UInt8])]
        var testDescription: String { name }
    }

    private static let config = (
        "config.json", Array(#"{"architectures":["LlamaForCausalLM"]}"#.utf8)
    )

    /// `unit`, repeated up to so many bytes.
    private static func text(_ unit: String, _ count: Int) -> [UInt8] {
        let unit = Array(unit.utf8)
        return (0..<count).map { unit[$0 % unit.count] }
    }

    private static func safetensors(_ header: [UInt8]) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header
    }

    /// Names of their own, each with a value.
    private static func members(_ count: Int, _ value: String) -> [UInt8] {
        var text: [UInt8] = []
        for index in 0..<count { text += "\"\(index)\":\(value),".utf8 }
        return text
    }

    /// A zip of one stored member `data.pkl`.
    private static func pickle(_ content: [UInt8]) -> [UInt8] {
        func bytes(_ value: Int, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
        }
        let name = Array("data.pkl".utf8)
        let pickle = [0x80, 2] + content
        let local =
            bytes(0x0403_4b50, 4) + bytes(0, 22) + bytes(name.count, 2) + bytes(0, 2) + name
            + pickle
        let directory =
            bytes(0x0201_4b50, 4) + bytes(0, 16) + bytes(pickle.count, 4) + bytes(pickle.count, 4)
            + bytes(name.count, 2) + bytes(0, 16) + name
        let end =
            bytes(0x0605_4b50, 4) + bytes(0, 4) + bytes(1, 2) + bytes(1, 2)
            + bytes(directory.count, 4) + bytes(local.count, 4) + bytes(0, 2)
        return local + directory + end
    }

    static let cases = [
        Case(name: "a pickle of empty tuples", code: 4, message: "more than 100000 values") {
            [config, ("pytorch_model.bin", pickle(text(")", 2 << 20)))]
        },
        Case(name: "a pickle of nested tuples", code: 4, message: "more than 100000 values") {
            [
                config,
                ("pytorch_model.bin", pickle([0x29] + [UInt8](repeating: 0x85, count: 2 << 20))),
            ]
        },
        Case(name: "a pickle of dictionaries", code: 4, message: "more than 100000 values") {
            [config, ("pytorch_model.bin", pickle(text("}", 2 << 20)))]
        },
        Case(name: "a pickle of memos", code: 4, message: "more than 100000 values") {
            [
                config,
                ("pytorch_model.bin", pickle([0x4e] + [UInt8](repeating: 0x94, count: 2 << 20))),
            ]
        },
        Case(name: "a pickle of marks", code: 4, message: "more than 100000 values") {
            [config, ("pytorch_model.bin", pickle(text("(", 2 << 20)))]
        },
        Case(name: "a pickle of 17 MB", code: 5, message: "at most 16777216 are read") {
            [config, ("pytorch_model.bin", pickle(text("N", 17 << 20)))]
        },
        Case(name: "a header of numbers", code: 4, message: "more than 262144 values") {
            [config, ("model.safetensors", safetensors([0x5b] + text("1,", 2 << 20)))]
        },
        Case(name: "a header of empty tensors", code: 4, message: "more than 262144 values") {
            let value = #"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#
            return [config, ("model.safetensors", safetensors([0x7b] + members(60_000, value)))]
        },
        Case(name: "a header of names", code: 4, message: "more than 262144 values") {
            [config, ("model.safetensors", safetensors([0x7b] + members(300_000, "0")))]
        },
        Case(name: "a header of 64 MB of text", code: 4, message: "a string has no end") {
            [config, ("model.safetensors", safetensors([0x7b, 0x22] + text("x", 64 << 20)))]
        },
        Case(name: "an index of names", code: 4, message: "more than 262144 values") {
            let map = Array(#"{"weight_map":{"#.utf8) + members(300_000, "\"a.bin\"")
            return [config, ("pytorch_model.bin.index.json", map)]
        },
        Case(name: "a configuration of 1 MB", code: 4, message: "more than 262144 values") {
            [("config.json", [0x5b] + text("1,", 1_000_000)), ("model.safetensors", [])]
        },
        Case(name: "a configuration of 2 MB", code: 4, message: "at most 1048576 are read") {
            [("config.json", text(" ", 2 << 20)), ("model.safetensors", [])]
        },
    ]

    @Test(arguments: cases)
    func endInOneLineWithinMemory(_ item: Case) {
        let program = Program()
        defer { program.remove() }
        program.makeFolder("model")
        var size = 0
        for (name, bytes) in item.make() {
            program.write(bytes, to: "model/" + name)
            size += bytes.count
        }
        let limit = (2 * size + (64 << 20)) / 1024
        let result = program.run(
            ["inspect", program.folder + "/model"], shell: "ulimit -d \(limit); exec \"$0\" \"$@\"")
        #expect(result.code == item.code, "\(result.error)")
        #expect(result.error.contains(item.message), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
    }
}
