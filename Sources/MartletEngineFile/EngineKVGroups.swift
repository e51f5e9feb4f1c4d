// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// The KV groups of an engine: those that its entry points name, each once.
///
/// A name means one group in the whole engine: what one entry point writes there, another may read.
package struct EngineKVGroups: Sendable {
    /// An entry point and the groups that it declares.
    package typealias Declaration = (entryPoint: String, groups: [KVGroup])

    /// The groups in order of first mention.
    package let groups: [KVGroup]
    /// Per entry point the place of each group that it declares.
    package let places: [[Int]]
    /// Per entry point what it does with groups, in its own order; empty where only declarations are known.
    package private(set) var uses: [[KVGroupUse]] = []

    /// Joins what entry points declare.
    ///
    /// - Throws: `MartletError` `.corrupt` naming both entry points where they describe a group differently.
    package init(_ declarations: [Declaration]) throws {
        var groups: [KVGroup] = []
        var owners: [String] = []
        places = try declarations.map { declaration in
            try declaration.groups.map { group in
                guard let place = groups.firstIndex(where: { $0.name == group.name }) else {
                    groups.append(group)
                    owners.append(declaration.entryPoint)
                    return groups.count - 1
                }
                guard groups[place] == group else {
                    throw MartletError(
                        .corrupt,
                        "entry points '\(owners[place])' and '\(declaration.entryPoint)' describe KV "
                            + "group '\(group.name)' differently: \(groups[place]) and \(group)",
                        mend: "Give the groups different names, or the same layers, heads and types"
                    )
                }
                return place
            }
        }
        self.groups = groups
    }

    /// Joins the groups of an engine's plans.
    ///
    /// - Throws: As the other initializer.
    package init(_ plans: [Plan]) throws {
        try self.init(plans.map { ($0.entryPoint, $0.kvGroups) })
        uses = zip(plans, places).map { plan, places in
            let written = plan.writtenGroups
            return places.enumerated().map {
                KVGroupUse(group: $1, isWritten: written.contains($0))
            }
        }
    }
}

extension Plan {
    /// Groups, by the plan's own numbers, that its steps write: all ops that name one do, but `attention`.
    fileprivate var writtenGroups: Set<Int> {
        Set(steps.compactMap { $0.op == "attention" ? nil : $0.attributes["group"]?.int })
    }
}
