// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A log-probability of one token.
public struct TokenLogProbability: Sendable, Hashable, BitwiseCopyable {
    /// Token id.
    public var token: Int32
    /// Natural logarithm of its probability in the row as the model gave it, whatever the settings.
    public var logProbability: Float

    /// Pairs an id with its log-probability.
    public init(token: Int32, logProbability: Float) {
        self.token = token
        self.logProbability = logProbability
    }
}

/// What became of a logit row.
package enum RowStatus: Int32, Sendable {
    /// Fine.
    case ok = 0
    /// Logits were not finite; no token was sampled.
    case nonFinite = 1
    /// No token was asked for.
    case notSampled = 2
    /// Mask and bias forbid every token; no token was sampled.
    case noCandidate = 3
}

/// Results of one step, filled by the executor before completion.
///
/// `@unchecked Sendable`: one owner at a time, as for `StepRecord`.
package final class StepOutputs: @unchecked Sendable {
    /// `[O]`: sampled tokens; -1 where none.
    package var tokens: [Int32] = []
    /// `[O]`: state of each row.
    package var status: [RowStatus] = []
    /// `[O]`: log-probability of the sampled token, where asked for.
    package var logProbabilities: [Float] = []
    /// `[O]`: the most likely tokens, where asked for, best first.
    package var topLogProbabilities: [[TokenLogProbability]] = []
    /// `[B]`: draft tokens accepted; empty without speculation.
    package var acceptedCount: [Int32] = []
    /// Rows with `returnLogits`, in order: `[V]` f32 each.
    package var logits: [[Float]] = []
    /// Named outputs of the plan besides logits: `[rows][columns]` f32.
    package var named: [String: [[Float]]] = [:]
    /// Time from the step's inputs to its last kernel's end, in seconds; 0 where the device tells none.
    package var deviceSeconds: Double = 0
    /// Kernels that ran on the device; 0 on the CPU.
    package var kernelCount = 0
    /// Calls that started them: a graph of many kernels is one.
    package var launchCount = 0

    /// Empty results.
    package init() {}
}

/// Runs steps of a loaded engine on one device.
///
/// Knows plans, not models.
///
/// Asynchronous from the first day: `submit` returns at once, completion comes later on a thread of
/// the executor's, in submission order; at most `maxStepsInFlight` steps may be under way. A token
/// of the step before may be named in `tokenSource`, so the host need not wait for it.
package protocol PlanExecutor: AnyObject, Sendable {
    /// Largest step.
    var limits: StepLimits { get }
    /// KV groups of the engine, each once, in the order that step records list them.
    var kvGroups: [KVGroup] { get }
    /// Per entry point the groups that its steps write or read; a record fills only their sections.
    var groupUses: [[KVGroupUse]] { get }
    /// Pages of the KV arena; block ids of all groups are page numbers `0 ..< pageCount`.
    var pageCount: Int { get }
    /// Pages of the host arena for swapped blocks; 0 if swapping is not offered.
    var hostPageCount: Int { get }
    /// Entry points, in the order that `StepRecord.stream` counts.
    var entryPoints: [String] { get }
    /// Vocabulary size V of the logits; 0 if the engine has none.
    var vocabularySize: Int { get }
    /// H of rows that steps may give as embeddings; 0 if no entry point takes them.
    var embeddingSize: Int { get }
    /// Slots of sampling state.
    var stateSlotCount: Int { get }
    /// Steps that may be under way at once: 2 or more.
    var maxStepsInFlight: Int { get }
    /// How long the thread that submits may look for a completion before it sleeps; zero where its core is needed for steps.
    var spinDuration: Duration { get }
    /// What helps where logits are not finite; nil where the executor knows nothing.
    var nonFiniteMend: String? { get }

    /// Starts a step.
    ///
    /// - Parameters:
    ///   - step: The record; must stay untouched until completion.
    ///   - outputs: Filled before completion.
    ///   - completion: Called once, in submission order; an error here belongs to the device and
    ///     ends every request in flight, errors of single rows are in `outputs.status`.
    /// - Throws: `MartletError` if the step breaks a limit; nothing was started then.
    func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws
}

extension PlanExecutor {
    /// Every entry point writes all groups.
    package var groupUses: [[KVGroupUse]] {
        entryPoints.map { _ in kvGroups.indices.map { KVGroupUse(group: $0, isWritten: true) } }
    }
    /// No entry point takes embeddings.
    package var embeddingSize: Int { 0 }
    /// Threads that wait sleep.
    package var spinDuration: Duration { .zero }
    /// It computes in no type that ends before the activations' does.
    package var nonFiniteMend: String? { nil }
}

extension StepRecord {
    /// Reserves memory for the largest step of an executor, whichever entry point runs it.
    package convenience init(for executor: any PlanExecutor, positionPlanes: Int = 1) {
        self.init(
            limits: executor.limits, groups: executor.kvGroups, positionPlanes: positionPlanes,
            vocabularySize: executor.vocabularySize, embeddingSize: executor.embeddingSize)
    }

    /// Bytes of memory that a record for an executor reserves.
    package static func byteCount(for executor: any PlanExecutor, positionPlanes: Int = 1) -> Int {
        byteCount(
            limits: executor.limits, groups: executor.kvGroups, positionPlanes: positionPlanes,
            vocabularySize: executor.vocabularySize, embeddingSize: executor.embeddingSize)
    }
}
