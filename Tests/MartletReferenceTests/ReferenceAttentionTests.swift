// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import MartletReference
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct ReferenceAttentionTests {
    /// Heads and options of one attention.
    struct Shape: Sendable, CustomTestStringConvertible {
        var headCount = 4
        var kvHeadCount = 2
        var headDim = 6
        var window = 0
        var softCap = 0.0
        var hasSlopes = false
        var isCausal = true
        var rotary = "half"
        var kvType = DType.f32
        var testDescription: String {
            "\(headCount)/\(kvHeadCount) w\(window) c\(softCap) alibi \(hasSlopes)"
                + " causal \(isCausal) \(rotary) \(kvType.rawValue)"
        }
    }

    static let shapes: [Shape] = [
        Shape(), Shape(kvHeadCount: 4), Shape(kvHeadCount: 1), Shape(window: 3),
        Shape(window: 1, rotary: "none"), Shape(softCap: 0.5), Shape(hasSlopes: true),
        Shape(isCausal: false), Shape(rotary: "interleaved"), Shape(kvType: .f16),
        Shape(window: 5, softCap: 1, hasSlopes: true, kvType: .bf16),
    ]

    static let tokenCount = 9
    static let frequencies: [Float] = [1, 0.3]

    /// q, k, v by tables; cachedAttention of them.
    static func interpreter(_ shape: Shape) throws -> ReferenceInterpreter {
        var random = SeededRandom(seed: 6)
        var probe = Probe()
        let builder = probe.builder
        _ = builder.kvGroup(
            KVGroup(
                layerCount: 2, kvHeadCount: shape.kvHeadCount, headDim: shape.headDim,
                scheme: KVScheme(dtype: shape.kvType)))
        var rows: [Tensor] = []
        for (name, heads) in [
            ("q", shape.headCount), ("k", shape.kvHeadCount), ("v", shape.kvHeadCount),
        ] {
            let columns = heads * shape.headDim
            rows.append(
                try probe.rows(random.floats(tokenCount * columns), columns: columns, name: name))
        }
        let slopes =
            shape.hasSlopes
            ? try probe.weight("slopes", random.floats(shape.headCount), [shape.headCount]) : nil
        let constant = builder.constant("f", try TensorData(frequencies, shape: [2]))
        let attributes: [String: AttributeValue] = [
            "group": 0, "layer": 1, "headCount": .int(shape.headCount),
            "kvHeadCount": .int(shape.kvHeadCount), "headDim": .int(shape.headDim), "scale": 0.7,
            "window": .int(shape.window), "softCap": .float(shape.softCap),
            "causal": .bool(shape.isCausal), "style": .string(shape.rotary), "magnitude": 1.25,
        ]
        builder.output(
            "y",
            builder.record(
                "cachedAttention",
                rows + [
                    builder.input("positions"), shape.rotary == "none" ? nil : constant, slopes,
                ],
                attributes))
        return try ReferenceInterpreter(builder.finish(), weights: probe.weights)
    }

    /// The whole request by full matrices and masks, in f64.
    static func naive(_ shape: Shape) throws -> [Double] {
        var random = SeededRandom(seed: 6)
        let (heads, kvHeads, dim) = (shape.headCount, shape.kvHeadCount, shape.headDim)
        func matrix(_ heads: Int) -> [[[Double]]] {
            let values = random.floats(tokenCount * heads * dim)
            return (0..<tokenCount).map { t in
                (0..<heads).map { h in (0..<dim).map { Double(values[(t * heads + h) * dim + $0]) }
                }
            }
        }
        var (q, k, v) = (matrix(heads), matrix(kvHeads), matrix(kvHeads))
        let slopes = shape.hasSlopes ? random.floats(heads).map { Double($0) } : []
        func turned(_ x: [Double], _ position: Int) -> [Double] {
            var y = x
            for (i, frequency) in frequencies.enumerated() where shape.rotary != "none" {
                let (a, b) = shape.rotary == "half" ? (i, i + 2) : (2 * i, 2 * i + 1)
                let angle = Double(position) * Double(frequency)
                y[a] = 1.25 * (x[a] * cos(angle) - x[b] * sin(angle))
                y[b] = 1.25 * (x[b] * cos(angle) + x[a] * sin(angle))
            }
            return y
        }
        func stored(_ x: [Double]) throws -> [Double] {
            try TensorData(x.map { Float($0) }, shape: [x.count]).converted(to: shape.kvType)
                .floats()
                .map { Double($0) }
        }
        for t in 0..<tokenCount {
            q[t] = q[t].map { turned($0, t) }
            k[t] = try k[t].map { try stored(turned($0, t)) }
            v[t] = try v[t].map { try stored($0) }
        }
        var result: [Double] = []
        for t in 0..<tokenCount {
            for h in 0..<heads {
                let kv = h * kvHeads / heads
                var total = [Double](repeating: 0, count: dim)
                var sum = 0.0
                for s in 0..<tokenCount {
                    let last = shape.isCausal ? t : tokenCount - 1
                    if s > last || (shape.window > 0 && s <= last - shape.window) { continue }
                    var score = (0..<dim).reduce(0.0) { $0 + q[t][h][$1] * k[s][kv][$1] } * 0.7
                    if shape.softCap > 0 { score = shape.softCap * tanh(score / shape.softCap) }
                    if shape.hasSlopes { score -= slopes[h] * Double(last - s) }
                    sum += exp(score)
                    for d in 0..<dim { total[d] += exp(score) * v[s][kv][d] }
                }
                result += total.map { $0 / sum }
            }
        }
        return result
    }

    @Test(arguments: shapes)
    func equalsFullMatrices(_ shape: Shape) throws {
        let interpreter = try Self.interpreter(shape)
        var requests = [
            ReferenceRequest(tokens: (0..<9).map { $0 }, state: interpreter.emptyState)
        ]
        let y = try interpreter.evaluate(&requests).floats("y")
        // f16 and bf16 caches: a key may round to the other neighbour after an f32 rotation.
        let tolerance = shape.kvType == .f32 ? 2e-6 : 2e-3
        #expect(isClose(y, try Self.naive(shape), tolerance: tolerance))
        let width = shape.kvHeadCount * shape.headDim
        #expect(requests[0].state.keys(layer: 1).count == 9 * width)
        #expect(requests[0].state.keys(layer: 0).isEmpty)
    }

    /// Any division of the tokens into steps gives the same bits.
    @Test(
        arguments: shapes.filter(\.isCausal),
        [[9], [1, 8], [4, 1, 1, 3], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    func chunksEqualTheWhole(_ shape: Shape, chunks: [Int]) throws {
        let interpreter = try Self.interpreter(shape)
        var whole = [ReferenceRequest(tokens: (0..<9).map { $0 }, state: interpreter.emptyState)]
        let expected = try interpreter.evaluate(&whole).floats("y")
        var (start, state, y) = (0, interpreter.emptyState, [Float]())
        for chunk in chunks {
            var step = [
                ReferenceRequest(
                    tokens: (start..<start + chunk).map { Int32($0) }, start: start, state: state)
            ]
            y += try interpreter.evaluate(&step).floats("y")
            state = step[0].state
            start += chunk
        }
        #expect(y == expected)
        #expect(state.keys(layer: 1) == whole[0].state.keys(layer: 1))
        #expect(state.values(layer: 1) == whole[0].state.values(layer: 1))
    }

    /// Requests packed in one step, one decoding while another begins, equal the same ones alone.
    @Test(arguments: shapes)
    func packedRequestsDoNotMix(_ shape: Shape) throws {
        let interpreter = try Self.interpreter(shape)
        func alone(_ steps: [[Int32]]) throws -> [[Float]] {
            var state = interpreter.emptyState
            var start = 0
            return try steps.map { tokens in
                var step = [ReferenceRequest(tokens: tokens, start: start, state: state)]
                defer {
                    state = step[0].state
                    start += tokens.count
                }
                return try interpreter.evaluate(&step).floats("y")
            }
        }
        let a = try alone([[3, 1, 4], [1]])
        let b = try alone([[5, 8]])
        let c = try alone([[2, 6, 5, 3, 5]])
        var step = [ReferenceRequest(tokens: [3, 1, 4], state: interpreter.emptyState)]
        _ = try interpreter.evaluate(&step)
        var packed = [
            ReferenceRequest(tokens: [5, 8], state: interpreter.emptyState),
            ReferenceRequest(tokens: [1], start: 3, state: step[0].state),
            ReferenceRequest(tokens: [2, 6, 5, 3, 5], state: interpreter.emptyState),
        ]
        let y = try interpreter.evaluate(&packed).floats("y")
        #expect(y == b[0] + a[1] + c[0])
    }

    @Test func replacedPositionsForgetLaterOnes() throws {
        let interpreter = try Self.interpreter(Shape())
        var step = [ReferenceRequest(tokens: [1, 2, 3, 4], state: interpreter.emptyState)]
        _ = try interpreter.evaluate(&step)
        step[0].tokens = [7]
        step[0].start = 2
        step[0].logitRows = [0]
        let y = try interpreter.evaluate(&step).floats("y")
        var other = [ReferenceRequest(tokens: [1, 2, 7], state: interpreter.emptyState)]
        #expect(y == Array(try interpreter.evaluate(&other).floats("y").suffix(y.count)))
        #expect(step[0].state.keys(layer: 1) == other[0].state.keys(layer: 1))
    }

    @Test(arguments: [(1, "gap"), (-1, "negative"), (Int.max, "overflow")])
    func badPositionsAreRefused(start: Int, reason: String) throws {
        let interpreter = try Self.interpreter(Shape())
        var step = [ReferenceRequest(tokens: [1, 2], start: start, state: interpreter.emptyState)]
        #expect(throws: MartletError.self, "\(reason)") { try interpreter.evaluate(&step) }
    }
}
