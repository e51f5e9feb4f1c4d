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

    /// An engine for GPUs without kernels is one that was asked for, or that is told of.
    @Test(
        arguments: [
            ("MARTLET_NVRTC=none", [], 0, "note: the engine holds no GPU kernels"),
            ("MARTLET_NVRTC=none", ["--gpu-code", "none"], 0, nil),
            ("MARTLET_NVRTC=none", ["--gpu-code", "sm_80"], 9, "NVRTC was not found"),
            (
                "MARTLET_NVRTC=./err.txt", [], 9,
                "MARTLET_NVRTC names cannot be used: ./err.txt: not a"
            ),
            (
                "MARTLET_NVRTC=/nowhere/x.so", [], 9,
                "MARTLET_NVRTC names cannot be used: /nowhere/x.so"
            ),
            ("MARTLET_NVRTC=./err.txt", ["--gpu-code", "none"], 0, nil),
            ("MARTLET_NVRTC=./err.txt", ["--target", "cpu"], 0, nil),
        ] as [(String, [String], Int32, String?)])
    func enginesWithoutKernelsAreToldOf(
        variable: String, flags: [String], code: Int32, words: String?
    ) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            ["build", Program.model, "--device", "cuda", "-o", "\(program.folder)/a.martlet"]
                + flags,
            shell: "cd '\(program.folder)' && export \(variable); exec \"$0\" \"$@\"")
        #expect(result.code == code, "\(result.error)")
        #expect(result.error.contains(words ?? "plan decode: "), "\(result.error)")
        #expect(result.error.contains("note: ") == (words?.hasPrefix("note: ") ?? false))
        #expect(program.names().contains("a.martlet") == (code == 0))
    }

    /// Rules on models that they change; those that clean up what other rules leave are in `RuleTests`.
    @Test(
        arguments: [
            ("fold-constants", "llama-gqa", []), ("gather-rows-early", "llama-gqa", []),
            ("merge-linears", "llama-gqa", []), ("gated-activation", "llama-gqa", []),
            ("rotary-cache-attention", "llama-gqa", []), ("cache-attention", "baichuan-13b", []),
            ("add-norm", "llama-gqa", []),
            ("quantize-in-producer", "llama-gqa", ["--quantize", "int8"]),
            ("common-subexpressions", "llama-gqa", []),
        ] as [(String, String, [String])])
    func answersDoNotDependOnRules(rule: String, fixture: String, flags: [String]) {
        let program = Program()
        defer { program.remove() }
        let model = [Program.fixtures + "/" + fixture] + flags
        let leave = ["--disable-rule", rule]
        let passes = [[], leave].map {
            program.run(["inspect", "--output", "csv"] + model + $0).output.contains(",\(rule),")
        }
        #expect(passes == [true, false], "the model does not show the rule")
        let prompt = ["--input-ids", "51,13,17,24,21", "-m", "8"]
        let all = program.run(["run"] + model + prompt)
        let without = program.run(["run"] + model + prompt + leave)
        #expect(without.code == 0, "\(without.error)")
        #expect(without.output == all.output && !all.output.isEmpty)
    }

    /// A head that is the embedding table gets weights of its own where it is coded otherwise.
    @Test func theHeadMayDifferFromTheTableItIs() {
        let program = Program()
        defer { program.remove() }
        let model = Program.fixtures + "/llama-mqa"
        var engines: [[UInt8]] = []
        for (name, flags, weights) in [
            ("a", [String](), "weights f32,"), ("b", ["--quantize-head", "int8:g32"], "int8.g32"),
            ("c", ["--quantize-embedding", "int8:g32"], "int8.g32"),
        ] {
            let engine = "\(program.folder)/\(name).martlet"
            let build = program.run(["build", model, "-o", engine] + flags)
            #expect(build.code == 0, "\(build.error)")
            engines.append(program.bytes("\(name).martlet"))
            let seen = program.run(["inspect", engine])
            #expect(seen.output.contains(weights), "\(seen.output)")
            #expect(program.run(["run", engine] + Self.answer).code == 0)
        }
        #expect(engines[0] != engines[1] && engines[1] != engines[2])
        // A second table, though a smaller one.
        #expect(engines[1].count > engines[0].count && engines[2].count < engines[0].count)
    }

    /// What is printed is what is computed: nothing is coded where no weight is.
    @Test func precisionsAreThoseOfTheGraph() {
        let program = Program()
        defer { program.remove() }
        for (flags, activations) in [
            ([String](), "exact"), (["--quantize", "int8"], "int8g64"),
            (["--quantize", "int8", "--activations", "exact"], "exact"),
        ] {
            let result = program.run(["run", Program.model, "--verbose"] + flags + Self.answer)
            #expect(result.error.contains("activations \(activations) (f32)"), "\(result.error)")
        }
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
