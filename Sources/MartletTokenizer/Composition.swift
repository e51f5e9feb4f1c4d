// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Unicode's composed form (NFC) of scalars.
///
/// Source: Unicode Standard Annex 15. Marks are those that Hugging Face tokenizers knows.
struct Composition: Sendable {
    /// The one table, decoded at first use.
    static let shared = Composition()

    private var classes: [UInt32: UInt8] = [:]
    private var parts: [UInt32: (UInt32, UInt32)] = [:]
    private var composed: [UInt64: UInt32] = [:]

    private init() {
        var numbers = UnicodeNumbers(compositionData)
        func next() -> UInt32? { numbers.next().map { UInt32(truncatingIfNeeded: $0) } }
        var code: UInt32 = 0
        for _ in 0..<(next() ?? 0) {
            guard let step = next(), let value = next() else { return }
            code += step
            classes[code] = UInt8(truncatingIfNeeded: value)
        }
        code = 0
        while let step = next(), let first = next(), let second = next(), let composes = next() {
            code += step
            parts[code] = (first, second)
            if composes == 1 { composed[UInt64(first) << 32 | UInt64(second)] = code }
        }
    }

    /// The composed form.
    func compose(_ scalars: [UInt32]) -> [UInt32] {
        var output: [UInt32] = []
        for scalar in scalars { decompose(scalar, &output) }
        order(&output)
        return join(output)
    }

    private func decompose(_ code: UInt32, _ output: inout [UInt32]) {
        if 0xAC00..<0xD7A4 ~= code {
            let index = code - 0xAC00
            output += [0x1100 + index / 588, 0x1161 + index % 588 / 28]
            if index % 28 != 0 { output.append(0x11A7 + index % 28) }
        } else if let (first, second) = parts[code] {
            decompose(first, &output)
            if second != 0 { decompose(second, &output) }
        } else {
            output.append(code)
        }
    }

    /// Sorts each run of marks by class; marks of equal class stay in place.
    private func order(_ scalars: inout [UInt32]) {
        var start = 0
        while start < scalars.count {
            guard classes[scalars[start]] != nil else {
                start += 1
                continue
            }
            var end = start
            while end < scalars.count, classes[scalars[end]] != nil { end += 1 }
            let sorted = scalars[start..<end].enumerated().sorted {
                let (a, b) = (classes[$0.element] ?? 0, classes[$1.element] ?? 0)
                return (a, $0.offset) < (b, $1.offset)
            }
            scalars.replaceSubrange(start..<end, with: sorted.map(\.element))
            start = end
        }
    }

    private func join(_ scalars: [UInt32]) -> [UInt32] {
        var output: [UInt32] = []
        var starter: Int?
        var lastClass: UInt8?
        for scalar in scalars {
            let ccc = classes[scalar] ?? 0
            // A mark of the same or a higher class in between blocks.
            if let starter, lastClass.map({ $0 < ccc }) ?? true,
                let joined = pair(output[starter], scalar)
            {
                output[starter] = joined
                continue
            }
            if ccc == 0 { starter = output.count }
            lastClass = ccc == 0 ? nil : ccc
            output.append(scalar)
        }
        return output
    }

    private func pair(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if 0x1100..<0x1113 ~= first, 0x1161..<0x1176 ~= second {
            return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28
        }
        if 0xAC00..<0xD7A4 ~= first, (first - 0xAC00) % 28 == 0, 0x11A8..<0x11C3 ~= second {
            return first + second - 0x11A7
        }
        return composed[UInt64(first) << 32 | UInt64(second)]
    }
}
