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
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20 {
            unlink(program.folder + "/x.martlet")
            let process = program.start(arguments)
            let microseconds =
                Double(whole.components.attoseconds) * 1e-12
                + Double(whole.components.seconds) * 1e6
            usleep(useconds_t(Double.random(in: 0...1.1, using: &generator) * microseconds))
            kill(process, SIGKILL)
            _ = program.finish(process)
            let found = program.bytes("x.martlet")
            #expect(found.isEmpty || found == bytes)
        }
        let again = program.run(arguments)
        #expect(again.code == 0, "\(again.error)")
        #expect(program.bytes("x.martlet") == bytes)
        #expect(!program.names().contains { $0.contains(".partial") })
    }
}
