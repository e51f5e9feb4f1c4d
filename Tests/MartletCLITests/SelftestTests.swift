// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

@Suite struct SelftestTests {
    @Test func checksAreCounted() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run([
            "selftest", "--isa", "scalar", "--op", "norm", "--op", "add", "--seed", "7", "--output",
            "json",
        ])
        #expect(result.code == 0, "\(result.error)")
        let rows = try #require(
            JSONValue.parse(ByteView(Array(result.output.utf8)), name: "rows").array)
        #expect(rows.compactMap { $0["op"]?.string } == ["norm", "add"])
        for row in rows {
            #expect(row["device"]?.string == "cpu-scalar")
            #expect((row["checks"]?.int ?? 0) > 5)
            #expect(row["passed"]?.int == row["checks"]?.int)
            #expect(row["failed"]?.int == 0)
        }
        let total = rows.reduce(0) { $0 + ($1["checks"]?.int ?? 0) }
        // A line for each op as it ends, as behind a cut-off program in a log, and one for all.
        let lines = result.error.split(separator: "\n")
        #expect(lines.count == 3 && lines.last == "\(total) of \(total) checks passed, seed 7")
        for (line, row) in zip(lines, rows) {
            let (op, count) = (row["op"]?.string ?? "", row["checks"]?.int ?? 0)
            #expect(
                line.hasPrefix("cpu-scalar \(op): \(count) of \(count) passed, 0 failed ("),
                "\(line)")
        }
    }

    /// Inputs are new in each run, and those of a seed come again.
    @Test func aSeedRepeatsARun() throws {
        let program = Program()
        defer { program.remove() }
        func table(_ seed: String...) -> (rows: String, seed: Substring?) {
            let result = program.run(
                ["selftest", "--isa", "scalar", "--op", "norm", "--details", "--output", "csv"]
                    + seed)
            #expect(result.code == 0, "\(result.error)")
            return (result.output, result.error.split(separator: " ").last)
        }
        let first = table(), second = table()
        #expect(first.rows != second.rows && first.seed != second.seed)
        let number = String((first.seed ?? "").filter(\.isNumber))
        #expect(table("--seed", number).rows == first.rows)
    }

    @Test func everyNthCaseIsChecked() throws {
        let program = Program()
        defer { program.remove() }
        let counts = try ["1", "4"].map { every in
            let result = program.run([
                "selftest", "--isa", "scalar", "--op", "norm", "--every", every, "--output", "json",
            ])
            let rows = try #require(
                JSONValue.parse(ByteView(Array(result.output.utf8)), name: "rows").array)
            return try #require(rows.first?["passed"]?.int)
        }
        #expect(counts[1] == (counts[0] + 3) / 4 && counts[1] < counts[0])
    }

    @Test func aCheckIsRepeatedByItsName() {
        let program = Program()
        defer { program.remove() }
        func lines(_ arguments: String...) -> [Substring] {
            program.run(
                ["selftest", "--isa", "scalar", "--details", "--output", "csv", "--seed", "3"]
                    + arguments
            ).output.split(separator: "\n")
        }
        let all = lines("--op", "norm")
        let name = all[2].split(separator: ",")[1]
        #expect(lines("--check", String(name)) == [all[0], all[2]])
        #expect(lines("--check", "sample settings V=37").count == 2)
    }

    @Test func detailsNameEachKernel() {
        let program = Program()
        defer { program.remove() }
        let result = program.run([
            "selftest", "--isa", "scalar", "--op", "norm", "--details", "--output", "csv",
        ])
        let lines = result.output.split(separator: "\n")
        #expect(lines.first == "device,check,kernel,result,error,allowed,reason")
        #expect(lines.count > 5)
        for line in lines.dropFirst() {
            #expect(line.hasPrefix("cpu-scalar,") && line.contains(",passed,"), "\(line)")
        }
    }

    @Test(arguments: [
        (["--op", "nrom"], "error: there is no check of an op 'nrom'. Did you mean 'norm'?"),
        (
            ["--check", "norm"],
            "error: there is no check 'norm'. martlet selftest --op OP --details"
        ),
        (
            ["--op", "add", "--check", "sample settings V=37"],
            "error: there is no check 'sample settings V=37'. "
        ),
        (["--isa", "sse9"], "error: instruction set 'sse9' is not available. Available: scalar"),
        (["--device", "tpu"], "error: --device tpu is not known. Devices: cpu"),
        (
            ["--device", "cuda", "--gpu-code", "foo"],
            "error: there is no GPU code 'foo'. Known: sm_80"
        ),
        (
            ["--device", "cuda", "--gpu-code", "none"],
            "error: there is no GPU code 'none'. Known: "
        ),
        (["--every", "0"], "error: --every is 0, but must be 1 to "),
        (["--threads", "0"], "error: --threads is 0, but must be 1 to "),
    ])
    func wrongWordsAreNamed(arguments: [String], message: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(["selftest"] + arguments)
        #expect(result.code == 2)
        #expect(result.error.hasPrefix(message), "\(result.error)")
    }
}
