// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import MartletReference

/// SplitMix64: the same numbers everywhere.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
    mutating func floats(_ count: Int) -> [Float] {
        (0..<count).map { _ in Float.random(in: -1..<1, using: &self) }
    }
}

/// Rows given as numbers, fed to a graph through an embedding table, and what it computes of them.
struct Probe {
    let builder: GraphBuilder
    private(set) var weights: [String: WeightValue] = [:]
    private var rowCount = 1

    init(dtype: DType = .f32) { builder = GraphBuilder(name: "probe", dtype: dtype) }

    /// Rows `[T, columns]` with these values: row t is looked up by token t.
    mutating func rows(_ values: [Float], columns: Int, name: String = "x") throws -> Tensor {
        rowCount = values.count / columns
        return builder.input("tokens").embedding(
            try weight(name, values, [values.count / columns, columns]))
    }

    mutating func weight(_ name: String, _ values: [Float], _ shape: [Int]) throws -> Tensor {
        weights[name] = .plain(try TensorData(values, shape: shape))
        return builder.parameter(name, shape)
    }

    /// One request with all rows.
    func evaluate(taps: (String) -> Bool = { _ in false }) throws -> ReferenceResult {
        let interpreter = try ReferenceInterpreter(builder.finish(), weights: weights)
        var requests = [
            ReferenceRequest(
                tokens: (0..<Int32(rowCount)).map { $0 }, state: interpreter.emptyState)
        ]
        return try interpreter.evaluate(&requests, taps: taps)
    }

    func evaluate(_ result: Tensor) throws -> [Float] {
        builder.output("y", result)
        return try evaluate().floats("y")
    }
}

/// Whether all numbers are near each other, relative to the larger of 1 and the expected one.
func isClose(_ a: [Float], _ b: [Double], tolerance: Double = 1e-6) -> Bool {
    a.count == b.count
        && zip(a, b).allSatisfy { abs(Double($0) - $1) <= tolerance * max(1, abs($1)) }
}
