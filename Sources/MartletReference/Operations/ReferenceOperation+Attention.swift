// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

extension ReferenceOperation {
    /// Turns pairs (a, b) of each head's first R columns: `(a c - b s, b c + a s)`.
    ///
    /// R = twice the number of frequencies; angle = position * frequency in f64, c and s times
    /// `magnitude` rounded once to f32. Style `half` pairs (i, i + R/2), `interleaved`
    /// (2i, 2i + 1).
    func rotary() throws -> ReferenceValue {
        let x = try operand(0)
        let positions = try operand(1).integers()
        let frequencies = try operand(2).floats()
        let headDim = try int("headDim")
        let magnitude = try number("magnitude")
        let isHalf = node.attributes["style"]?.string == "half"
        var values = try x.floats()
        try require(
            positions.count == x.rowCount, "\(positions.count) positions for \(x.rowCount) rows")
        let half = frequencies.count
        let columns = x.columnCount
        for (row, position) in positions.enumerated() {
            for (index, frequency) in frequencies.enumerated() {
                let angle = Double(position) * Double(frequency)
                let cosine = Double(Float(cos(angle) * magnitude))
                let sine = Double(Float(sin(angle) * magnitude))
                let (first, second) = isHalf ? (index, index + half) : (2 * index, 2 * index + 1)
                for head in stride(from: row * columns, to: (row + 1) * columns, by: headDim) {
                    let (a, b) = (Double(values[head + first]), Double(values[head + second]))
                    values[head + first] = Float(a * cosine - b * sine)
                    values[head + second] = Float(b * cosine + a * sine)
                }
            }
        }
        return try result(x.shape, values)
    }

    /// Stores the step's keys and values in each request's state.
    func writeCache(_ step: inout ReferenceStep) throws -> ReferenceValue {
        let keys = try operand(0).floats()
        let values = try operand(1).floats()
        let width = try operand(0).columnCount
        try require(
            keys.count == values.count && keys.count == step.tokens.count * width,
            "keys and values are not rows of the step's tokens")
        let (group, layer) = try cacheLayer()
        for (index, range) in step.ranges.enumerated() {
            let part = range.lowerBound * width..<range.upperBound * width
            try step.states[index].write(
                keys: keys[part], values: values[part], group: group, layer: layer,
                start: step.starts[index])
        }
        return ReferenceValue(.cache, [], .cache)
    }

    /// The KV group and layer that the node names.
    private func cacheLayer() throws -> (group: KVGroup, layer: Int) {
        let (group, layer) = (try int("group"), try int("layer"))
        guard groups.indices.contains(group), 0..<groups[group].layerCount ~= layer else {
            throw MartletError(.shapeMismatch, "there is no layer \(layer) in KV group \(group)")
        }
        return (groups[group], layer)
    }

    /// Attention of each row over its request's cached keys and values.
    ///
    /// A row at position p sees positions below `end` = p + 1 (causal) or below the request's
    /// length, and of these only the last `window` if that is not 0. Score: `scale * q.k`, soft-capped if
    /// `softCap` is not 0, plus `slope * (position - (end - 1))`. Query head h reads KV head
    /// `h / (headCount / kvHeadCount)`.
    func attention(_ step: ReferenceStep) throws -> ReferenceValue {
        let q = try operand(0)
        let queries = try q.floats()
        let slopes = try optional(3)?.floats()
        let headCount = try int("headCount")
        let headDim = try int("headDim")
        let shared = headCount / (try int("kvHeadCount"))
        let width = try int("kvHeadCount") * headDim
        let scale = try number("scale")
        let cap = try number("softCap")
        let window = try int("window")
        let (group, layer) = try cacheLayer()
        let isCausal = node.attributes["causal"]?.bool ?? true
        try require(
            headCount > 0 && headDim > 0 && q.rowCount == step.tokens.count,
            "queries are not rows of the step's tokens")
        try require(
            (slopes?.count ?? headCount) == headCount, "there are not \(headCount) slopes")
        var output = [Float](repeating: 0, count: queries.count)
        for (request, range) in step.ranges.enumerated() {
            let cache = step.states[request][group.name, layer]
            let length = cache.keys.count / width
            for row in range {
                let end = isCausal ? Int(step.positions[row]) + 1 : length
                let first = window > 0 ? max(0, end - window) : 0
                guard end <= length else {
                    throw MartletError(.shapeMismatch, "position \(end - 1) is not in the cache")
                }
                for head in 0..<headCount {
                    let start = row * headCount * headDim + head * headDim
                    let query = queries[start..<start + headDim]
                    let column = head / shared * headDim
                    var scores: [Double] = []
                    for position in first..<end {
                        let key = cache.keys[
                            position * width + column..<position * width + column + headDim]
                        var score = zip(query, key).reduce(0) { $0 + Double($1.0) * Double($1.1) }
                        score *= scale
                        if cap != 0 { score = cap * tanh(score / cap) }
                        if let slopes {
                            score += Double(slopes[head]) * Double(position - (end - 1))
                        }
                        scores.append(score)
                    }
                    let largest = scores.max() ?? 0
                    let weights = scores.map { exp($0 - largest) }
                    let sum = weights.reduce(0, +)
                    for d in 0..<headDim {
                        var total = 0.0
                        for (index, weight) in weights.enumerated() {
                            total +=
                                weight * Double(cache.values[(first + index) * width + column + d])
                        }
                        output[start + d] = sum == 0 ? 0 : Float(total / sum)
                    }
                }
            }
        }
        return try result(q.shape, output)
    }
}
