// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A folder of a test's own, removed with it.
final class Folder {
    let path: String

    init() {
        var template = Array("/tmp/martlet-formats-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress, let made = mkdtemp(base) else { return "/tmp" }
            return String(cString: made)
        }
    }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        let file = try #require(fopen(path + "/" + name, "wb"))
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
        names.append(name)
    }

    func write(_ name: String, _ text: String) throws { try write(name, Array(text.utf8)) }

    private var names: [String] = []

    deinit {
        for name in names { unlink(path + "/" + name) }
        rmdir(path)
    }
}

/// Folders in Hugging Face's layout: which weights count, and what is wrong with others.
@Suite struct FolderTests {
    static let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"

    /// A safetensors file of one f32 `[2]`.
    static func safetensors(_ name: String) -> [UInt8] {
        SafetensorsFileTests.file(
            #"{"\#(name)":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, data: 8)
    }

    static func index(_ places: [(String, String)]) -> String {
        let map = places.map { #""\#($0)":"\#($1)""# }.joined(separator: ",")
        return #"{"metadata":{"total_size":16},"weight_map":{\#(map)}}"#
    }

    @Test func shardsOfBothKindsAreRead() throws {
        let folder = Folder()
        try folder.write("config.json", #"{"architectures":["X"]}"#)
        try folder.write("a.safetensors", Self.safetensors("a"))
        try folder.write("b.bin", SmallPickle.file { $0.tensor() })
        try folder.write(
            "pytorch_model.bin.index.json", Self.index([("a", "b.bin"), ("b", "a.safetensors")]))
        // The index is wrong about both names; mended, both are found.
        #expect(throws: MartletError.self) { try ModelSource.open(folder.path) }
        try folder.write("b.safetensors", Self.safetensors("b"))
        try folder.write(
            "pytorch_model.bin.index.json", Self.index([("a", "b.bin"), ("b", "b.safetensors")]))
        let source = try ModelSource.open(folder.path)
        #expect(source.checkpoint.names == ["a", "b"])
        #expect(try source.checkpoint.shape(of: "a") == [2, 3])
        #expect(try source.checkpoint.weight("b").shape == [2])
        #expect(try source.checkpoint.storage(of: "b").description == "f32")
        #expect(throws: MartletError.self) { try source.checkpoint.weight("c") }
        #expect(
            ModelSource.files(of: folder.path).map(FileStatus.name).prefix(3)
                == ["pytorch_model.bin.index.json", "b.bin", "b.safetensors"])
        #expect(
            try ModelSource.open(folder.path + "/pytorch_model.bin.index.json").checkpoint.names
                == ["a", "b"])
        #expect(try ModelSource.open(folder.path + "/b.bin").checkpoint.names == ["a"])
    }

    @Test func safetensorsComeFirst() throws {
        let folder = Folder()
        try folder.write("config.json", "{}")
        try folder.write("pytorch_model.bin", SmallPickle.file { $0.tensor() })
        #expect(try ModelSource.open(folder.path).checkpoint.names == ["a"])
        try folder.write("model.safetensors", Self.safetensors("s"))
        #expect(try ModelSource.open(folder.path).checkpoint.names == ["s"])
    }

    struct Case: CustomTestStringConvertible {
        let message: String
        let code: MartletError.Code
        let files: [(String, String)]
        var testDescription: String { message }

        init(_ message: String, _ code: MartletError.Code, _ files: (String, String)...) {
            self.message = message
            self.code = code
            self.files = files
        }
    }

    private static let config = ("config.json", "{}")
    private static let indexName = "model.safetensors.index.json"

    static let wrong = [
        Case("holds none of model.safetensors, model.safetensors.index.json", .notFound, config),
        Case("there is no", .notFound, (indexName, index([("a", "a.safetensors")]))),
        Case(
            "names a.safetensors for 2 tensors, but there is no such file", .notFound, config,
            (indexName, index([("a", "a.safetensors"), ("b", "a.safetensors")]))),
        Case("'weight_map' is missing", .corrupt, config, (indexName, "{}")),
        Case("'weight_map' is missing", .corrupt, config, (indexName, #"{"weight_map":{}}"#)),
        Case(
            "gives integer for tensor 'a'", .corrupt, config,
            (indexName, #"{"weight_map":{"a":1}}"#)),
        Case("holds array where an object is due", .corrupt, config, (indexName, "[]")),
        Case("at byte 1", .corrupt, config, (indexName, "{")),
        Case("'../a.bin' of tensor 'a'", .corrupt, config, (indexName, index([("a", "../a.bin")]))),
        Case("'/etc/a.bin' of tensor", .corrupt, config, (indexName, index([("a", "/etc/a.bin")]))),
        Case("'..' of tensor 'a'", .corrupt, config, (indexName, index([("a", "..")]))),
        Case(
            "'config.json' of tensor", .corrupt, config, (indexName, index([("a", "config.json")]))),
        Case(
            "'a\u{0}.bin' of tensor", .corrupt, config, (indexName, index([("a", "a\\u0000.bin")]))),
        Case("git lfs pull", .corrupt, config, (indexName, pointer)),
        Case(
            "git lfs pull", .corrupt, config, (indexName, index([("a", "a.bin")])),
            ("a.bin", pointer)),
        Case("git lfs pull", .corrupt, config, ("model.safetensors", pointer)),
        Case("git lfs pull", .corrupt, config, ("pytorch_model.bin", pointer)),
        Case("git lfs pull", .corrupt, ("config.json", pointer), ("model.safetensors", "")),
        Case("HeaderTooSmall", .corrupt, config, ("model.safetensors", "")),
        Case("not a zip file", .corrupt, config, ("pytorch_model.bin", "")),
        Case(
            "config.json holds array", .corrupt, ("config.json", "[1]"), ("model.safetensors", "")),
        Case("config.json: ", .corrupt, ("config.json", #"{"a":}"#), ("model.safetensors", "")),
        Case(
            "nested deeper than 128 levels", .corrupt,
            ("config.json", String(repeating: "[", count: 100_000)), ("model.safetensors", "")),
        Case(
            "at most 1048576 are read", .corrupt,
            ("config.json", String(repeating: " ", count: 1 << 21)), ("model.safetensors", "")),
        Case(
            "more than 262144 values", .corrupt,
            ("config.json", "[" + String(repeating: "1,", count: 300_000)),
            ("model.safetensors", "")),
        Case(
            "more than 262144 values", .corrupt, config,
            (indexName, "[" + String(repeating: "1,", count: 300_000))),
    ]

    @Test(arguments: wrong)
    func saysWhatIsWrong(_ item: Case) throws {
        let folder = Folder()
        for (name, text) in item.files { try folder.write(name, text) }
        let error = #expect(throws: MartletError.self) { try ModelSource.open(folder.path) }
        #expect(
            error?.description.contains(item.message) == true,
            "\(item.message): \(error?.description ?? "")")
        #expect(error?.code == item.code)
    }
}
