// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore
package import MartletEngineFile
package import MartletGraph

/// All entry points of a model compiled for one target, and the parameters that they share.
package struct TargetProgram: Sendable {
    /// What the engine's sections of this program are keyed by.
    package let target: EngineTarget
    /// One plan per entry point, in order.
    package let entries: [EmittedPlan]
    /// Parameters of all plans, each once, in order of first use.
    package let parameters: [ParameterRequest]

    /// The plans.
    package var plans: [Plan] { entries.map(\.plan) }

    /// Joins plans; what they share must come from the same place.
    ///
    /// - Throws: `MartletError` `.unsupported` if two plans mean different values by one parameter.
    init(_ entries: [EmittedPlan], for target: EngineTarget) throws {
        var table: [PlanParameter: ParameterRequest] = [:]
        var order: [ParameterRequest] = []
        for request in entries.flatMap(\.parameters) {
            if let known = table.updateValue(request, forKey: request.parameter) {
                guard known == request else {
                    func source(_ request: ParameterRequest) -> String {
                        request.expression?.description ?? "a constant"
                    }
                    throw MartletError(
                        .unsupported,
                        "two entry points make '\(request.name)' of \(source(known)) and of "
                            + source(request),
                        mend: "Give the modules that own them different names")
                }
            } else {
                order.append(request)
            }
        }
        self.target = target
        self.entries = entries
        parameters = order
    }
}

extension Compiler {
    /// Chooses kernels and plans memory for one target.
    ///
    /// - Parameters:
    ///   - graphs: Device-neutral graphs, one per entry point.
    ///   - catalog: The target's kernels.
    ///   - disabledRules: Rules to leave out; only those of the device matter here.
    /// - Throws: `MartletError` `.unsupported` naming a node that no kernel computes, or a KV group that
    ///   two entry points describe differently.
    package static func emit(
        _ graphs: [Graph], for catalog: any KernelCatalog, disabledRules: Set<String> = []
    ) throws -> TargetProgram {
        var groups = try KVLayout.groups(of: graphs)
        KVLayout.assignBlocks(to: &groups, catalog: catalog)
        return try TargetProgram(
            graphs.map { graph in
                var graph = graph
                try Pipeline.device(catalog, disabled: disabledRules).run(on: &graph)
                return try emit(graph, groups, for: catalog)
            }, for: EngineTarget(catalog.target))
    }

    private static func emit(
        _ graph: Graph, _ groups: [KVGroup], for catalog: any KernelCatalog
    ) throws -> EmittedPlan {
        var graph = graph
        graph.kvGroups = graph.kvGroups.map { own in
            groups.first { $0.name == own.name } ?? own
        }
        let selection = KernelSelection(catalog: catalog)
        try selection.legalize(&graph)
        try selection.copyStridedOperands(&graph)
        DeadCode.remove(from: &graph)
        try GraphVerifier.verify(graph)
        return try PlanEmitter.emit(graph, for: catalog)
    }
}
