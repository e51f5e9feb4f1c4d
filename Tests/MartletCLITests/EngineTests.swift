// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct EngineTests {
    static let answer = ["--input-ids", "51,173,107,224,21", "-m", "8"]

    @Test(arguments: ["keep", "int8", "int4", "int4:g32:asym"])
    func buildsRepeatAndAnswerAsTheCheckpoint(scheme: String) {
        let program = Program()
        defer { program.remove() }
        let flags = ["--quantize", scheme]
        for name in ["a", "b"] {
            let result = program.run(
                ["build", Program.model, "-o", "\(program.folder)/\(name).martlet"] + flags)
            #expect(result.code == 0, "\(result.error)")
            #expect(result.error.contains("plan decode: "))
        }
        #expect(!program.bytes("a.martlet").isEmpty)
        #expect(program.bytes("a.martlet") == program.bytes("b.martlet"))
        let engine = program.run(["run", program.folder + "/a.martlet"] + Self.answer)
        let direct = program.run(["run", Program.model, "--no-cache"] + flags + Self.answer)
        #expect(engine.code == 0, "\(engine.error)")
        #expect(engine.output == direct.output)
        #expect(engine.output.split(separator: ",").count == 8)
    }

    @Test(arguments: [
        "remove-identity", "merge-reshapes", "merge-casts", "fold-constants", "gather-rows-early",
        "merge-linears", "gated-activation", "rotary-cache-attention", "cache-attention",
        "add-norm",
        "quantize-in-producer", "common-subexpressions",
    ])
    func answersDoNotDependOnRules(rule: String) {
        let program = Program()
        defer { program.remove() }
        let all = program.run(["run", Program.model] + Self.answer)
        let without = program.run(["run", Program.model, "--disable-rule", rule] + Self.answer)
        #expect(without.code == 0, "\(without.error)")
        #expect(without.output == all.output)
    }

    @Test func damagedEnginesAreErrorsAndCachedOnesAreBuiltAgain() throws {
        let program = Program()
        defer { program.remove() }
        let first = program.run(["run", Program.model] + Self.answer)
        let name = try #require(program.names("cache/engines").first)
        let whole = program.bytes("cache/engines/" + name)
        var random: UInt64 = 11
        for round in 0..<12 {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            var bytes = whole
            let position = Int(random >> 33) % whole.count
            if round % 2 == 0 {
                bytes.removeLast(whole.count - position)
            } else {
                bytes[position] ^= 0x10
            }
            program.write(bytes, to: "damaged.martlet")
            let direct = program.run(["run", program.folder + "/damaged.martlet"] + Self.answer)
            #expect(direct.code == 4, "round \(round), byte \(position): \(direct.error)")
            #expect(direct.error.split(separator: "\n").count == 1, "\(direct.error)")
            program.write(bytes, to: "cache/engines/" + name)
            let again = program.run(["run", Program.model] + Self.answer)
            #expect(again.code == 0, "\(again.error)")
            #expect(again.output == first.output)
            #expect(program.bytes("cache/engines/" + name) == whole)
        }
    }

    @Test func aFileSizeLimitLeavesNothingBehind() {
        let program = Program()
        defer { program.remove() }
        let build = program.run(
            ["build", Program.model, "-o", program.folder + "/x.martlet"], limit: 100)
        #expect(build.code == 8, "\(build.error)")
        #expect(
            build.error.contains("error: cannot write \(program.folder)/x.martlet: File too large"))
        // A cache without room is no reason not to answer.
        let run = program.run(["run", Program.model] + Self.answer, limit: 100)
        #expect(run.code == 0, "\(run.error)")
        #expect(
            run.error.hasPrefix("warning: the engine is not kept for the next run: cannot write "))
        #expect(!program.names().contains { $0.contains("martlet") })
        #expect(program.names("cache/engines").isEmpty)
    }

    /// Killed at twenty moments: the path holds nothing or a whole engine, and the next build works.
    @Test func aKillLeavesNoHalfEngine() {
        let program = Program()
        defer { program.remove() }
        let arguments = ["build", Program.model, "-o", program.folder + "/x.martlet"]
        _ = program.run(arguments)
        let whole = program.bytes("x.martlet")
        #expect(!whole.isEmpty)
        for moment in 0..<20 {
            unlink(program.folder + "/x.martlet")
            let process = program.start(arguments)
            usleep(useconds_t(1000 * moment * 2))
            kill(process, SIGKILL)
            _ = program.finish(process)
            let found = program.bytes("x.martlet")
            #expect(found.isEmpty || found == whole, "moment \(moment)")
        }
        let again = program.run(arguments)
        #expect(again.code == 0, "\(again.error)")
        #expect(program.bytes("x.martlet") == whole)
        #expect(!program.names().contains { $0.contains(".partial") })
    }

    @Test func anEngineIsNotCompiledAgain() {
        let program = Program()
        defer { program.remove() }
        _ = program.run(["build", Program.model, "-o", program.folder + "/x.martlet"])
        let result = program.run(
            ["run", program.folder + "/x.martlet", "--quantize", "int8"] + Self.answer)
        #expect(result.code == 2)
        #expect(result.error.contains("is compiled already, --quantize cannot change it"))
    }
}
