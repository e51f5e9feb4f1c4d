// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile

/// A one-layer LLaMA with random weights, as a plan and as plain f64 computation.
struct TinyModel {
    let vocabulary = 70
    let hidden = 48
    let heads = 6
    let kvHeads = 2
    let headDim = 8
    let feed = 80
    let window: Int?
    var frequencies: [Float] { (0..<headDim / 2).map { Float(1) / Float(1 << (2 * $0)) } }
    private var weights: [String: [Float]] = [:]

    init(seed: UInt64, window: Int? = nil) {
        self.window = window
        var random = SeededRandom(seed)
        let qkv = (heads + 2 * kvHeads) * headDim
        for (name, count, scale) in [
            ("embedding", vocabulary * hidden, 1), ("qkv", qkv * hidden, 0.4),
            ("o", hidden * heads * headDim, 0.3), ("gateUp", 2 * feed * hidden, 0.3),
            ("down", hidden * feed, 0.2), ("norm1", hidden, 1), ("norm2", hidden, 1),
            ("norm3", hidden, 1),
        ] as [(String, Int, Float)] {
            weights[name] = random.floats(count, scale: scale)
        }
    }

    private func values(_ name: String) -> [Double] { (weights[name] ?? []).map(Double.init) }

    /// The plan; every plain op of attention by itself where `fused` is false.
    func sketch(
        fused: Bool = true, activations: DType = .f32, kv: DType = .f32,
        blockSize: Int = 16, tap: Bool = false, rounding: Rounding = .none
    ) throws -> PlanSketch {
        var s = PlanSketch()
        s.activations = activations
        s.plan.kvGroups = [
            KVGroup(
                layerCount: 1, kvHeadCount: kvHeads, headDim: headDim,
                scheme: KVScheme(dtype: kv), window: window, blockSize: blockSize)
        ]
        func matrix(_ name: String, _ n: Int, _ k: Int) throws -> PlanOperand {
            try s.matrix(name, weights[name] ?? [], n, k)
        }
        let (q, kvWidth) = (heads * headDim, kvHeads * headDim)
        let table = try matrix("embedding", vocabulary, hidden)
        let x = try s.buffer(hidden)
        s.step("embedding", [table, .input("tokens")], [x])
        let normed = try s.buffer(hidden)
        let norm: [String: AttributeValue] = ["kind": "rms", "epsilon": 1e-5]
        s.step("norm", [x, try s.vector("norm1", weights["norm1"] ?? []), .none], [normed], norm)
        let qkv = try s.buffer(q + 2 * kvWidth)
        s.step(
            "linear", [normed, try matrix("qkv", q + 2 * kvWidth, hidden), .none], [qkv],
            family: "linear_f32_f32")
        let attended = try attention(&s, qkv, fused: fused, rounding: rounding)
        let projected = try s.buffer(hidden)
        s.step(
            "linear", [attended, try matrix("o", hidden, q), .none], [projected],
            family: "linear_f32_f32")
        let sum = try s.buffer(hidden)
        let normed2 = try s.buffer(hidden)
        s.step(
            "addNorm", [projected, x, try s.vector("norm2", weights["norm2"] ?? []), .none],
            [sum, normed2], norm)
        let gateUp = try s.buffer(2 * feed)
        s.step(
            "linear", [normed2, try matrix("gateUp", 2 * feed, hidden), .none], [gateUp],
            family: "linear_f32_f32")
        guard case .buffer(let merged, _, _) = gateUp else { throw Missing() }
        let gated = try s.buffer(feed)
        s.step(
            "gatedActivation",
            [
                .buffer(merged, offset: 0, columns: feed),
                .buffer(merged, offset: feed, columns: feed),
            ], [gated], ["kind": "silu"])
        let down = try s.buffer(hidden)
        s.step(
            "linear", [gated, try matrix("down", hidden, feed), .none], [down],
            family: "linear_f32_f32")
        let last = try s.buffer(hidden)
        s.step("add", [down, sum], [last])
        let wanted = try s.buffer(hidden, rows: .O)
        s.step("gatherRows", [last, .input("logitRows")], [wanted])
        let final = try s.buffer(hidden, rows: .O)
        s.step(
            "norm", [wanted, try s.vector("norm3", weights["norm3"] ?? []), .none], [final], norm)
        let logits = try s.buffer(vocabulary, rows: .O)
        s.step("linear", [final, table, .none], [logits], family: "linear_f32_f32")
        let tokens = try s.buffer(1, rows: .O, format: .plain(.i32))
        s.step("sample", [logits], [tokens])
        s.output("logits", logits)
        if tap { s.output("qkv", qkv) }
        return s
    }

    /// Where the result of attention is rounded to int8g64.
    enum Rounding {
        case none, inside, after
    }

    private func attention(
        _ s: inout PlanSketch, _ qkv: PlanOperand, fused: Bool, rounding: Rounding
    ) throws -> PlanOperand {
        guard case .buffer(let merged, _, _) = qkv else { throw Missing() }
        let (width, kvWidth) = (heads * headDim, kvHeads * headDim)
        let q = PlanOperand.buffer(merged, offset: 0, columns: width)
        let k = PlanOperand.buffer(merged, offset: width, columns: kvWidth)
        let v = PlanOperand.buffer(merged, offset: width + kvWidth, columns: kvWidth)
        let inverse = try s.vector("frequencies", frequencies)
        let result = try s.buffer(width)
        let cache: [String: AttributeValue] = [
            "group": 0, "layer": 0, "kvHeadCount": .int(kvHeads), "headDim": .int(headDim),
        ]
        let shape: [String: AttributeValue] = [
            "headCount": .int(heads), "scale": .float(1 / Double(headDim).squareRoot()),
            "window": .int(window ?? 0), "softCap": 0.0, "causal": true,
        ]
        let rotary: [String: AttributeValue] = ["style": "half", "magnitude": 1.0]
        if rounding != .none {
            let coded = try s.buffer(width, format: .activation(.int8g64))
            var attributes = cache.merging(shape) { a, _ in a }.merging(rotary) { a, _ in a }
            if rounding == .inside { attributes["format"] = "int8g64" }
            s.step(
                "cachedAttention", [q, k, v, .input("positions"), inverse, .none],
                [rounding == .inside ? coded : result], attributes)
            if rounding == .after {
                s.step(
                    "quantize", [result], [coded], ["format": "int8g64"], family: "quantize_int8g64"
                )
            }
            let plain = try s.buffer(width)
            s.step("dequantize", [coded], [plain], family: "dequantize_int8g64")
            return plain
        }
        if fused {
            s.step(
                "cachedAttention", [q, k, v, .input("positions"), inverse, .none], [result],
                cache.merging(shape) { a, _ in a }.merging(rotary) { a, _ in a })
            return result
        }
        let turnedQ = try s.buffer(width)
        let turnedK = try s.buffer(kvWidth)
        let head: [String: AttributeValue] = ["headDim": .int(headDim)]
        let turn = rotary.merging(head) { a, _ in a }
        s.step("rotary", [q, .input("positions"), inverse], [turnedQ], turn)
        s.step("rotary", [k, .input("positions"), inverse], [turnedK], turn)
        s.step("kvWrite", [turnedK, v], [.none], cache)
        s.step(
            "attention", [turnedQ, .none, .input("positions"), .none], [result],
            cache.merging(shape) { a, _ in a })
        return result
    }

    /// Logits after each token, computed plainly.
    func logits(_ tokens: [Int32]) -> [[Double]] {
        let (width, kvWidth) = (heads * headDim, kvHeads * headDim)
        let table = values("embedding")
        let x = tokens.map { Array(table[Int($0) * hidden..<(Int($0) + 1) * hidden]) }
        let qkv = x.map {
            Naive.linear(
                Naive.rms($0, values("norm1"), epsilon: 1e-5), values("qkv"), width + 2 * kvWidth)
        }
        let attended = Naive.Attention(
            headCount: heads, kvHeadCount: kvHeads, headDim: headDim,
            frequencies: frequencies.map(Double.init), window: window ?? 0
        ).run(
            qkv.map { Array($0[..<width]) }, qkv.map { Array($0[width..<width + kvWidth]) },
            qkv.map { Array($0[(width + kvWidth)...]) })
        return zip(x, attended).map { x, attended in
            let sum = zip(Naive.linear(attended, values("o"), hidden), x).map(+)
            let gateUp = Naive.linear(
                Naive.rms(sum, values("norm2"), epsilon: 1e-5), values("gateUp"), 2 * feed)
            let gated = (0..<feed).map {
                gateUp[$0] / (1 + exponential(-gateUp[$0])) * gateUp[feed + $0]
            }
            let last = zip(Naive.linear(gated, values("down"), hidden), sum).map(+)
            return Naive.linear(
                Naive.rms(last, values("norm3"), epsilon: 1e-5), table, vocabulary)
        }
    }
}
