// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import Testing

/// Checkpoints that PyTorch wrote (scripts/make-golden.py) and ones written by hand.
@Suite struct PyTorchFileTests {
    @Test(arguments: ["odd", "protocol4"])
    func readsEveryTypeAndView(_ name: String) throws {
        let file = try PyTorchFile(path: Fixture.path("pytorch/\(name).bin"))
        let expected = try SafetensorsFile(path: Fixture.path("pytorch/expected.safetensors"))
        #expect(file.names == expected.names)
        for name in expected.names {
            guard case .plain(let tensor) = try file.weight(name) else {
                Issue.record("\(name) is not plain")
                continue
            }
            #expect(
                try tensor.shape == expected.shape(of: name) && tensor.shape == file.shape(of: name)
            )
            if name == "flag" {
                #expect(tensor.dtype == .bool && tensor.bytes.array(of: UInt8.self) == [1, 0, 1])
            } else {
                #expect(try tensor.floats() == expected.tensor(name).floats(), "\(name)")
            }
        }
        let storages = try ["float64", "float16", "bfloat16", "int64", "int8", "flag"].map {
            try file.storage(of: $0).description
        }
        #expect(storages == ["f64", "f16", "bf16", "i64", "i8", "bool"])
    }

    @Test(arguments: [
        ("old", "the format of PyTorch before 1.6"),
        ("module", "imports 'torch.nn.modules.linear.Linear'"),
        ("nested", "but a dictionary 'state_dict' within"),
        ("expanded", "tensor 'a' of shape [1000, 6] repeats"),
        ("float8", "imports 'torch._utils._rebuild_tensor_v3'"),
        ("complex", "imports 'torch.ComplexFloatStorage'"),
    ])
    func refusesByName(_ name: String, _ message: String) {
        let error = #expect(throws: MartletError.self) {
            try PyTorchFile(path: Fixture.path("pytorch/\(name).bin"))
        }
        #expect(error?.code == .unsupported && error?.mend != nil)
        #expect(error?.description.contains(message) == true, "\(error?.description ?? "")")
        #expect(error?.description.contains("\(name).bin") == true)
    }

    @Test func everyTruncationThrows() throws {
        let bytes = try MappedFile.map(Fixture.path("pytorch/odd.bin")).array(of: UInt8.self)
        for length in 0..<bytes.count {
            #expect(throws: MartletError.self, "length \(length)") {
                try PyTorchFile(bytes: ByteView(Array(bytes.prefix(length))))
            }
        }
    }

    /// Damage is refused or harmless; members' own bytes are numbers, any of which is right.
    @Test(arguments: ["odd", "protocol4"])
    func everyBitFlipIsReadOrRefused(_ name: String) throws {
        let bytes = try MappedFile.map(Fixture.path("pytorch/\(name).bin")).array(of: UInt8.self)
        var refused = 0
        for bit in 0..<bytes.count * 8 {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << (bit % 8)
            do {
                let file = try PyTorchFile(bytes: ByteView(damaged))
                for name in file.names { _ = try file.weight(name) }
            } catch is MartletError {
                refused += 1
            }
        }
        #expect(refused > bytes.count)
    }

    /// Names of one storage of 1 MB: four are tied embeddings, seventy would be 70 MB out of nothing.
    @Test(arguments: [(4, true), (70, false)])
    func fewTensorsShareAStorage(names: Int, isRead: Bool) throws {
        let count = 1 << 18
        var pickle = SmallPickle()
        pickle.put("}")
        for name in 0..<names {
            pickle.text("t\(name)")
            pickle.tensor(count: count, shape: [512, 512], strides: [512, 1])
            pickle.bytes += "s".utf8
        }
        pickle.bytes += ".".utf8
        let file = ByteView(SmallPickle.file(pickle.bytes, storage: 4 * count, members: []))
        guard !isRead else {
            #expect(try PyTorchFile(bytes: file).names.count == names)
            return
        }
        let error = #expect(throws: MartletError.self) { try PyTorchFile(bytes: file) }
        #expect(error?.code == .unsupported)
        #expect(error?.description.contains("70 tensors share 1 storages") == true)
    }

    @Test func readsWideDirectories() throws {
        var pickle = SmallPickle()
        pickle.put("}")
        pickle.text("a")
        pickle.tensor()
        pickle.bytes += "s.".utf8
        var zip = SmallZip()
        zip.isWide = true
        zip.add("data.pkl", pickle.bytes)
        zip.add("data/0", [UInt8](repeating: 0, count: 24))
        #expect(try PyTorchFile(bytes: ByteView(zip.bytes)).shape(of: "a") == [2, 3])
    }

    struct Case: CustomTestStringConvertible {
        let message: String
        let bytes: [UInt8]
        var testDescription: String { message }
    }

    static func zip(_ edit: (inout SmallZip) -> Void) -> [UInt8] {
        var zip = SmallZip()
        edit(&zip)
        return zip.bytes
    }

    static func pickle(_ text: String) -> [UInt8] {
        SmallPickle.file([0x80, 2] + text.utf8)
    }

    static let hostile = [
        Case(message: "not a zip file", bytes: Array("hello, world: no checkpoint".utf8)),
        Case(
            message: "git lfs pull",
            bytes: Array("version https://git-lfs.github.com/spec/v1\noid sha256:0".utf8)),
        Case(message: "no directory at the end", bytes: Array("PK\u{3}\u{4}".utf8) + [0, 0]),
        Case(
            message: "is compressed (method 8)",
            bytes: zip {
                $0.method = 8
                $0.add("x/data.pkl", [])
            }),
        Case(
            message: "is encrypted",
            bytes: zip {
                $0.flags = 1
                $0.add("x/data.pkl", [])
            }),
        Case(
            message: "has no entry at byte",
            bytes: zip {
                $0.extraMembers = 7
                $0.add("x/data.pkl", [])
            }),
        Case(
            message: "members, at most",
            bytes: zip {
                $0.isWide = true
                $0.extraMembers = 1 << 40
                $0.add("x/data.pkl", [])
            }),
        Case(
            message: "does not lie inside the file",
            bytes: zip { $0.add("x/data.pkl", [], declared: 1 << 30) }),
        Case(
            message: "is there twice",
            bytes: zip { for _ in 0..<2 { $0.add("x/data.pkl", []) } }),
        Case(message: "0 members are named data.pkl", bytes: zip { $0.add("x/other", []) }),
        Case(
            message: "2 members are named data.pkl",
            bytes: zip {
                $0.add("x/data.pkl", [])
                $0.add("y/data.pkl", [])
            }),
        Case(
            message: "big-endian",
            bytes: SmallPickle.file(members: [("x/byteorder", Array("big".utf8))]) { $0.tensor() }),
        Case(message: "imports 'os.system'", bytes: pickle("cos\nsystem\n(X\u{2}\0\0\0lstR.")),
        Case(message: "imports 'builtins.eval'", bytes: pickle("cbuiltins\neval\n.")),
        Case(message: "imports 'torch.load'", bytes: pickle("ctorch\nload\n.")),
        Case(message: "opcode 0x69", bytes: pickle("(ios\nsystem\n.")),
        Case(message: "opcode 0x56", bytes: pickle("Vtext\n.")),
        Case(message: "protocol 5", bytes: SmallPickle.file([0x80, 5, 0x7d, 0x2e])),
        Case(message: "the text ends", bytes: pickle("}")),
        Case(message: "no dictionary of tensors", bytes: pickle("N.")),
        Case(message: "no dictionary of tensors", bytes: pickle(".")),
        Case(message: "was never stored", bytes: pickle("h\u{9}.")),
        Case(message: "no mark", bytes: pickle("t.")),
        Case(message: "a value is missing", bytes: pickle("(s.")),
        Case(message: "keys and values for no dictionary", bytes: pickle("NNNs.")),
        Case(message: "keys and values for no dictionary", bytes: pickle("}(Nu.")),
        Case(message: "was not imported", bytes: pickle("N)R.")),
        Case(message: "a persistent id is no storage", bytes: pickle(")Q.")),
        Case(
            message: "a name without end", bytes: pickle("c" + String(repeating: "x", count: 999))),
        Case(message: "cut short or no UTF-8", bytes: pickle("X\u{7f}\u{7f}\u{7f}\u{7f}abc")),
        Case(
            message: "key 'a' is given twice",
            bytes: pickle("}X\u{1}\0\0\0aNsX\u{1}\0\0\0aNs.")),
        Case(
            message: "whose name is no text",
            bytes: {
                var pickle = SmallPickle()
                pickle.bytes += "}N".utf8
                pickle.tensor()
                pickle.bytes += "s.".utf8
                return SmallPickle.file(pickle.bytes)
            }()),
        Case(
            message: "storage '7', which is missing",
            bytes: SmallPickle.file { $0.tensor(key: "7") }),
        Case(
            message: "its storage has 20 bytes",
            bytes: SmallPickle.file(storage: 20) { $0.tensor() }),
        Case(
            message: "its storage has 24 bytes",
            bytes: SmallPickle.file { $0.tensor(count: .max) }),
        Case(message: "exceeds its storage", bytes: SmallPickle.file { $0.tensor(offset: 1) }),
        Case(message: "exceeds its storage", bytes: SmallPickle.file { $0.tensor(offset: -1) }),
        Case(
            message: "exceeds its storage",
            bytes: SmallPickle.file { $0.tensor(strides: [4, 1]) }),
        Case(
            message: "exceeds its storage",
            bytes: SmallPickle.file { $0.tensor(strides: [-3, 1]) }),
        Case(
            message: "exceeds its storage",
            bytes: SmallPickle.file { $0.tensor(shape: [.max, 2], strides: [.max, 1]) }),
        Case(
            message: "exceeds its storage",
            bytes: SmallPickle.file { $0.tensor(shape: [-2, -3]) }),
        Case(
            message: "exceeds its storage",
            bytes: SmallPickle.file {
                $0.tensor(shape: [0, 1 << 40, 1 << 40], strides: [1, 1, 1])
                $0.bytes += "sX\u{1}\0\0\0b".utf8
                $0.tensor(offset: 100)
            }),
        Case(
            message: "repeats the 6 elements",
            bytes: SmallPickle.file { $0.tensor(shape: [1 << 40, 6], strides: [0, 1]) }),
        Case(
            message: "a tensor of size [2, 3] with strides [3]",
            bytes: SmallPickle.file { $0.tensor(strides: [3]) }),
        Case(
            message: "more than 100000 values",
            bytes: SmallPickle.file(
                [0x80, 2] + [UInt8](repeating: UInt8(ascii: "("), count: 500_000))),
        Case(
            message: "more than 100000 values",
            bytes: SmallPickle.file([0x80, 2, 0x29] + [UInt8](repeating: 0x85, count: 500_000))),
        Case(
            message: "at most 16777216 are read",
            bytes: SmallPickle.file([UInt8](repeating: 0x7d, count: 17 << 20))),
    ]

    @Test(arguments: hostile)
    func namesWhatIsWrong(_ item: Case) {
        let error = #expect(throws: MartletError.self) {
            try PyTorchFile(bytes: ByteView(item.bytes))
        }
        #expect(
            error?.description.contains(item.message) == true,
            "\(item.message): \(error?.description ?? "")")
    }

    /// A dimension of one may have any stride, and one of none any other.
    @Test(arguments: [
        ([1, 6], [Int.max, 1]), ([6, 1], [1, Int.max]), ([0, 1 << 60, 1 << 60], [1, 1, 1]),
    ])
    func odditiesOfStridesAreHarmless(_ shape: [Int], _ strides: [Int]) throws {
        let file = try PyTorchFile(
            bytes: ByteView(SmallPickle.file { $0.tensor(shape: shape, strides: strides) }))
        #expect(try file.weight("a").shape == shape)
    }
}
