// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Activation format `int8g64`: signed 8-bit codes with one f32 scale per 64 columns of a row.
///
/// Numerics: with amax = max |x| of the group, `scale = amax / 127` and
/// `code = round-half-even(x * (127 / amax))` in f32, so within -127...127. A group with amax below
/// 2^-100 has scale 0 and codes 0; one that is not finite has scale NaN and codes 0.
enum GroupedCodes {
    static let groupSize = 64

    /// Groups of a row.
    static func groupCount(columns: Int) -> Int { (columns + groupSize - 1) / groupSize }

    static func encode(_ values: [Float], columns: Int) -> (codes: [Int8], scales: [Float]) {
        var codes = [Int8](repeating: 0, count: values.count)
        var scales: [Float] = []
        let rows = columns > 0 ? values.count / columns : 0
        for row in 0..<rows {
            for start in stride(from: 0, to: columns, by: groupSize) {
                let range = row * columns + start..<row * columns + min(start + groupSize, columns)
                guard values[range].allSatisfy(\.isFinite) else {
                    scales.append(.nan)
                    continue
                }
                let largest = values[range].reduce(0) { max($0, abs($1)) }
                guard largest >= 0x1p-100 else {
                    scales.append(0)
                    continue
                }
                let inverse = 127 / largest
                for index in range {
                    let code = (values[index] * inverse).rounded(.toNearestOrEven)
                    codes[index] = Int8(max(-127, min(127, code)))
                }
                scales.append(largest / 127)
            }
        }
        return (codes, scales)
    }

    static func decode(_ codes: [Int8], scales: [Float], columns: Int) -> [Float] {
        let groups = groupCount(columns: columns)
        return codes.indices.map { index in
            let (row, column) = (index / columns, index % columns)
            return Float(codes[index]) * scales[row * groups + column / groupSize]
        }
    }
}
