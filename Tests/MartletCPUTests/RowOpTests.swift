// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile
import Synchronization
import Testing

@Suite struct ThreadTeamTests {
    @Test(arguments: [1, 2, 3, 5])
    func everyThreadPassesEveryBarrier(count: Int) {
        let team = ThreadTeam(threads: count)
        let sums = Mutex([Int](repeating: 0, count: 50))
        let late = Atomic<Int>(0)
        for round in 0..<50 {
            team.run { index, threads in
                for phase in 0..<50 {
                    sums.withLock { $0[phase] += index + 1 }
                    team.barrier()
                    let wanted = (round + 1) * threads * (threads + 1) / 2
                    if sums.withLock({ $0[phase] }) != wanted { late.add(1, ordering: .relaxed) }
                }
            }
        }
        #expect(late.load(ordering: .relaxed) == 0)
        #expect(sums.withLock { $0.allSatisfy { $0 == 50 * count * (count + 1) / 2 } })
    }
}

@Suite struct RowOpTests {
    /// Runs one op on rows and compares it with a function of each row.
    private func check(
        _ op: String, _ attributes: [String: AttributeValue] = [:], columns: Int = 70,
        tolerance: Double = 2e-6, _ expected: ([Double]) -> [Double]
    ) async throws {
        var random = SeededRandom(21)
        let x = random.floats(5 * columns, scale: 3)
        var sketch = PlanSketch()
        let rows = try sketch.rows(x, columns: columns)
        let wanted = (0..<5).map { expected(x[$0 * columns..<($0 + 1) * columns].map(Double.init)) }
        let y = try sketch.buffer(wanted[0].count)
        sketch.step(op, [rows], [y], attributes)
        sketch.output("y", y)
        let found = try await sketch.executor(threads: 2).rows(5)
        #expect(difference(found, wanted) < tolerance, "\(op)")
        #expect(bits(try await sketch.executor(threads: 1).rows(5)) == bits(found), "\(op)")
    }

    @Test func rowOps() async throws {
        try await check("activation", ["kind": "silu"]) { $0.map { $0 / (1 + exponential(-$0)) } }
        try await check("activation", ["kind": "relu"]) { $0.map { max($0, 0) } }
        try await check("scale", ["factor": 0.25]) { $0.map { $0 * 0.25 } }
        try await check("softCap", ["cap": 2.0]) {
            $0.map { 2 * (1 - 2 / (exponential($0) + 1)) }
        }
        try await check("softmax") { row in
            let top = row.max() ?? 0
            let sum = row.reduce(0) { $0 + exponential($1 - top) }
            return row.map { exponential($0 - top) / sum }
        }
        try await check("l2Normalize") { row in
            let length = row.reduce(0) { $0 + $1 * $1 }.squareRoot()
            return row.map { $0 / length }
        }
        try await check("slice", ["start": 3, "count": 10]) { Array($0[3..<13]) }
        try await check("norm", ["kind": "layer", "epsilon": 1e-5]) { row in
            let mean = row.reduce(0, +) / Double(row.count)
            let spread = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(row.count)
            return row.map { ($0 - mean) / (spread + 1e-5).squareRoot() }
        }
    }

    @Test func codedRowsRoundTrip() async throws {
        var random = SeededRandom(22)
        let x = random.floats(4 * 130)
        var sketch = PlanSketch()
        let rows = try sketch.rows(x, columns: 130)
        let coded = try sketch.buffer(130, format: .activation(.int8g64))
        sketch.step("quantize", [rows], [coded], ["format": "int8g64"], family: "quantize_int8g64")
        let y = try sketch.buffer(130)
        sketch.step("dequantize", [coded], [y], family: "dequantize_int8g64")
        sketch.output("y", y)
        sketch.output("coded", coded)
        let found = try await sketch.executor().rows(4)
        let wanted = (0..<4).map { Naive.int8g64(Array(x[$0 * 130..<($0 + 1) * 130])) }
        #expect(difference(found, wanted) < 1e-6)
        let direct = try await sketch.executor().rows(4, output: "coded")
        #expect(bits(direct) == bits(found))
    }

    @Test(arguments: ["norm", "activation", "gatedActivation", "addNorm"])
    func codedResultsEqualTheOpThenQuantize(op: String) async throws {
        var random = SeededRandom(24)
        let x = random.floats(4 * 100)
        func run(inside: Bool) async throws -> [[Float]] {
            var sketch = PlanSketch()
            let rows = try sketch.rows(x, columns: 100)
            let plain = try sketch.buffer(100)
            let sum = try sketch.buffer(100)
            let coded = try sketch.buffer(100, format: .activation(.int8g64))
            let weight = try sketch.vector("weight", (0..<100).map { Float($0) / 50 })
            let result = inside ? coded : plain
            var attributes: [String: AttributeValue] = ["epsilon": 1e-6]
            attributes["kind"] = op.hasSuffix("orm") ? "rms" : "silu"
            if inside { attributes["format"] = "int8g64" }
            switch op {
            case "norm": sketch.step(op, [rows, weight, .none], [result], attributes)
            case "activation": sketch.step(op, [rows], [result], attributes)
            case "addNorm":
                sketch.step(op, [rows, rows, weight, .none], [sum, result], attributes)
            default: sketch.step(op, [rows, rows], [result], attributes)
            }
            if !inside {
                sketch.step("quantize", [plain], [coded], family: "quantize_int8g64")
            }
            sketch.output("y", coded)
            return try await sketch.executor().rows(4)
        }
        let inside = try await run(inside: true)
        #expect(bits(inside) == bits(try await run(inside: false)))
        #expect(inside.joined().contains { $0 != 0 } && inside.joined().allSatisfy(\.isFinite))
    }

    @Test func pairsConcatAndMeans() async throws {
        var random = SeededRandom(23)
        let x = random.floats(3 * 20)
        let bias = random.floats(20)
        var sketch = PlanSketch()
        let rows = try sketch.rows(x, columns: 20)
        let sum = try sketch.buffer(20)
        sketch.step("add", [rows, try sketch.vector("bias", bias)], [sum])
        let product = try sketch.buffer(20)
        sketch.step("mul", [sum, rows], [product])
        let joined = try sketch.buffer(40)
        sketch.step("concat", [sum, product], [joined], ["axis": 1])
        let y = try sketch.buffer(40, rows: .B)
        sketch.step("meanPool", [joined], [y])
        sketch.output("y", y)
        let found = try await sketch.executor().rows(3)
        var mean = [Double](repeating: 0, count: 40)
        for t in 0..<3 {
            for c in 0..<20 {
                let a = Double(x[t * 20 + c]) + Double(bias[c])
                mean[c] += a / 3
                mean[20 + c] += a * Double(x[t * 20 + c]) / 3
            }
        }
        #expect(difference(found, [mean]) < 1e-6)
    }
}
