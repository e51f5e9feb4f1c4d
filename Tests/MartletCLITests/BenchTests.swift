// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

@Suite(.serialized) struct BenchTests {
    private static let short = [
        "--input-output-len", "8,4", "--warm-up", "1", "--num-runs", "2",
    ]

    private func json(_ text: String) throws -> JSONValue {
        try JSONValue.parse(ByteView(Array(text.utf8)), name: "output")
    }

    /// Each precision in its own process: smaller weights, smaller peak, though the largest came first.
    @Test func aComparisonShowsWhatPrecisionsSave() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            [
                "bench", "--preset", "smollm2-135m", "--compare", "f32,int8,int4", "--max-context",
                "64", "--output", "json", "--chart", program.folder + "/chart.svg",
            ] + Self.short)
        #expect(result.code == 0, "\(result.error)")
        let rows = try #require(try json(result.output).array)
        #expect(rows.map { $0["precision"]?.string } == ["f32", "int8", "int4"])
        #expect(rows.allSatisfy { $0["max context"]?.int == 64 })
        #expect(rows[0]["weights"]?.string == "f32")
        #expect(rows[2]["weights"]?.string?.hasPrefix("int4") == true)
        let peaks = rows.map { $0["peak MB"]?.double ?? 0 }
        // 135 million parameters in 4 bytes; layers alone in 1 and in half a byte, the table in 2.
        #expect(peaks[0] > 540 && peaks[0] < 640, "\(peaks)")
        #expect(peaks[1] > 160 && peaks[1] < 270, "\(peaks)")
        #expect(peaks[2] > 110 && peaks[2] < peaks[1] - 30, "\(peaks)")
        for (row, peak) in zip(rows, peaks) {
            let change = 100 * (peak / peaks[0] - 1)
            #expect(abs((row["memory %"]?.double ?? .nan) - change) < 0.06)
        }
        let chart = String(decoding: program.bytes("chart.svg"), as: UTF8.self)
        #expect(chart.hasPrefix("<svg ") && chart.hasSuffix("</svg>\n"))
        #expect(chart.split(separator: "<rect").count == 2 + 3 * 3)
        #expect(program.names("cache/engines").isEmpty, "presets write no engine")
    }

    /// Both ceilings of the same run, bytes and operations of each step; a build time only where one was built.
    @Test func ceilingsAreMeasuredInTheSameRun() throws {
        let program = Program()
        defer { program.remove() }
        let arguments =
            ["bench", Program.model, "--quantize", "int8", "--profile", "--output", "json"]
            + Self.short
        let result = program.run(arguments)
        #expect(result.code == 0, "\(result.error)")
        let output = try json(result.output)
        let row = try #require(output["cases"]?.array?.first)
        func number(_ column: String) -> Double { row[column]?.double ?? 0 }
        #expect(number("read GB/s") > 0.1 && number("peak Gop/s") > 0.1)
        // Of a tiny model, and beside other tests, both are near nothing: they follow from the others.
        let share = 100 * number("GB/s") / number("read GB/s")
        #expect(abs(number("share %") - share) < 0.06 + 0.6 / number("read GB/s"))
        let peakShare = 100 * number("prompt Gop/s") / number("peak Gop/s")
        #expect(abs(number("peak share %") - peakShare) < 0.06 + 6 / number("peak Gop/s"))
        #expect(number("peak share %") < 100 && number("prompt Gop/s") < number("peak Gop/s"))
        #expect(number("host ms/step") > 0)
        // No kernels are started on the CPU.
        #expect(row["launches/step"] == .null && row["kernels/step"] == .null)
        let steps = try #require(output["steps"]?.array)
        let qkv = try #require(
            steps.first { $0["step"]?.string == "linear layers.*.attention.qkv" })
        // Two layers of 128 x 64: a whole prompt is 8 tokens, then 3 of 1, in 3 runs.
        let runs = 3.0
        let operations = runs * (8 + 3) * 2 * 2 * 128 * 64
        #expect(abs((qkv["Mop"]?.double ?? 0) - operations / 1e6) < 0.051, "\(qkv)")
        #expect((qkv["MB"]?.double ?? 0) > 0)

        func buildTime(_ line: String) -> String? {
            line.split(separator: " ").drop { $0 != "build_time(s)" }.dropFirst().first
                .map(String.init)
        }
        let again = program.run(arguments)
        #expect(buildTime(again.error) == "0.00", "\(again.error)")
        // The one that builds begins anew, and says what the build took.
        let first = try #require(buildTime(result.error))
        #expect(first != "0.00")
        #expect(result.error.split(separator: " ").count { $0.hasSuffix("[BENCHMARK]") } == 1)
    }

    @Test func beamsAreMeasured() throws {
        let program = Program()
        defer { program.remove() }
        let beams = ["bench", Program.model, "--num-beams", "3", "--output", "json"]
        let result = program.run(beams + Self.short)
        #expect(result.code == 0, "\(result.error)")
        let row = try #require(try json(result.output).array?.first)
        #expect((row["latency ms"]?.double ?? 0) > 0)
        for column in ["decode tokens/s", "GB/s", "share %", "prompt Gop/s", "peak share %"] {
            #expect(row[column]?.isNull == true, "\(column)")
        }
        #expect(result.error.contains(" generation_time(ms) null "), "\(result.error)")
        #expect(result.error.contains(" generation_tokens_per_second null"), "\(result.error)")
        // One answer, three rows of keys and values read for each of its tokens.
        let alone = program.run(["bench", Program.model, "--output", "json"] + Self.short)
        let other = try #require(try json(alone.output).array?.first)
        #expect((row["MB/step"]?.double ?? 0) >= (other["MB/step"]?.double ?? .infinity))
        let refused = program.run(beams + ["--format", "llama-bench"])
        #expect(refused.code == 2 && refused.error.contains("--num-beams"), "\(refused.error)")
    }

    @Test func aCheckpointIsComparedToo() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            ["bench", Program.model, "--compare", "none,int8", "--output=csv"] + Self.short)
        #expect(result.code == 0, "\(result.error)")
        let lines = result.output.split(separator: "\n")
        #expect(lines.count == 3)
        #expect(lines.first?.hasPrefix("precision,batch,in,out,max context,latency ms") == true)
        #expect(lines.last?.hasPrefix("int8,1,8,4,12,") == true)
    }

    /// What `plan` says before anything is loaded is what `bench` finds.
    @Test(arguments: ["keep", "int8", "int4"], [("1", "32,16"), ("4", "128,8")])
    func memoryIsAsPlanned(quantize: String, shape: (batch: String, lengths: String)) throws {
        let program = Program()
        defer { program.remove() }
        let flags = [
            "--preset", "smollm2-135m", "--quantize", quantize, "--batch-size", shape.batch,
            "--input-output-len", shape.lengths, "--output", "json",
        ]
        let plan = program.run(["plan"] + flags)
        #expect(plan.code == 0, "\(plan.error)")
        let bench = program.run(["bench"] + flags + ["--warm-up", "1", "--num-runs", "2"])
        #expect(bench.code == 0, "\(bench.error)")
        let planned = try #require(try json(plan.output)["cases"]?.array?.first?["peak MB"]?.double)
        let found = try #require(try json(bench.output).array?.first?["peak MB"]?.double)
        #expect(abs(planned / found - 1) < 0.05, "planned \(planned) MB, found \(found) MB")
    }

    @Test(arguments: [
        (["bench"], 2, "no model is named"),
        (["bench", "--preset", "nonesuch"], 3, "there is no preset 'nonesuch'"),
        (["bench", "x", "--preset", "smollm2-135m"], 2, "both a model (x) and a preset"),
        (["bench", "--preset", "smollm2-135m", "--compare", "int8"], 2, "two or more"),
        (["bench", "--preset", "smollm2-135m", "--chart", "x.svg"], 2, "nothing is compared"),
        (["plan"], 2, "no model is named"),
        (["bench", "--preset", "smollm2-135m", "--compare", "int8,int5"], 2, "'int5'"),
        (["bench", Program.model, "--batch-size", ""], 2, "--batch-size '' names no case"),
        (["bench", Program.model, "--batch-size", ";"], 2, "--batch-size ';' names no case"),
        (
            ["bench", Program.model, "--input-output-len", ";"], 2,
            "--input-output-len ';' names no case"
        ),
        (
            ["bench", Program.model, "--format", "llama-bench", "-p", "0", "-n", "0"], 2,
            "-p 0 -n 0 leaves nothing to measure"
        ),
    ])
    func wrongFlagsAreNamed(arguments: [String], code: Int32, text: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(arguments)
        #expect(result.code == code, "\(result.error)")
        #expect(result.error.contains(text), "\(result.error)")
    }

    /// Killed at twenty random moments of a build: no file, or a whole one, and the next build works.
    @Test func aKilledBuildOfAShapeLeavesNoHalfEngine() {
        let program = Program()
        defer { program.remove() }
        let arguments = [
            "build", "--preset", "smollm2-135m", "--quantize", "int4", "--quantize-embedding",
            "int4", "-o", program.folder + "/x.martlet",
        ]
        let clock = ContinuousClock()
        let start = clock.now
        let first = program.run(arguments)
        let whole = clock.now - start
        #expect(first.code == 0, "\(first.error)")
        let bytes = program.bytes("x.martlet")
        #expect(bytes.count > 60_000_000)
        var random: UInt64 = 20
        var (unfinished, halfWritten) = (0, 0)
        for turn in 0..<20 {
            unlink(program.folder + "/x.martlet")
            let old = Set(program.names())
            func isHalfWritten() -> Bool {
                program.names().contains { $0.contains(".partial") && !old.contains($0) }
            }
            let begin = clock.now
            let process = program.start(arguments)
            // Every second kill comes with the first written byte: other tests change how long a build takes.
            if turn % 2 == 0 {
                while !isHalfWritten(), clock.now - begin < .seconds(60) { usleep(1000) }
            } else {
                random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                let moment = whole * (Double(random >> 33) / Double(1 << 31))
                usleep(useconds_t(moment / .microseconds(1)))
            }
            kill(process, SIGKILL)
            _ = program.finish(process)
            let found = program.bytes("x.martlet")
            #expect(found.isEmpty || found == bytes)
            unfinished += found.isEmpty ? 1 : 0
            halfWritten += isHalfWritten() ? 1 : 0
        }
        #expect(unfinished >= 5 && halfWritten >= 2, "\(unfinished) kills in time, \(halfWritten)")
        let again = program.run(arguments)
        #expect(again.code == 0, "\(again.error)")
        #expect(program.bytes("x.martlet") == bytes)
        #expect(!program.names().contains { $0.contains(".partial") })
    }
}
