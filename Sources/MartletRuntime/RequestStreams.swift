// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Which of a request's two sequences of tokens a step computes.
package enum StreamRole: Sendable, Hashable {
    /// The prompt and the answer.
    case generating
    /// What an encoder reads, before the prompt begins.
    case source
}

/// The entry points that a request runs through, and the KV groups they write and read.
package struct RequestStreams: Sendable, Hashable {
    /// One entry point.
    package struct Stream: Sendable, Hashable {
        /// Its index in the engine.
        package let entryPoint: Int
        /// What it does with `groups`.
        package let uses: [KVGroupUse]
    }

    /// Groups that a request holds pages of.
    package let groups: [KVGroup]
    /// Where step records list each of them.
    let places: [Int]
    /// The entry point that draws tokens.
    package let generating: Stream
    /// The one that writes what the other only reads; nil where there is no such thing.
    package let source: Stream?
    /// Per group whether it holds the source's tokens, not those of prompt and answer.
    package let holdsSource: [Bool]

    /// One entry point that writes all groups.
    package init(groups: [KVGroup]) {
        self.groups = groups
        places = Array(groups.indices)
        generating = Stream(
            entryPoint: 0, uses: groups.indices.map { KVGroupUse(group: $0, isWritten: true) })
        source = nil
        holdsSource = groups.map { _ in false }
    }

    /// The entry point of an engine that draws tokens, and the one that it depends on.
    ///
    /// - Parameters:
    ///   - engineGroups: All groups of the engine.
    ///   - all: What each entry point does with them.
    ///   - entryPoint: The one that draws tokens.
    /// - Throws: `MartletError` `.unsupported` if no entry point writes all that this one only reads.
    package init(groups engineGroups: [KVGroup], uses all: [[KVGroupUse]], entryPoint: Int) throws {
        guard all.indices.contains(entryPoint) else {
            throw MartletError(.unsupported, "the engine has no entry point \(entryPoint)")
        }
        let lacking = all[entryPoint].filter { !$0.isWritten }.map(\.group)
        let writer = all.indices.first { index in
            index != entryPoint
                && lacking.allSatisfy {
                    all[index].contains(KVGroupUse(group: $0, isWritten: true))
                }
        }
        guard lacking.isEmpty || writer != nil else {
            throw MartletError(
                .unsupported, "no entry point writes the keys that entry point \(entryPoint) reads")
        }
        let sourceUses = lacking.isEmpty ? [] : writer.map { all[$0] } ?? []
        let written = Set(all[entryPoint].filter(\.isWritten).map(\.group))
        let places = Set((all[entryPoint] + sourceUses).map(\.group)).sorted()
        func stream(_ index: Int) -> Stream {
            Stream(
                entryPoint: index,
                uses: all[index].compactMap { use in
                    places.firstIndex(of: use.group).map {
                        KVGroupUse(group: $0, isWritten: use.isWritten)
                    }
                })
        }
        self.places = places
        groups = places.map { engineGroups[$0] }
        generating = stream(entryPoint)
        source = lacking.isEmpty ? nil : writer.map(stream)
        holdsSource = places.map { !written.contains($0) }
    }

    /// The entry point of a role.
    func stream(_ role: StreamRole) -> Stream {
        role == .source ? source ?? generating : generating
    }

    /// Groups that nobody reads once the source is computed.
    var transient: [Int] {
        groups.indices.filter { index in
            holdsSource[index] && !generating.uses.contains { $0.group == index }
        }
    }
}

/// How much of an encoder's tokens is computed: all in one step, for each of them sees all.
package struct SourceProgress: Sendable, Hashable {
    /// Tokens.
    package let wanted: Int
    /// Those in the KV cache.
    package internal(set) var computed = 0
    /// Those in the KV cache or in flight.
    package internal(set) var scheduled = 0

    init(wanted: Int) { self.wanted = wanted }

    /// Whether the prompt may begin.
    var isComputed: Bool { computed == wanted }

    /// Forgets what was computed.
    mutating func reset() { (computed, scheduled) = (0, 0) }
}
