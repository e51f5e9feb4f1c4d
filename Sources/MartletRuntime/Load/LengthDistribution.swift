// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// How long prompts or answers of a load are.
public enum LengthDistribution: Sendable, Hashable {
    /// All of one length.
    case fixed(Int)
    /// Any length of a range, equally often.
    case uniform(ClosedRange<Int>)
    /// Lengths whose logarithms are equally often anywhere in the range's: short ones are common.
    case logUniform(ClosedRange<Int>)

    /// Reads `128`, `uniform:16-512` or `log:16-512`.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the text.
    public init(_ text: String) throws {
        let wrong = MartletError(
            .invalidArgument, "'\(text)' is no length",
            mend: "Write a number, uniform:A-B or log:A-B, such as log:16-512, each from "
                + "\(Self.limits.lowerBound) to \(Self.limits.upperBound)")
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        if parts.count == 1 {
            guard let value = Int(text), Self.limits.contains(value) else { throw wrong }
            self = .fixed(value)
            return
        }
        let ends = parts[1].split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, ends.count == 2, let low = ends[0], let high = ends[1],
            low <= high, Self.limits.contains(low), Self.limits.contains(high)
        else { throw wrong }
        switch parts[0] {
        case "uniform": self = .uniform(low...high)
        case "log": self = .logUniform(low...high)
        default: throw wrong
        }
    }

    private static let limits = 1...(1 << 24)

    /// A length.
    func draw(_ random: inout LoadRandom) -> Int {
        switch self {
        case .fixed(let value): return value
        case .uniform(let range):
            let width = Double(range.upperBound) - Double(range.lowerBound) + 1
            let value = Int128(range.lowerBound) + Int128(random.unit() * width)
            return min(Int(clamping: value), range.upperBound)
        case .logUniform(let range):
            // Lengths begin at 1.
            guard range.upperBound > 0 else { return range.upperBound }
            let low = LoadRandom.log(Double(max(range.lowerBound, 1)))
            let high = LoadRandom.log(Double(range.upperBound) + 1)
            let value = LoadRandom.exp(low + random.unit() * (high - low))
            return min(max(Int(clamping: Int128(value)), range.lowerBound), range.upperBound)
        }
    }

    /// The longest length.
    public var longest: Int {
        switch self {
        case .fixed(let value): value
        case .uniform(let range), .logUniform(let range): range.upperBound
        }
    }
}
