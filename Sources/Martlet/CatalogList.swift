// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore

/// The targets that a program can compile for: a value, so that backends and tests add to it.
package struct CatalogList: Sendable {
    /// The device at hand: what models run on.
    package let device: any KernelCatalog
    /// Further targets that engines may be built for, and whose layouts are understood.
    package let others: [any KernelCatalog]

    /// Collects targets.
    package init(device: any KernelCatalog, others: [any KernelCatalog] = []) {
        self.device = device
        self.others = others
    }

    /// The targets of this version.
    package static let builtIn = Device.cpu.catalogs()

    /// All targets, the device at hand first.
    package var all: [any KernelCatalog] { [device] + others }

    /// The catalogs of some targets.
    ///
    /// - Parameter targets: Names; none stands for the device at hand.
    /// - Throws: `MartletError` `.invalidArgument` for an unknown name or one given twice.
    package func named(_ targets: [String]) throws -> [any KernelCatalog] {
        guard !targets.isEmpty else { return [device] }
        var seen: Set<String> = []
        return try targets.map { target in
            guard let catalog = all.first(where: { $0.target == target }) else {
                throw MartletError(
                    .invalidArgument, "there is no target '\(target)'",
                    mend: "Targets: \(all.map(\.target).joined(separator: ", "))")
            }
            guard seen.insert(target).inserted else {
                throw MartletError(.invalidArgument, "target '\(target)' is named twice")
            }
            return catalog
        }
    }
}
