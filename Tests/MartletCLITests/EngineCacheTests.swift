// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// The cache of engines: listed, removed, bounded.
@Suite struct EngineCacheTests {
    private static let answer = ["--input-ids", "51,173,107,224,21", "-m", "4"]

    /// Cached engines as `ls` shows them, the most recently used first.
    private func engines(_ program: Program) throws -> [JSONValue] {
        let result = program.run(["ls", "--output", "json"])
        #expect(result.code == 0, "\(result.error)")
        let json = try JSONValue.parse(ByteView(Array(result.output.utf8)), name: "ls")
        return (json.array ?? []).filter { $0["kind"]?.string == "engine" }
    }

    private func build(_ program: Program, _ scheme: String, limit: String = "none") -> String {
        let result = program.run(
            ["run", Program.model, "--quantize", scheme] + Self.answer,
            shell: "MARTLET_CACHE_LIMIT=\(limit) exec \"$0\" \"$@\"")
        #expect(result.code == 0, "\(result.error)")
        return result.output
    }

    @Test func enginesAreListedAndRemoved() throws {
        let program = Program()
        defer { program.remove() }
        #expect(try engines(program).isEmpty)
        for scheme in ["keep", "int8"] { _ = build(program, scheme) }
        var listed = try engines(program)
        #expect(listed.count == 2)
        let newest = try #require(listed.first)
        #expect(newest["name"]?.string == "llama-gqa")
        #expect(newest["precision"]?.string?.contains("int8") == true)
        let file = try #require(newest["file"]?.string)
        #expect(program.names("cache/engines").contains(file))
        #expect(newest["size"]?.int == program.bytes("cache/engines/" + file).count)
        let time = try #require(newest["last use"]?.string)
        #expect(time.hasPrefix("20") && time.hasSuffix("Z") && time.utf8.count == 20, "\(time)")

        let removed = program.run(["rm", file, "--output", "json"])
        #expect(removed.code == 0, "\(removed.error)")
        #expect(removed.output.contains("\"name\": \"\(file)\""), "\(removed.output)")
        listed = try engines(program)
        #expect(listed.count == 1 && listed[0]["file"]?.string != file)
        #expect(program.run(["rm", file]).code != 0)
        #expect(program.run(["rm", "--engines"]).code == 0)
        #expect(program.names("cache/engines").isEmpty)
        #expect(program.run(["rm"]).code == 2)
    }

    @Test func theLeastRecentlyUsedGoesFirst() throws {
        let program = Program()
        defer { program.remove() }
        let first = build(program, "keep")
        _ = build(program, "int8")
        // Used again, the oldest is no longer the one that goes.
        #expect(build(program, "keep") == first)
        let sizes = try engines(program).compactMap { $0["size"]?.int }
        #expect(sizes.count == 2)
        _ = build(program, "int4", limit: "\(sizes.reduce(0, +) + 1)")
        let left = try engines(program).compactMap { $0["precision"]?.string }
        #expect(left.count == 2)
        #expect(left[0].contains("int4") && !left.contains { $0.contains("int8.") }, "\(left)")
        // The engine just built stays whatever the limit.
        _ = build(program, "int8", limit: "0")
        #expect(try engines(program).count == 1)
        let wrong = program.run(
            ["run", Program.model, "--quantize", "int4:g64"] + Self.answer,
            shell: "MARTLET_CACHE_LIMIT=much exec \"$0\" \"$@\"")
        #expect(wrong.code == 2 && wrong.error.contains("MARTLET_CACHE_LIMIT is 'much'"))
    }

    /// Another build of the program may compile another engine: it does not take this one's.
    @Test func eachBuildOfTheProgramHasItsOwnEngines() {
        let program = Program()
        defer { program.remove() }
        let path = "'\(program.folder)/martlet'"
        let copy = "cp \"$0\" \(path) && exec \(path) \"$@\""
        let arguments = ["run", Program.model] + Self.answer
        let first = program.run(arguments)
        #expect(program.run(arguments).code == 0)
        #expect(program.names("cache/engines").count == 1)
        let other = program.run(arguments, shell: copy)
        #expect(other.code == 0 && other.output == first.output, "\(other.error)")
        #expect(program.names("cache/engines").count == 2)
        // Of the builds before a new one, the engine that was used last stays.
        #expect(program.run(arguments).code == 0)
        let kept = program.run(["ls", "--output", "json"]).output
        let third = program.run(arguments, shell: "sleep 1; touch \(path) && exec \(path) \"$@\"")
        #expect(third.code == 0 && third.output == first.output, "\(third.error)")
        let names = program.names("cache/engines")
        #expect(names.count == 2)
        #expect(names.count { kept.contains($0) } == 1)
        #expect(program.run(arguments).code == 0)
        #expect(program.names("cache/engines") == names)
        // Another scheme's engine is another engine.
        #expect(program.run(arguments + ["--quantize", "int8"]).code == 0)
        #expect(program.names("cache/engines").count == 3)
    }

    /// The engine says from which bytes it was built, all of them.
    @Test func sourcesAreHashed() throws {
        let program = Program()
        defer { program.remove() }
        let model = Program.model + "/model.gguf"
        let engine = program.folder + "/x.martlet"
        #expect(program.run(["build", model, "-o", engine]).code == 0)
        let hash = program.run([], shell: "sha256sum '\(model)'").output.prefix(64)
        let manifest = String(decoding: program.bytes("x.martlet"), as: UTF8.self)
        #expect(hash.count == 64 && manifest.contains("\"sha256:\(hash)\""))
    }

    @Test func damagedEnginesAreListedAndCanGo() throws {
        let program = Program()
        defer { program.remove() }
        _ = build(program, "keep")
        let file = try #require(program.names("cache/engines").first)
        program.write([1, 2, 3], to: "cache/engines/" + file)
        let listed = try #require(engines(program).first)
        #expect(listed["precision"]?.string == "damaged" && listed["name"]?.isNull == true)
        #expect(program.run(["rm", file]).code == 0)
        #expect(program.names("cache/engines").isEmpty)
    }

    /// A whole engine of another format is not damaged: the list says which one it is.
    @Test func enginesOfOtherFormatsAreNamed() throws {
        let program = Program()
        defer { program.remove() }
        _ = build(program, "keep")
        let file = try #require(program.names("cache/engines").first)
        var bytes = program.bytes("cache/engines/" + file)
        bytes[8] = 1
        let sum = Self.crc32c(bytes[..<60])
        for index in 0..<4 { bytes[60 + index] = UInt8(truncatingIfNeeded: sum >> (8 * index)) }
        program.write(bytes, to: "cache/engines/" + file)
        let listed = try #require(engines(program).first)
        #expect(
            listed["precision"]?.string
                == "engine format 1 is not the one this program reads (2)")
    }

    /// The checksum of an engine's header, bit by bit.
    private static func crc32c(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        ~bytes.reduce(~0) { sum, byte in
            (0..<8).reduce(sum ^ UInt32(byte)) { rest, _ in
                rest >> 1 ^ (rest & 1 == 1 ? 0x82f6_3b78 : 0)
            }
        }
    }

    /// An engine is as good a source as the checkpoint.
    @Test func anEngineBuiltFromAnEngineIsTheSame() throws {
        let program = Program()
        defer { program.remove() }
        let (a, b) = (program.folder + "/a.martlet", program.folder + "/b.martlet")
        #expect(program.run(["build", Program.model, "--quantize", "int8", "-o", a]).code == 0)
        let again = program.run(["build", a, "--target", "cpu", "-o", b])
        #expect(again.code == 0, "\(again.error)")
        #expect(!program.bytes("a.martlet").isEmpty)
        #expect(program.bytes("a.martlet") == program.bytes("b.martlet"))
        let flag = program.run(["build", a, "--quantize", "int4", "-o", b])
        #expect(flag.code == 2 && flag.error.contains("--quantize cannot change it"))
        let target = program.run(["build", a, "--target", "abacus", "-o", b])
        #expect(target.code == 2 && target.error.contains("there is no target 'abacus'"))
        let policy = program.run(["run", a, "--retarget", "later"] + Self.answer)
        #expect(policy.code == 2 && policy.error.contains("--retarget later is not known"))
        #expect(program.run(["run", a, "--retarget", "never"] + Self.answer).code == 0)
    }
}
