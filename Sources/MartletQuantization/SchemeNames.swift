// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension SchemeRegistry {
    /// A named choice: how rows of so many inputs are coded.
    package struct Choice: Sendable {
        /// The name in full, as given.
        package let name: String
        /// The scheme for rows of K inputs.
        ///
        /// Throws `MartletError` `.invalidArgument` naming the groups that divide K.
        package let scheme: @Sendable (_ inputs: Int) throws -> QuantizationScheme
    }

    private static let groups = [128, 64, 32]

    /// Forms that a user may type.
    package static let forms =
        "int8, int4, each with :channel, :g32, :g64 or :g128, and :sym, :asym (minimum) or :zero"

    /// Reads what a user types: `int8`, `int4`, `int4:g64:asym`, `int8:g128` ...
    ///
    /// Without a group, int8 has one scale a channel and int4 the largest of 128, 64, 32 that divides K.
    ///
    /// - Throws: `MartletError` `.invalidArgument` listing the forms.
    package static func choice(_ text: String) throws -> Choice {
        let words = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard let base = words.first, base == "int8" || base == "int4" else {
            throw MartletError(
                .invalidArgument, "'\(text)' is no weight scheme", mend: "Forms: \(forms)")
        }
        let bits = base == "int8" ? 8 : 4
        var group: QuantizationScheme.GroupShape? = bits == 8 ? .channel : nil
        var zero = QuantizationScheme.ZeroKind.none
        var kinds: Set<Bool> = []
        for word in words.dropFirst() {
            guard kinds.insert(word == "channel" || word.hasPrefix("g")).inserted else {
                throw MartletError(
                    .invalidArgument, "'\(word)' in '\(text)' contradicts what stands before it",
                    mend: "Forms: \(forms)")
            }
            switch word {
            case "channel": group = .channel
            case "sym": zero = .none
            case "asym": zero = .floatMinimum
            case "zero": zero = .integer
            case "g32", "g64", "g128": group = .group(Int(word.dropFirst()) ?? 128)
            default:
                throw MartletError(
                    .invalidArgument, "'\(word)' in '\(text)' is not known", mend: "Forms: \(forms)"
                )
            }
        }
        return Choice(name: text) { [group, zero] inputs in
            let fitting = groups.filter { inputs % $0 == 0 }
            if let group {
                if case .group(let size) = group, inputs % size != 0 {
                    let names = fitting.map { "g\($0)" } + ["channel"]
                    throw MartletError(
                        .invalidArgument, "a group of \(size) does not divide \(inputs) inputs",
                        mend: "Use \(base) with \(names.joined(separator: ", "))")
                }
                let type: DType = group == .channel ? .f32 : .f16
                return QuantizationScheme(bits: bits, group: group, scaleType: type, zero: zero)
            }
            guard let size = fitting.first else {
                return QuantizationScheme(bits: bits, group: .channel, scaleType: .f32, zero: zero)
            }
            return QuantizationScheme(bits: bits, group: .group(size), scaleType: .f16, zero: zero)
        }
    }
}
