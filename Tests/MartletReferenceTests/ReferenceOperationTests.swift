// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import MartletReference
import Testing

@Suite struct ReferenceOperationTests {
    private let x: [Float] = [1, -2, 0.5, 3, -0.25, 0]

    @Test(arguments: [
        ("silu", [0.7310585786, -0.2384058440, 0.3112296656, 2.8577223804, -0.1094558707, 0]),
        ("gelu", [0.8413447461, -0.0455002639, 0.3457312306, 2.9959503100, -0.1003234216, 0]),
        ("geluTanh", [0.8411919906, -0.0454023059, 0.3457140147, 2.9963626360, -0.1003245637, 0]),
        ("relu", [1, 0, 0.5, 3, 0, 0]),
    ])
    func activations(kind: String, expected: [Double]) throws {
        var probe = Probe()
        let y = try probe.rows(x, columns: 3).activation(kind)
        #expect(isClose(try probe.evaluate(y), expected, tolerance: 2e-5))
        var gated = Probe()
        let gate = try gated.rows(x, columns: 3)
        let product = gated.builder.record(
            "gatedActivation", [gate, gate], ["kind": .string(kind)])
        let products = zip(expected, x).map { $0 * Double($1) }
        #expect(isClose(try gated.evaluate(product), products, tolerance: 5e-5))
    }

    @Test func arithmetic() throws {
        var probe = Probe()
        let a = try probe.rows(x, columns: 3)
        let b = try probe.rows([1, 2, 3, 4, 5, 6], columns: 3, name: "b")
        probe.builder.output("sum", a + b)
        probe.builder.output("product", a * b)
        probe.builder.output("scaled", a * 4)
        probe.builder.output("capped", a.softCap(2))
        let result = try probe.evaluate()
        #expect(try result.floats("sum") == [2, 0, 3.5, 7, 4.75, 6])
        #expect(try result.floats("product") == [1, -4, 1.5, 12, -1.25, 0])
        #expect(try result.floats("scaled") == [4, -8, 2, 12, -1, 0])
        let capped = [0.9242343145, -1.523188312, 0.4898373248, 1.810296508, -0.2487063539, 0]
        #expect(isClose(try result.floats("capped"), capped))
    }

    @Test(arguments: ["rms", "layer"])
    func norms(kind: String) throws {
        let (w, b): ([Float], [Float]) = ([1, 2, 0.5], [0.25, 0, -1])
        var probe = Probe()
        let a = try probe.rows(x, columns: 3)
        let weight = try probe.weight("w", w, [3])
        let bias = try probe.weight("b", b, [3])
        let attributes: [String: AttributeValue] = ["kind": .string(kind), "epsilon": 0.01]
        let both = probe.builder.record(
            "addNorm", [a, a, weight, bias], attributes, resultCount: 2)
        probe.builder.output("sum", both[0])
        probe.builder.output("normed", both[1])
        probe.builder.output("bare", a.norm(kind: kind, epsilon: 0.01, weight: nil))
        let result = try probe.evaluate()
        #expect(try result.floats("sum") == x.map { 2 * $0 })
        func expected(_ row: ArraySlice<Float>, _ w: [Float], _ b: [Float]) -> [Double] {
            let values = row.map { Double($0) }
            let mean = kind == "layer" ? (values[0] + values[1] + values[2]) / 3 : 0
            let d = values.map { $0 - mean }
            let root = ((d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) / 3 + 0.01).squareRoot()
            return (0..<3).map { d[$0] / root * Double(w[$0]) + Double(b[$0]) }
        }
        let doubled = x.map { 2 * $0 }
        #expect(
            isClose(
                try result.floats("normed"),
                expected(doubled[0..<3], w, b) + expected(doubled[3..<6], w, b)))
        let (one, zero): ([Float], [Float]) = ([1, 1, 1], [0, 0, 0])
        #expect(
            isClose(
                try result.floats("bare"),
                expected(x[0..<3], one, zero) + expected(x[3..<6], one, zero)))
    }

    @Test func rowStatistics() throws {
        var probe = Probe()
        let a = try probe.rows([3, 4, 0, 0, -6, 8], columns: 2)
        probe.builder.output("unit", a.l2Normalize())
        probe.builder.output("rows", probe.builder.record("normalizeRows", [a]))
        probe.builder.output("mean", a.meanPool())
        probe.builder.output("soft", probe.builder.record("softmax", [a]))
        let result = try probe.evaluate()
        #expect(isClose(try result.floats("unit"), [0.6, 0.8, 0, 0, -0.6, 0.8]))
        #expect(try result.floats("rows") == result.floats("unit"))
        #expect(try result.floats("mean") == [-1, 4])
        #expect(
            isClose(
                try result.floats("soft"),
                [0.2689414214, 0.7310585786, 0.5, 0.5, 8.3152803e-7, 0.9999991685]))
    }

    @Test func rearrangements() throws {
        var probe = Probe()
        let builder = probe.builder
        let a = try probe.rows([1, 2, 3, 4, 5, 6], columns: 3)
        let parts = a.split([1, 2])
        builder.output("first", parts[0])
        builder.output("second", parts[1])
        builder.output("slice", builder.record("slice", [a], ["start": 1, "count": 1]))
        builder.output("columns", builder.record("concat", [parts[1], parts[0]], ["axis": 1]))
        let w = try probe.weight("w", [1, 2, 3, 4], [2, 2])
        let v = try probe.weight("v", [5, 6], [1, 2])
        let stacked = builder.record("concat", [w, v], ["axis": 0])
        builder.output("rows", stacked)
        builder.output("turned", builder.record("transpose", [stacked]))
        builder.output("flat", builder.record("reshape", [a], ["shape": "3*T"]))
        builder.output("last", a.gatherRows(builder.input("logitRows")))
        builder.output("token", a.sample())
        let result = try probe.evaluate()
        #expect(try result.floats("first") == [1, 4])
        #expect(try result.floats("second") == [2, 3, 5, 6])
        #expect(try result.floats("slice") == [2, 5])
        #expect(try result.floats("columns") == [2, 3, 1, 5, 6, 4])
        #expect(try result.floats("rows") == [1, 2, 3, 4, 5, 6])
        #expect(try result.floats("turned") == [1, 3, 5, 2, 4, 6])
        #expect(try result.floats("flat") == [1, 2, 3, 4, 5, 6])
        #expect(result.outputs["flat"]?.shape == [6])
        #expect(try result.floats("last") == [4, 5, 6])
        #expect(try result.outputs["token"]?.integers() == [2, 2])
    }

    @Test func samplePrefersTheLowestOfEqualIds() throws {
        var probe = Probe()
        let logits = try probe.rows([1, 5, 5, .nan, .nan, -1, -.infinity, -1], columns: 4)
        probe.builder.output("token", logits.sample())
        #expect(try probe.evaluate().outputs["token"]?.integers() == [1, 1])
    }

    @Test(arguments: [DType.f16, .bf16])
    func resultsAreRoundedToTheActivationType(_ dtype: DType) throws {
        var random = SeededRandom(seed: 9)
        var probe = Probe(dtype: dtype)
        let a = try probe.rows(random.floats(12), columns: 4)
        let w = try probe.weight("w", random.floats(12), [3, 4])
        probe.builder.output("y", a.linear(w).activation("silu"))
        probe.builder.output("wide", a.linear(w, dtype: .f32))
        probe.builder.output("cast", a.linear(w, dtype: .f32).cast(dtype))
        let result = try probe.evaluate()
        func isRounded(_ values: [Float]) throws -> Bool {
            try TensorData(values, shape: [values.count]).converted(to: dtype).floats() == values
        }
        #expect(try isRounded(result.floats("y")))
        #expect(try isRounded(result.floats("cast")))
        #expect(try !isRounded(result.floats("wide")))
    }

    /// Every fused result format equals the plain op followed by `quantize`.
    @Test func formatsMeanQuantizeAfterwards() throws {
        var random = SeededRandom(seed: 4)
        var probe = Probe()
        let builder = probe.builder
        let a = try probe.rows(random.floats(3 * 70), columns: 70)
        for (op, operands, attributes) in [
            ("norm", [a, nil, nil], ["kind": "rms", "epsilon": 1e-5]),
            ("activation", [a], ["kind": "gelu"]),
            ("gatedActivation", [a, a], ["kind": "silu"]),
        ] as [(String, [Tensor?], [String: AttributeValue])] {
            let coded = attributes.merging(["format": "int8g64"]) { $1 }
            builder.output(op, builder.record(op, operands, coded))
            let plain = builder.record(op, operands, attributes)
            builder.output(op + "2", builder.record("quantize", [plain], ["format": "int8g64"]))
        }
        let result = try probe.evaluate()
        for op in ["norm", "activation", "gatedActivation"] {
            #expect(try result.floats(op) == result.floats(op + "2"))
            #expect(result.outputs[op]?.format == .activation(.int8g64))
        }
    }

    @Test func tapsKeepValuesByPath() throws {
        var probe = Probe()
        let a = try probe.rows(x, columns: 3)
        let y = probe.builder.scope("layers.0") {
            probe.builder.record(
                "addNorm", [a, a], ["kind": "rms", "epsilon": 0.5], resultCount: 2)
        }
        probe.builder.output("y", y[1])
        let result = try probe.evaluate(taps: { $0 == "layers.0" })
        #expect(result.taps.map(\.op) == ["addNorm", "addNorm"])
        #expect(result.taps.map(\.result) == [0, 1])
        #expect(try result.taps[0].value.floats() == x.map { 2 * $0 })
        #expect(try result.taps[1].value.floats() == result.floats("y"))
        #expect(try probe.evaluate().taps.isEmpty)
    }

    @Test func failuresNameTheNode() throws {
        var probe = Probe()
        let a = try probe.rows(x, columns: 3)
        probe.builder.output("y", a.linear(probe.builder.parameter("missing", [2, 3])))
        let error = #expect(throws: MartletError.self) { try probe.evaluate() }
        #expect(error?.code == .notFound)
        #expect(error?.context["path"] == "missing")

        var wrong = Probe()
        let b = try wrong.rows(x, columns: 3)
        wrong.builder.output("y", b.linear(wrong.builder.parameter("w", [2, 3])))
        _ = try Probe().evaluateShape(wrong)
    }
}

extension Probe {
    /// Expects a failure where the weight's shape is not the graph's.
    fileprivate func evaluateShape(_ probe: Probe) throws {
        let weights = probe.weights.merging(["w": .plain(try TensorData([1, 2], shape: [2]))]) {
            $1
        }
        let interpreter = try ReferenceInterpreter(probe.builder.finish(), weights: weights)
        var requests = [ReferenceRequest(tokens: [0], state: interpreter.emptyState)]
        let error = #expect(throws: MartletError.self) { try interpreter.evaluate(&requests) }
        #expect(error?.code == .shapeMismatch)
    }
}
