// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile
import MartletGraph

/// Tokens per block, so that blocks of all groups of an engine fit equal pages.
enum KVLayout {
    /// The groups that some entry points share, each once.
    ///
    /// - Throws: `MartletError` `.unsupported` for a group that two of them describe differently.
    static func groups(of graphs: [Graph]) throws -> [KVGroup] {
        let declarations = graphs.map { graph in
            // How many tokens a block has is not known yet.
            (
                entryPoint: graph.name,
                groups: graph.kvGroups.map { group in
                    var group = group
                    group.blockSize = 1
                    return group
                }
            )
        }
        do {
            return try EngineKVGroups(declarations).groups
        } catch let error as MartletError {
            throw MartletError(.unsupported, error.message, mend: error.mend)
        }
    }

    /// Gives each group as many tokens a block as a page of the widest one has room for.
    static func assignBlocks(to groups: inout [KVGroup], catalog: any KernelCatalog) {
        let unit = catalog.kvBlockSize
        let page = groups.map { $0.bytesPerToken * unit }.max() ?? 0
        for index in groups.indices {
            let bytes = groups[index].bytesPerToken * unit
            groups[index].blockSize = unit * max(1, bytes > 0 ? page / bytes : 1)
        }
    }
}
