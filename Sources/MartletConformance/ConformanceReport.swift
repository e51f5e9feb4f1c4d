// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What became of the cases.
package struct ConformanceReport: Sendable, CustomStringConvertible {
    /// What became of one case with one kernel family.
    package struct Entry: Sendable, CustomStringConvertible {
        /// Kinds of outcome.
        package enum Outcome: Sendable, Equatable {
            /// All numbers within tolerance, all variants equal bit for bit.
            case passed
            /// What was wrong.
            case failed(String)
            /// The catalog has no kernel for it: its reasons.
            case refused(String)
        }
        /// Op and detail.
        package let name: String
        /// Kernel family; empty if refused.
        package let family: String
        /// Kind of outcome.
        package let outcome: Outcome
        /// Largest error met; see `Tolerances`.
        package let largestError: Double
        /// Largest error allowed.
        package let tolerance: Double

        /// One line.
        package var description: String {
            let error = "error \(Float(largestError)) of \(Float(tolerance))"
            return switch outcome {
            case .passed: "pass \(name) [\(family)] \(error)"
            case .failed(let reason): "FAIL \(name) [\(family)] \(error): \(reason)"
            case .refused(let reason): "none \(name): \(reason)"
            }
        }
    }

    /// One entry per case and family that accepts it, or per case that all refuse.
    package var entries: [Entry] = []

    /// Entries that passed.
    package var passedCount: Int { entries.count { $0.outcome == .passed } }
    /// Entries that failed.
    package var failures: [Entry] {
        entries.filter { if case .failed = $0.outcome { true } else { false } }
    }
    /// Cases without a kernel.
    package var refusals: [Entry] {
        entries.filter { if case .refused = $0.outcome { true } else { false } }
    }

    /// Failures, then a line of counts.
    package var description: String {
        let counts =
            "\(passedCount) passed, \(failures.count) failed, \(refusals.count) without a kernel"
        return (failures.map(\.description) + [counts]).joined(separator: "\n")
    }
}
