// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCompiler
import MartletCore
import MartletGraph
import MartletModels
import MartletReference
import MartletTestSupport
import Testing

@Suite struct PipelineTests {
    private let weights = RandomWeights(seed: 2)

    private func optimize(_ change: (inout Compiler.Options) -> Void = { _ in }) throws -> Graph {
        var options = Compiler.Options()
        change(&options)
        return try Compiler(options: options).optimize(
            TinyModels.llama().trace(), weights: weights)
    }

    private func ops(_ graph: Graph, layer: Int) -> [String] {
        graph.nodes.filter {
            $0.path.hasPrefix("layers.\(layer).") && $0.op != "parameter"
        }.map(\.op)
    }

    /// The largest difference of two graphs' logits.
    private func difference(_ a: Graph, _ b: Graph) throws -> Double {
        var runners = try [a, b].map { try ReferenceRunner($0, weights: weights) }
        var random = SeededRandom(seed: 3)
        let step = [
            StepPart(0, random.tokens(9, below: 96)), StepPart(1, random.tokens(4, below: 96)),
        ]
        let (x, y) = (try runners[0].run(step), try runners[1].run(step))
        return Tolerance.difference(try x.floats("logits"), try y.floats("logits"))
    }

    @Test func opsOfALayer() throws {
        let graph = try optimize()
        // The layer's first norm takes up the residual of the layer before; the first has none.
        let rest = [
            "linear", "split", "cachedAttention", "linear", "addNorm", "linear", "split",
            "gatedActivation", "linear",
        ]
        #expect(ops(graph, layer: 0) == ["norm"] + rest)
        // In the last layer rows without logits end after attention.
        #expect(
            ops(graph, layer: 1).filter { $0 != "gatherRows" } == ["addNorm"] + rest)
        let counts = graph.opCounts
        #expect(counts["gatherRows"] == 2 && counts["linear"] == 9 && counts["addNorm"] == 4)
        #expect(counts["concat"] == nil && counts["add"] == nil && counts["rotary"] == nil)
        #expect(try difference(TinyModels.llama().trace(), graph) < Tolerance.sameMathematics)
    }

    @Test(arguments: Pipeline.ruleNames)
    func disabledRulesAreLeftOut(_ name: String) throws {
        // A rule that no graph calls for would seem to be left out whatever the flag does.
        let graphs =
            [try TinyModels.llama().trace()]
            + (try RuleCase.all.filter { $0.rule == name }.map { try RuleTests.graph($0.before) })
        var fired: Set<String> = []
        for graph in graphs { try fired.formUnion(passes(graph, without: []).names) }
        #expect(fired.contains(name), "no graph shows the rule")
        for graph in graphs {
            #expect(try !passes(graph, without: [name]).names.contains(name))
        }
        let (names, graph) = try passes(graphs[0], without: [name])
        #expect(!names.isEmpty)
        #expect(try difference(graphs[0], graph) < Tolerance.sameMathematics)
    }

    /// Passes that change a graph, and what becomes of it.
    private func passes(
        _ graph: Graph, without disabled: Set<String>
    ) throws -> (names: Set<String>, graph: Graph) {
        var names: Set<String> = []
        var options = Compiler.Options()
        options.disabledRules = disabled
        options.recipe.activations = .int8g64
        let result = try Compiler(options: options).optimize(graph, weights: weights) {
            names.insert($0.name)
        }
        try GraphVerifier.verify(result)
        return (names, result)
    }

    @Test func withoutAnyRuleTheModelIsTheSame() throws {
        let traced = try TinyModels.llama().trace()
        let graph = try optimize { $0.disabledRules = Set(Pipeline.ruleNames) }
        #expect(graph.text == traced.text)
    }

    @Test func unknownRuleIsNamed() {
        var options = Compiler.Options()
        options.disabledRules = ["add-norm", "no-such-rule"]
        let error = #expect(throws: MartletError.self) { try Compiler(options: options) }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.contains("no-such-rule") == true)
        #expect(error?.mend?.contains("merge-linears") == true)
    }

    @Test func aUsersRuleIsApplied() throws {
        let rule = RewriteRule(
            "half-gate", "gatedActivation(g, u) = gatedActivation(g / 2, u)",
            pattern: .op("gatedActivation", .any("gate"), .any("up"), as: "act"),
            where: { match, graph in
                match.value("gate").flatMap(graph.producer(of:))?.op != "scale"
            }
        ) { match, graph in
            let gate = try graph.insert(
                "scale", [match.value("gate")], ["factor": 0.5], path: match.root.path,
                before: match.root.id)[0]
            return try graph.insert(
                "gatedActivation", [gate, match.value("up")], match.root.attributes,
                path: match.root.path, before: match.root.id)
        }
        let graph = try optimize { $0.rules = [rule] }
        #expect(graph.opCounts["scale"] == 2)
        #expect(try difference(optimize(), graph) > 1e-3)
    }

    @Test func aRuleThatFailsLeavesTheGraph() throws {
        let rule = RewriteRule(
            "broken", "adds unlike things", pattern: .op("linear", .any("x"), as: "linear")
        ) { match, graph in
            try graph.insert(
                "add", [match.value("x"), match.root.value()], path: "here", before: match.root.id)
        }
        var graph = try TinyModels.llama().trace()
        let text = graph.text
        #expect(throws: MartletError.self) { try rule.apply(to: &graph) }
        #expect(graph.text == text)
    }

    @Test func rulesWithoutEndAreStopped() throws {
        func double(_ name: String, _ op: String, _ other: String) -> RewriteRule {
            RewriteRule(name, "", pattern: .op(op, .any("x"), as: "node")) { match, graph in
                try graph.insert(
                    other, [match.value("x")],
                    other == "scale" ? ["factor": 2.0] : ["cap": 2.0], path: match.root.path,
                    before: match.root.id)
            }
        }
        let gate = RewriteRule(
            "cap", "", pattern: .op("gatedActivation", .any("x"), .any("y"), as: "node"),
            where: { match, graph in
                !["softCap", "scale"].contains(
                    match.value("x").flatMap(graph.producer(of:))?.op ?? "")
            }
        ) { match, graph in
            let x = try graph.insert(
                "softCap", [match.value("x")], ["cap": 2.0], path: "", before: match.root.id)[0]
            return try graph.insert(
                "gatedActivation", [x, match.value("y")], match.root.attributes,
                path: match.root.path, before: match.root.id)
        }
        let own = #expect(throws: MartletError.self) {
            try optimize { $0.rules = [gate, double("forever", "softCap", "softCap")] }
        }
        #expect(own?.message.contains("'forever'") == true)
        let pair = #expect(throws: MartletError.self) {
            try optimize {
                $0.rules = [
                    gate, double("to", "softCap", "scale"), double("fro", "scale", "softCap"),
                ]
            }
        }
        #expect(pair?.message.contains("'user'") == true)
        #expect(pair?.mend?.contains("to, fro") == true)
    }

    @Test func aDeclinedReplacementLeavesNothing() throws {
        let rule = RewriteRule("shy", "", pattern: .op("norm", .any("x"), as: "node")) {
            match, graph in
            try graph.insert("scale", [match.value("x")], ["factor": 2.0], path: "", before: nil)
            return nil
        }
        var graph = try TinyModels.llama().trace()
        let text = graph.text
        #expect(try rule.apply(to: &graph) == 0)
        #expect(graph.text == text)
    }

    @Test func tapsBecomeOutputs() async throws {
        let llama = try TinyModels.llama()
        var options = Compiler.Options()
        options.taps = ["layers.*.attention", "norm"]
        let model = try CompiledModel(llama, weights: weights, options: options)
        let names = model.programs[0].graph.outputs.map(\.name)
        #expect(names.contains("layers.0.attention") && names.contains("layers.1.attention"))
        #expect(names.contains("norm"))
        var runner = StepRunner(try model.executor())
        var reference = try ReferenceRunner(model.programs[0].graph, weights: weights)
        var random = SeededRandom(seed: 6)
        let step = [StepPart(0, random.tokens(7, below: 96))]
        let found = try await runner.run(step)
        let expected = try reference.run(step)
        for name in names where name != "logits" && name != "tokens" {
            let rows = try #require(found.named[name])
            #expect(
                Tolerance.difference(rows.flatMap { $0 }, try expected.floats(name))
                    < Tolerance.exactLogits, "\(name)")
        }
    }

    /// In the last layer too a tap has a row per token: calibration wants them all.
    @Test func tapsShowEveryRow() async throws {
        var options = Compiler.Options()
        options.taps = ["layers.*"]
        let model = try CompiledModel(TinyModels.llama(), weights: weights, options: options)
        var runner = StepRunner(try model.executor())
        let found = try await runner.run([StepPart(0, [1, 2, 3, 4, 5])], wantsLogits: false)
        let taps = found.named.filter { $0.key.hasPrefix("layers.") }
        #expect(taps.keys.contains { $0.hasPrefix("layers.1.feedForward") } && taps.count >= 14)
        for (name, rows) in taps { #expect(rows.count == 5, "\(name)") }
        // Without taps those rows are dropped.
        #expect(try optimize().opCounts["gatherRows"] == 2)
    }

    @Test func tapsThatMatchNothingFail() throws {
        let error = #expect(throws: MartletError.self) {
            try optimize { $0.taps = ["norm", "layers.7.*"] }
        }
        #expect(error?.message.contains("layers.7.*") == true)
    }

    @Test(arguments: ["layers.0.*", "*.attention", "*", "l*s.?.attention"])
    func patternsOfTaps(_ pattern: String) throws {
        if pattern.contains("?") {
            #expect(throws: MartletError.self) { try optimize { $0.taps = [pattern] } }
            return  // `?` is an ordinary character.
        }
        let outputs = try optimize { $0.taps = [pattern] }.outputs.map(\.name).dropFirst(2)
        #expect(!outputs.isEmpty && Set(outputs).count == outputs.count)
        for name in outputs where pattern == "layers.0.*" { #expect(name.hasPrefix("layers.0.")) }
    }
}
