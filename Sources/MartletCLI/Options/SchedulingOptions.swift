// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Who starts when, and what becomes of cached keys and values.
struct SchedulingOptions: ParsableArguments {
    @Option(
        help: """
            Which waiting requests start: guaranteedNoEvict, maxUtilization, static or \
            staticSkipping (default: guaranteedNoEvict). A list, such as \
            static,guaranteedNoEvict, runs a load under each.
            """,
        completion: .list(SchedulingPolicy.allCases.map(\.rawValue)))
    var policy: String?
    @Option(
        help: """
            What maxUtilization does with the blocks of a request that it pauses: recompute, swap \
            or automatic, the cheaper (default: automatic).
            """,
        completion: .list(PreemptionMode.allCases.map(\.rawValue)))
    var preemption: String?
    @Flag(help: "Compute beginnings of prompts again that earlier requests have computed.")
    var noPrefixCache = false

    /// The policies asked for, in their order.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the word.
    func policies() throws -> [SchedulingPolicy] {
        guard let policy else { return [.guaranteedNoEvict] }
        let found = try policy.split(separator: ",", omittingEmptySubsequences: false).map {
            try Self.choice(String($0), "--policy", SchedulingPolicy.self)
        }
        guard Set(found).count == found.count else {
            throw MartletError(
                .invalidArgument, "--policy \(policy) names one twice", mend: "Name each once")
        }
        return found
    }

    /// Adds the choices.
    ///
    /// - Parameter policy: One of `policies`; nil for the only one.
    /// - Throws: `MartletError` `.invalidArgument` for an unknown word, several policies where one is
    ///   due, or a flag that has no effect.
    func apply(to options: inout LoadOptions, policy chosen: SchedulingPolicy? = nil) throws {
        let policies = try policies()
        guard let only = chosen ?? (policies.count == 1 ? policies.first : nil) else {
            throw MartletError(
                .invalidArgument, "--policy names \(policies.count) policies, but one is used here",
                mend: "Name one; a load of martlet bench runs under several")
        }
        options.policy = only
        if let preemption {
            options.preemption = try Self.choice(preemption, "--preemption", PreemptionMode.self)
            guard policies.contains(.maxUtilization) else {
                throw MartletError(
                    .invalidArgument,
                    "--preemption has no effect: only maxUtilization pauses requests",
                    mend: "Add --policy maxUtilization")
            }
            // The other policies of a list never pause anyone.
            if only != .maxUtilization { options.preemption = .automatic }
        }
        if noPrefixCache { options.reusesPrefixes = false }
    }

    private static func choice<Value: RawRepresentable & CaseIterable>(
        _ text: String, _ flag: String, _ type: Value.Type
    ) throws -> Value where Value.RawValue == String {
        if let value = Value(rawValue: text) { return value }
        let names = Value.allCases.map(\.rawValue)
        throw MartletError(
            .invalidArgument, "\(flag) \(text) is not known",
            mend: "Use " + names.joined(separator: ", "))
    }
}
