// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile
import Testing

@Suite struct LinearTests {
    /// A plan of one linear over given rows.
    private func sketch(
        _ x: [Float], _ weight: WeightValue, layout: String, family: String, coded: Bool,
        bias: [Float]?
    ) throws -> PlanSketch {
        var sketch = PlanSketch()
        let k = weight.shape[1]
        let rows = try sketch.rows(x, columns: k)
        var input = rows
        if coded {
            input = try sketch.buffer(k, format: .activation(.int8g64))
            sketch.step(
                "quantize", [rows], [input], ["format": "int8g64"], family: "quantize_int8g64")
        }
        let w = try sketch.parameter("w", weight, layout: layout)
        var b = PlanOperand.none
        if let bias { b = try sketch.vector("b", bias) }
        let y = try sketch.buffer(weight.shape[0])
        sketch.step("linear", [input, w, b], [y], family: family)
        sketch.output("y", y)
        return sketch
    }

    @Test(arguments: allSchemes, [false, true])
    func codedWeightsEqualPlainComputation(scheme: QuantizationScheme, coded: Bool) async throws {
        let (n, k, tokens) = (37, 160, 9)
        var random = SeededRandom(11)
        let x = random.floats(tokens * k)
        let bias = random.floats(n)
        let weight = try randomWeight(scheme, n, k, seed: 3)
        let sketch = try sketch(
            x, .quantized(weight), layout: layout(scheme),
            family: "linear_u\(scheme.bits)_\(coded ? "int8g64" : "f32")", coded: coded, bias: bias)
        let dense = Naive.decode(weight)
        let expected = (0..<tokens).map { t -> [Double] in
            let row = Array(x[t * k..<(t + 1) * k])
            let input = coded ? Naive.int8g64(row) : row.map(Double.init)
            return zip(Naive.linear(input, dense, n), bias).map { $0 + Double($1) }
        }
        let all = try await sketch.executor(threads: 2).rows(tokens)
        #expect(difference(all, expected) < 2e-5)
        // Fewer rows, one thread, other instruction sets: the same bits.
        let few = try await sketch.executor(threads: 1).rows(3)
        #expect(bits(few) == bits(Array(all.prefix(3))))
        for isa in CPUInstructionSet.available {
            let other = try await sketch.executor(threads: 1, instructionSet: isa).rows(tokens)
            #expect(bits(other) == bits(all), "\(isa)")
        }
    }

    @Test(arguments: allSchemes)
    func embeddingDecodesCodedRows(scheme: QuantizationScheme) async throws {
        let weight = try randomWeight(scheme, 21, 100, seed: 4)
        var sketch = PlanSketch()
        let table = try sketch.parameter("t", .quantized(weight), layout: layout(scheme))
        let y = try sketch.buffer(100)
        sketch.step("embedding", [table, .input("tokens")], [y])
        sketch.output("y", y)
        let dense = Naive.decode(weight)
        let expected = (0..<21).map { Array(dense[$0 * 100..<($0 + 1) * 100]) }
        #expect(difference(try await sketch.executor().rows(21), expected) < 1e-6)
    }

    @Test(arguments: [DType.f32, .f16, .bf16])
    func plainWeightsEqualPlainComputation(type: DType) async throws {
        let (n, k, tokens) = (50, 70, 6)
        var random = SeededRandom(5)
        let x = random.floats(tokens * k)
        let weight = try TensorData(random.floats(n * k), shape: [n, k]).converted(to: type)
        let sketch = try sketch(
            x, .plain(weight), layout: "panel16.\(type.rawValue)",
            family: "linear_\(type.rawValue)_f32", coded: false, bias: nil)
        let dense = try weight.floats().map(Double.init)
        let expected = (0..<tokens).map {
            Naive.linear(x[$0 * k..<($0 + 1) * k].map(Double.init), dense, n)
        }
        let all = try await sketch.executor(threads: 2).rows(tokens)
        #expect(difference(all, expected) < 1e-5)
        #expect(bits(try await sketch.executor(threads: 1).rows(1)) == bits(Array(all.prefix(1))))
    }

    @Test(arguments: [DType.f16, .bf16])
    func narrowActivationsAreRoundedAtTheBuffers(type: DType) async throws {
        let (n, k) = (20, 40)
        var random = SeededRandom(6)
        let x = try TensorData(random.floats(4 * k), shape: [4, k]).converted(to: type).floats()
        let w = random.floats(n * k)
        var narrow = PlanSketch()
        narrow.activations = type
        let rows = try narrow.rows(x, columns: k)
        let y = try narrow.buffer(n)
        narrow.step(
            "linear", [rows, try narrow.matrix("w", w, n, k), .none], [y], family: "linear_f32_f32")
        narrow.output("y", y)
        let expected = (0..<4).map {
            Naive.linear(x[$0 * k..<($0 + 1) * k].map(Double.init), w.map(Double.init), n)
        }
        let found = try await narrow.executor().rows(4)
        #expect(difference(found, expected) < (type == .f16 ? 1e-3 : 8e-3))
        let rounded = try TensorData(found.flatMap { $0 }, shape: [4 * n]).converted(to: type)
        #expect(try rounded.floats() == found.flatMap { $0 })
    }
}
