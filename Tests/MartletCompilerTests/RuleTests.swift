// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCompiler
import MartletCore
import MartletGraph
import MartletModels
import MartletReference
import MartletTestSupport
import Testing

/// Every built-in rule on the smallest graph that shows it.
@Suite struct RuleTests {
    /// Applies a rule, or a pass that is none, once.
    static func apply(_ name: String, to graph: inout Graph) throws -> Int {
        if name == "common-subexpressions" { return CommonSubexpressions.merge(in: &graph) }
        if name == "dead-code" { return DeadCode.remove(from: &graph) }
        var count = 0
        for rule in rules where rule.name == name { count += try rule.apply(to: &graph) }
        return count
    }

    static let rules = [
        RuleFamily.cleanup, .folding, .rows, .linears, .attention, .norms, .quantization,
        .deviceFusion,
    ].flatMap(\.rules)

    /// A graph of some lines of text, with the constant that rows may name.
    static func graph(_ lines: String) throws -> Graph {
        try Graph(
            text: "graph g {\n\(lines)\n}\n",
            constants: ["f": TensorData([1, 0.25], shape: [2])])
    }

    private func numbers(_ graph: Graph) throws -> [String: [Float]] {
        var runner = try ReferenceRunner(graph, weights: RandomWeights(seed: 9))
        var random = SeededRandom(seed: 10)
        var result: [String: [Float]] = [:]
        // Two steps, so that what was cached is read.
        for step in [
            [StepPart(0, random.tokens(5, below: 12)), StepPart(1, random.tokens(3, below: 12))],
            [StepPart(0, random.tokens(2, below: 12))],
        ] {
            let outputs = try runner.run(step)
            for name in outputs.outputs.keys {
                result[name, default: []] += try outputs.floats(name)
            }
        }
        return result
    }

    @Test(arguments: RuleCase.all)
    func rewritesAsWritten(_ row: RuleCase) throws {
        let before = try Self.graph(row.before)
        let after = try Self.graph(row.after)
        try GraphVerifier.verify(before)
        try GraphVerifier.verify(after)
        var changed = before
        #expect(try Self.apply(row.rule, to: &changed) > 0)
        try GraphVerifier.verify(changed)
        #expect(changed.text == after.text)
        let expected = try numbers(before), found = try numbers(changed)
        #expect(expected.keys == found.keys && !expected.isEmpty)
        for (name, values) in expected {
            #expect(values.contains { $0 != values[0] }, "\(name) shows nothing")
            #expect(
                Tolerance.difference(try #require(found[name]), values)
                    < Tolerance.sameMathematics)
        }
        #expect(try Self.apply(row.rule, to: &changed) == 0)
        #expect(changed.text == after.text)
    }

    @Test(arguments: RuleCase.refusals + RuleCase.refusalsForDevices)
    func leavesAlone(_ row: RuleCase) throws {
        let before = try Self.graph(row.before)
        try GraphVerifier.verify(before)
        var changed = before
        #expect(try Self.apply(row.rule, to: &changed) == 0)
        #expect(changed.text == before.text)
    }

    @Test func everyRuleHasARow() {
        let names = Pipeline.ruleNames + RuleFamily.deviceFusion.rules.map(\.name)
        #expect(Set(RuleCase.all.map(\.rule)) == Set(names))
        // Rules that share a name differ in the op at their root: each has a row of its own.
        let rows = Dictionary(grouping: RuleCase.all, by: \.rule).mapValues(\.count)
        for (name, rules) in Dictionary(grouping: Self.rules, by: \.name) {
            #expect(rows[name, default: 0] >= rules.count, "\(name)")
        }
    }
}
