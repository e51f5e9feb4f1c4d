// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
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
    /// One stage: passes, repeated until nothing changes where it says so.
    struct Stage: Sendable {
        let name: String
        let passes: [Pass]
        let repeats: Bool
    }

    /// A rule, or what is no pattern.
    struct Pass: Sendable {
        let name: String
        let apply: @Sendable (inout Graph) throws -> Int

        /// Applies a rule wherever it matches.
        static func rule(_ rule: RewriteRule) -> Pass {
            Pass(name: rule.name) { try rule.apply(to: &$0) }
        }
        /// Computes equal things once.
        static let merge = Pass(name: "common-subexpressions") {
            CommonSubexpressions.merge(in: &$0)
        }
        /// Drops what nothing reads; what rules replace they drop themselves.
        static let deadCode = Pass(name: "dead-code") { DeadCode.remove(from: &$0) }
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

    private init(_ stages: [Stage], without disabled: Set<String>) {
        // Merged weights exist only once folding has joined them.
        let disabled =
            disabled.contains("fold-constants") ? disabled.union(["merge-linears"]) : disabled
        self.stages = stages.map { stage in
            Stage(
                name: stage.name, passes: stage.passes.filter { !disabled.contains($0.name) },
                repeats: stage.repeats)
        }
    }

    private static func stage(_ name: String, _ passes: [Pass], repeats: Bool = true) -> Stage {
        Stage(name: name, passes: passes, repeats: repeats)
    }

    private static func rules(_ families: RuleFamily...) -> [Pass] {
        families.flatMap { $0.rules.map(Pass.rule) }
    }

    /// What makes the graph that an engine keeps of one that was traced; users' rules follow fusion.
    static func neutral(
        _ recipe: AppliedRecipe, userRules: [RewriteRule], disabled: Set<String>
    ) -> Pipeline {
        let formats = Pass(name: "recipe") {
            try recipe.recipe.applyToParameters(of: &$0, weights: recipe.weights)
        }
        let stages = [
            stage("clean", rules(.cleanup, .folding) + [.merge, .deadCode]),
            stage("recipe", [formats], repeats: false),
            stage("rows", rules(.rows) + [.merge]),
            stage("merge", rules(.linears, .folding)),
            stage("activations", [quantize(recipe.recipe), .merge], repeats: false),
            stage("fuse", rules(.attention, .norms, .quantization)),
            stage("user", userRules.map(Pass.rule)),
            finish,
        ]
        return Pipeline(stages, without: disabled)
    }

    /// What gives a kept graph other activation formats; everything else about it stays.
    static func activations(_ recipe: PrecisionRecipe, disabled: Set<String>) -> Pipeline {
        let plain = Pass(name: "plain-activations") { try PlainActivations.restore(in: &$0) }
        let stages = [
            stage("plain", [plain], repeats: false),
            stage("activations", [quantize(recipe), .merge], repeats: false),
            stage("fuse", rules(.quantization)), finish,
        ]
        return Pipeline(stages, without: disabled)
    }

    /// What a device's own fused forms make of a copy of the kept graph; what its kernels refuse all the
    /// same is decomposed when they are chosen.
    static func device(_ catalog: any KernelCatalog, disabled: Set<String>) -> Pipeline {
        let passes = deviceRules(catalog).map(Pass.rule) + [.deadCode]
        return Pipeline([stage("device", passes)], without: disabled)
    }

    private static var finish: Stage {
        stage("finish", rules(.cleanup) + [.merge, .deadCode])
    }

    private static func quantize(_ recipe: PrecisionRecipe) -> Pass {
        Pass(name: "quantize-activations") { try recipe.quantizeActivations(of: &$0) }
    }

    /// Rules whose op the device has kernels for.
    private static func deviceRules(_ catalog: any KernelCatalog) -> [RewriteRule] {
        let ops = Set(catalog.families.map(\.op))
        return RuleFamily.deviceFusion.rules.filter { rule in
            rule.deviceOp.map { ops.contains($0) } ?? true
        }
    }

    /// Names that `--disable-rule` takes whatever the device.
    public static var ruleNames: [String] {
        let families: [RuleFamily] = [
            .cleanup, .folding, .rows, .linears, .attention, .norms, .quantization,
        ]
        let names =
            families.flatMap { $0.rules.map(\.name) } + [Pass.merge.name, Pass.deadCode.name]
        return unique(names)
    }

    /// Names that `--disable-rule` takes for some devices: those of every device, and of their own rules.
    package static func knownRules(for catalogs: [any KernelCatalog]) -> [String] {
        unique(ruleNames + catalogs.flatMap { deviceRules($0).map(\.name) })
    }

    private static func unique(_ names: [String]) -> [String] {
        var seen: Set<String> = []
        return names.filter { seen.insert($0).inserted }
    }

    /// Runs all stages.
    ///
    /// - Parameters:
    ///   - graph: Changed in place.
    ///   - observe: Called after each pass that changed something.
    /// - Throws: What a rule or the verifier throws, naming the rule.
    func run(on graph: inout Graph, observe: (Record) -> Void = { _ in }) throws {
        for stage in stages {
            var changed = true
            var rounds = 0
            while changed {
                changed = false
                rounds += 1
                guard rounds <= Self.roundLimit else {
                    let names = stage.passes.map(\.name).joined(separator: ", ")
                    throw MartletError(
                        .unsupported,
                        "stage '\(stage.name)' still changes the graph after \(rounds - 1) rounds",
                        mend: "Two of its rules undo each other: \(names)")
                }
                for pass in stage.passes {
                    let count = try pass.apply(&graph)
                    guard count > 0 else { continue }
                    changed = true
                    try GraphVerifier.verify(graph)
                    observe(
                        Record(stage: stage.name, name: pass.name, count: count, graph: graph))
                }
                if !stage.repeats { break }
            }
        }
    }

    /// Rounds of one stage; real models need a handful.
    private static let roundLimit = 200
}
