// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import Testing

/// Files under Tests/Fixtures.
enum Fixture {
    static func path(_ name: String) -> String {
        let source = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        return source.dropLast(2).joined(separator: "/") + "/Fixtures/" + name
    }
}

@Suite struct SafetensorsFileTests {
    static func file(_ header: String, data: Int) -> [UInt8] {
        var bytes = Bytes()
        bytes.add(UInt64(header.utf8.count))
        bytes.content += header.utf8
        bytes.content += (0..<data).map { UInt8(truncatingIfNeeded: $0) }
        return bytes.content
    }

    static let small = file(
        #"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"#
            + #""b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#, data: 11)

    @Test func readsTensorsAsViews() throws {
        let file = try SafetensorsFile(bytes: ByteView(Self.small))
        #expect(file.names == ["a", "b"])
        #expect(file.metadata["format"] == "pt")
        #expect(try file.shape(of: "a") == [2, 1])
        #expect(try file.tensor("b").bytes.array(of: UInt8.self) == [8, 9, 10])
        let error = #expect(throws: MartletError.self) { try file.tensor("c") }
        #expect(error?.code == .notFound)
    }

    @Test func everyTruncationThrows() {
        for length in 0..<Self.small.count {
            #expect(throws: MartletError.self, "length \(length)") {
                try SafetensorsFile(bytes: ByteView(Array(Self.small.prefix(length))))
            }
        }
    }

    @Test func everyBitFlipIsReadOrRefused() throws {
        var refused = 0
        for bit in 0..<Self.small.count * 8 {
            var damaged = Self.small
            damaged[bit / 8] ^= 1 << (bit % 8)
            do {
                let file = try SafetensorsFile(bytes: ByteView(damaged))
                for name in file.names { _ = try file.tensor(name) }
            } catch is MartletError {
                refused += 1
            }
        }
        #expect(refused > Self.small.count)
    }

    @Test(arguments: [
        ("HeaderTooSmall", [UInt8](repeating: 0, count: 7)),
        ("HeaderTooLarge", [UInt8](repeating: 0xff, count: 16)),
        ("InvalidHeaderLength", [200, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d]),
        (
            "InvalidOffset",
            file(
                #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"#
                    + #""b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#, data: 6)
        ),
        (
            "InvalidOffset",
            file(
                #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"#
                    + #""b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}"#, data: 9)
        ),
        (
            "InvalidOffset",
            file(#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,5]}}"#, data: 5)
        ),
        (
            "MetadataIncompleteBuffer",
            file(#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, data: 5)
        ),
        (
            "ValidationOverflow",
            file(
                #"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
                data: 4)
        ),
        (
            "duplicate",
            file(
                #"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"#
                    + #""a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, data: 0)
        ),
        ("unknown dtype", file(#"{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,1]}}"#, data: 1)),
        ("git lfs pull", Array("version https://git-lfs.github.com/spec/v1\noid sha256:0".utf8)),
    ])
    func namesWhatIsWrong(_ name: String, _ content: [UInt8]) {
        let error = #expect(throws: MartletError.self) {
            try SafetensorsFile(bytes: ByteView(content))
        }
        #expect(error?.description.contains(name) == true, "\(name): \(error?.description ?? "")")
    }
}
