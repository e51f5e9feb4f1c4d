// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import MartletReference
import Testing

@Suite struct ReferenceLinearTests {
    @Test(arguments: [(1, 1, 1), (3, 5, 7), (2, 9, 64), (4, 17, 130)])
    func linearIsTheSumOfProducts(rows: Int, outputs: Int, inputs: Int) throws {
        var random = SeededRandom(seed: 1)
        let x = random.floats(rows * inputs)
        let w = random.floats(outputs * inputs)
        let bias = random.floats(outputs)
        var probe = Probe()
        let y = try probe.rows(x, columns: inputs).linear(
            probe.weight("w", w, [outputs, inputs]), bias: probe.weight("b", bias, [outputs]))
        var expected: [Double] = []
        for r in 0..<rows {
            for n in 0..<outputs {
                var sum = Double(bias[n])
                for k in 0..<inputs { sum += Double(x[r * inputs + k]) * Double(w[n * inputs + k]) }
                expected.append(sum)
            }
        }
        #expect(isClose(try probe.evaluate(y), expected, tolerance: 1e-7))
    }

    static let schemes: [QuantizationScheme] = [4, 8].flatMap { bits in
        [.tensor, .channel, .group(32), .group(3)].flatMap { group in
            [DType.f32, .f16, .bf16].flatMap { type in
                [.none, .integer, .floatMinimum].map {
                    QuantizationScheme(bits: bits, group: group, scaleType: type, zero: $0)
                }
            }
        }
    }

    /// Encodes known codes, scales and zeros by hand and expects the formula's values.
    @Test(arguments: schemes)
    func quantizedWeightsDecodeByTheFormula(_ scheme: QuantizationScheme) throws {
        let rows = 3
        let inputs = 35
        let groups = scheme.groupCount(inputs: inputs)
        let scaleCount = scheme.group == .tensor ? 1 : rows * groups
        var random = SeededRandom(seed: 2)
        let codes = (0..<rows * inputs).map { _ in
            UInt8.random(in: 0...(scheme.bits == 4 ? 15 : 255), using: &random)
        }
        // Eighths are exact in every scale type.
        let scales = (0..<scaleCount).map { _ in Float(Int.random(in: 1...20, using: &random)) / 8 }
        let zeros = (0..<scaleCount).map { _ in Float(Int.random(in: 0...15, using: &random)) }
        var packed = codes
        if scheme.bits == 4 {
            packed = []
            for row in 0..<rows {
                for k in stride(from: 0, to: inputs, by: 2) {
                    let high = k + 1 < inputs ? codes[row * inputs + k + 1] : 0
                    packed.append(codes[row * inputs + k] | high << 4)
                }
            }
        }
        func stored(_ values: [Float]) throws -> ByteView {
            try TensorData(values, shape: [values.count]).converted(to: scheme.scaleType).bytes
        }
        let zeroBytes: ByteView =
            switch scheme.zero {
            case .none: ByteView()
            case .integer: ByteView(zeros.map { UInt8($0) })
            case .floatMinimum: try stored(zeros.map { -$0 / 4 })
            }
        let tensor = try QuantizedTensor(
            scheme: scheme, shape: [rows, inputs], codes: ByteView(packed), scales: stored(scales),
            zeros: zeroBytes)
        let size = scheme.groupSize(inputs: inputs)
        var expected: [Float] = []
        for row in 0..<rows {
            for k in 0..<inputs {
                let index = scheme.group == .tensor ? 0 : row * groups + k / size
                let code = Float(codes[row * inputs + k])
                switch scheme.zero {
                case .none: expected.append((code - (scheme.bits == 4 ? 8 : 128)) * scales[index])
                case .integer: expected.append((code - zeros[index]) * scales[index])
                case .floatMinimum: expected.append(code * scales[index] - zeros[index] / 4)
                }
            }
        }
        #expect(try tensor.referenceFloats() == expected)
    }

    @Test func inputOrderNamesGroups() throws {
        let scheme = QuantizationScheme(bits: 8, group: .group(2), scaleType: .f32)
        func tensor(_ order: [Int32]) throws -> QuantizedTensor {
            try QuantizedTensor(
                scheme: scheme, shape: [1, 4], codes: ByteView([129, 130, 131, 132] as [UInt8]),
                scales: ByteView([1, 10] as [Float]), inputOrder: ByteView(order))
        }
        #expect(try tensor([1, 0, 1, 0]).referenceFloats() == [10, 2, 30, 4])
        #expect(throws: MartletError.self) { try tensor([0, 0, 2, 0]).referenceFloats() }
    }

    @Test func embeddingPicksRowsOfPlainAndCodedTables() throws {
        let scheme = QuantizationScheme(bits: 8, group: .channel, scaleType: .f32)
        let table = try QuantizedTensor(
            scheme: scheme, shape: [3, 2],
            codes: ByteView([128, 129, 130, 131, 132, 133] as [UInt8]),
            scales: ByteView([1, 2, 3] as [Float]))
        let text = """
            graph g {
              %0 = parameter {name="t"} : int8.channel.f32[3, 2]
              %1 = input {name="tokens"} : i32[T]
              %2 = embedding(%0, %1) {dtype="f32"} : f32[T, 2]
              return y=%2
            }
            """
        let interpreter = try ReferenceInterpreter(
            Graph(text: text), weights: ["t": .quantized(table)])
        var requests = [ReferenceRequest(tokens: [2, 0, 1], state: interpreter.emptyState)]
        #expect(try interpreter.evaluate(&requests).floats("y") == [12, 15, 0, 1, 4, 6])
        requests[0] = ReferenceRequest(tokens: [3], state: interpreter.emptyState)
        let error = #expect(throws: MartletError.self) { try interpreter.evaluate(&requests) }
        #expect(error?.message == "token id 3 lies outside 0 ..< 3")
    }

    @Test func int8g64CodesAndScales() throws {
        var random = SeededRandom(seed: 3)
        var x = random.floats(3 * 130)
        for k in 64..<128 { x[k] = 0 }
        x[130 + 5] = .infinity
        var probe = Probe()
        let codes = probe.builder.record(
            "quantize", [try probe.rows(x, columns: 130)], ["format": "int8g64"])
        probe.builder.output("codes", codes)
        let value = try #require(try probe.evaluate().outputs["codes"])
        guard case .codes(let stored, let scales) = value.elements else {
            Issue.record("not codes")
            return
        }
        #expect(scales.count == 9)
        #expect(scales[1] == 0)
        #expect(stored[64..<128].allSatisfy { $0 == 0 })
        #expect(scales[3].isNaN)
        for group in [0, 2, 4, 5, 6, 7, 8] {
            let start = group / 3 * 130 + group % 3 * 64
            let range = start..<start + (group % 3 == 2 ? 2 : 64)
            #expect(scales[group] == (x[range].map(abs).max() ?? 0) / 127)
            #expect(stored[range].map { abs(Int($0)) }.max() == 127)
            for k in range {
                #expect(abs(Float(stored[k]) * scales[group] - x[k]) <= scales[group] * 0.5001)
            }
        }
    }

    @Test func int8g64RoundsHalvesToEven() throws {
        var probe = Probe()
        let x: [Float] = [127, 0.5, 1.5, -2.5, -126.5]
        let codes = probe.builder.record(
            "quantize", [try probe.rows(x, columns: 5)], ["format": "int8g64"])
        let back = probe.builder.record("dequantize", [codes], ["dtype": "f32"])
        #expect(try probe.evaluate(back) == [127, 0, 2, -2, -126])
    }
}
