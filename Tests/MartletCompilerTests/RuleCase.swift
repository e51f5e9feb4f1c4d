// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// One rule on one small graph, as graph text.
struct RuleCase: Sendable, CustomTestStringConvertible {
    let rule: String
    let before: String
    let after: String

    init(_ rule: String, before: String, after: String = "") {
        self.rule = rule
        self.before = before
        self.after = after
    }

    var testDescription: String { "\(rule): \(before.split(separator: "\n").last ?? "")" }

    /// Every rewrite.
    static let all = rewritesOfShape + rewritesOfRows + rewritesOfFusion + rewritesForDevices
}
