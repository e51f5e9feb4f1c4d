// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletGraph

/// Rules that belong together; one file each.
public struct RuleFamily: Sendable {
    /// Name of the family.
    public let name: String
    /// Rules in order.
    public let rules: [RewriteRule]

    /// Groups rules.
    public init(_ name: String, _ rules: [RewriteRule]) {
        self.name = name
        self.rules = rules
    }
}

/// The order of everything that happens to a graph.
///
/// Nowhere else is order decided.
public struct Pipeline: Sendable {
    /// One stage: rules or a built-in pass, repeated until nothing changes.
    public struct Stage: Sendable {
        let name: String
        let passes: [Pass]
        let repeats: Bool
    }

    /// A rule, or a pass that is not a pattern.
    enum Pass: Sendable {
        case rule(RewriteRule)
        case merge
        case recipe
        case activations
    }

    /// What happened in one pass that changed something.
    public struct Record: Sendable {
        /// Stage and rule.
        public let stage: String
        /// Rule or pass name.
        public let name: String
        /// How often it applied.
        public let count: Int
        /// The graph afterwards.
        public let graph: Graph
    }

    let stages: [Stage]

    /// The built-in order, with users' rules after fusion.
    public init(userRules: [RewriteRule] = [], disabled: Set<String> = []) {
        // Merged weights exist only once folding has joined them.
        let disabled =
            disabled.contains("fold-constants") ? disabled.union(["merge-linears"]) : disabled
        func stage(_ name: String, _ passes: [Pass], repeats: Bool = true) -> Stage {
            let kept = passes.filter { pass in
                switch pass {
                case .rule(let rule): !disabled.contains(rule.name)
                case .merge: !disabled.contains("common-subexpressions")
                case .recipe, .activations: true
                }
            }
            return Stage(name: name, passes: kept, repeats: repeats)
        }
        func rules(_ families: RuleFamily...) -> [Pass] {
            families.flatMap { $0.rules.map(Pass.rule) }
        }
        stages = [
            stage("clean", rules(.cleanup, .folding) + [.merge]),
            stage("recipe", [.recipe], repeats: false),
            stage("rows", rules(.rows) + [.merge]),
            stage("merge", rules(.linears, .folding)),
            stage("activations", [.activations, .merge], repeats: false),
            stage("fuse", rules(.attention, .norms, .quantization)),
            stage("user", userRules.map(Pass.rule)),
            stage("finish", rules(.cleanup) + [.merge]),
        ]
    }

    /// Names that `--disable-rule` takes.
    public static var ruleNames: [String] {
        let families: [RuleFamily] = [
            .cleanup, .folding, .rows, .linears, .attention, .norms, .quantization,
        ]
        let names = families.flatMap { $0.rules.map(\.name) } + ["common-subexpressions"]
        var seen: Set<String> = []
        return names.filter { seen.insert($0).inserted }
    }

    /// Runs all stages.
    ///
    /// - Parameters:
    ///   - graph: Changed in place.
    ///   - recipe: Precisions of parameters and activations, and the weights they apply to.
    ///   - observe: Called after each pass that changed something.
    /// - Throws: What a rule or the verifier throws, naming the rule.
    func run(
        on graph: inout Graph, recipe: AppliedRecipe, observe: (Record) -> Void
    ) throws {
        for stage in stages {
            var changed = true
            var rounds = 0
            while changed {
                changed = false
                rounds += 1
                guard rounds <= Self.roundLimit else {
                    let names = stage.passes.map(name).joined(separator: ", ")
                    throw MartletError(
                        .unsupported,
                        "stage '\(stage.name)' still changes the graph after \(rounds - 1) rounds",
                        mend: "Two of its rules undo each other: \(names)")
                }
                for pass in stage.passes {
                    let (name, count) = try apply(pass, to: &graph, recipe: recipe)
                    guard count > 0 else { continue }
                    changed = true
                    try GraphVerifier.verify(graph)
                    observe(Record(stage: stage.name, name: name, count: count, graph: graph))
                }
                if !stage.repeats { break }
            }
        }
    }

    /// Rounds of one stage; real models need a handful.
    private static let roundLimit = 200

    private func name(_ pass: Pass) -> String {
        switch pass {
        case .rule(let rule): rule.name
        case .merge: "common-subexpressions"
        case .recipe: "recipe"
        case .activations: "quantize-activations"
        }
    }

    private func apply(
        _ pass: Pass, to graph: inout Graph, recipe: AppliedRecipe
    ) throws -> (String, Int) {
        switch pass {
        case .rule(let rule): (rule.name, try rule.apply(to: &graph))
        case .merge: ("common-subexpressions", CommonSubexpressions.merge(in: &graph))
        case .recipe:
            ("recipe", try recipe.recipe.applyToParameters(of: &graph, weights: recipe.weights))
        case .activations:
            ("quantize-activations", try recipe.recipe.quantizeActivations(of: &graph))
        }
    }
}
