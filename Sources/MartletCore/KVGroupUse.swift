// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What an entry point does with a KV group of the engine.
package struct KVGroupUse: Sendable, Hashable {
    /// Index among the engine's groups.
    package var group: Int
    /// Whether steps write keys and values there; else they only read what another entry point wrote.
    package var isWritten: Bool

    /// Pairs a group with what is done to it.
    package init(group: Int, isWritten: Bool) {
        self.group = group
        self.isWritten = isWritten
    }
}
