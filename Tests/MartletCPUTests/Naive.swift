// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Plain computation in f64, one row or one request at a time.
enum Naive {
    static func linear(_ x: [Double], _ w: [Double], _ rows: Int) -> [Double] {
        (0..<rows).map { n in
            var sum = 0.0
            for k in x.indices { sum += x[k] * w[n * x.count + k] }
            return sum
        }
    }

    static func rms(_ x: [Double], _ weight: [Double], epsilon: Double) -> [Double] {
        let mean = x.reduce(0) { $0 + $1 * $1 } / Double(x.count)
        return zip(x, weight).map { $0 * $1 / (mean + epsilon).squareRoot() }
    }

    /// Rows of x rounded to int8 in groups of 64.
    static func int8g64(_ x: [Float]) -> [Double] {
        stride(from: 0, to: x.count, by: 64).flatMap { start -> [Double] in
            let group = x[start..<min(start + 64, x.count)]
            let largest = group.map(abs).max() ?? 0
            guard largest > 0 else { return group.map { _ in 0 } }
            let scale = largest / 127
            return group.map { Double(($0 * (127 / largest)).rounded(.toNearestOrEven) * scale) }
        }
    }

    static func decode(_ tensor: QuantizedTensor) -> [Double] {
        let scheme = tensor.scheme
        let (n, k) = (tensor.rowCount, tensor.inputCount)
        let groups = scheme.groupCount(inputs: k)
        let size = scheme.groupSize(inputs: k)
        let codes = tensor.codes.array(of: UInt8.self)
        func floats(_ view: ByteView) -> [Double] {
            switch scheme.scaleType {
            case .f16: view.array(of: UInt16.self).map { Double(Half.float(bits: $0)) }
            case .bf16:
                view.array(of: UInt16.self).map { Double(Float(BFloat16(bitPattern: $0))) }
            default: view.array(of: Float.self).map(Double.init)
            }
        }
        let scales = floats(tensor.scales)
        let minima = scheme.zero == .floatMinimum ? floats(tensor.zeros) : []
        let zeros = scheme.zero == .integer ? tensor.zeros.array(of: UInt8.self) : []
        var values: [Double] = []
        for row in 0..<n {
            for input in 0..<k {
                let code: UInt8 =
                    scheme.bits == 8
                    ? codes[row * k + input]
                    : codes[row * ((k + 1) / 2) + input / 2] >> UInt8(input % 2 * 4) & 15
                let at = scheme.group == .tensor ? 0 : row * groups + input / size
                switch scheme.zero {
                case .none:
                    values.append((Double(code) - Double(1 << (scheme.bits - 1))) * scales[at])
                case .integer: values.append((Double(code) - Double(zeros[at])) * scales[at])
                case .floatMinimum: values.append(Double(code) * scales[at] + minima[at])
                }
            }
        }
        return values
    }

    /// Causal attention of one request, heads rotated in halves.
    struct Attention {
        var headCount: Int
        var kvHeadCount: Int
        var headDim: Int
        var frequencies: [Double]
        var window = 0

        func rotate(_ x: [Double], position: Int) -> [Double] {
            var y = x
            let half = frequencies.count
            for head in 0..<x.count / headDim {
                for i in 0..<half {
                    let angle = Double(position) * frequencies[i]
                    let (a, b) = (head * headDim + i, head * headDim + half + i)
                    y[a] = x[a] * cosine(angle) - x[b] * sine(angle)
                    y[b] = x[b] * cosine(angle) + x[a] * sine(angle)
                }
            }
            return y
        }

        func run(_ q: [[Double]], _ k: [[Double]], _ v: [[Double]]) -> [[Double]] {
            let q = q.enumerated().map { rotate($1, position: $0) }
            let k = k.enumerated().map { rotate($1, position: $0) }
            let share = headCount / kvHeadCount
            return q.indices.map { t in
                let first = window > 0 ? max(0, t + 1 - window) : 0
                return (0..<headCount).flatMap { head -> [Double] in
                    let from = head / share * headDim
                    let scores = (first...t).map { p in
                        (0..<headDim).reduce(0.0) {
                            $0 + q[t][head * headDim + $1] * k[p][from + $1]
                        }
                            / Double(headDim).squareRoot()
                    }
                    let top = scores.max() ?? 0
                    let weights = scores.map { exponential($0 - top) }
                    let sum = weights.reduce(0, +)
                    return (0..<headDim).map { d in
                        zip(first...t, weights).reduce(0.0) { $0 + $1.1 * v[$1.0][from + d] } / sum
                    }
                }
            }
        }
    }
}
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

func cosine(_ x: Double) -> Double { cos(x) }
func sine(_ x: Double) -> Double { sin(x) }
func exponential(_ x: Double) -> Double { exp(x) }
