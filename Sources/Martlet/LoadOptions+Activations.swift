// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension LoadOptions {
    /// The format asked for; without a word the targets' own, where they agree on one.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for a format that a target does not compute in.
    func activationFormat(for catalogs: [any KernelCatalog]) throws -> ActivationFormat? {
        let own = catalogs.map(\.defaultActivations)
        let common = own.first.flatMap { first in own.allSatisfy { $0 == first } ? first : nil }
        switch activations {
        case nil: return dtype == .f32 ? common : nil
        case "exact": return nil
        case let text?:
            guard let format = ActivationFormat(rawValue: text), format == common else {
                throw MartletError(
                    .invalidArgument,
                    "activations '\(text)' are not supported by "
                        + catalogs.map(\.target).joined(separator: " and "),
                    mend: "Use "
                        + (["exact", common?.rawValue].compactMap { $0 })
                        .joined(separator: " or "))
            }
            return format
        }
    }
}
