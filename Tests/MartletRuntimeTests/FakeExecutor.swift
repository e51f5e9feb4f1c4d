// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Dispatch
import MartletBackend
import MartletCore
import MartletRuntime
import Synchronization

/// Runs the fake model on a queue of its own, each step when the gate lets it, in order.
///
/// `@unchecked Sendable`: `model` is touched on the serial queue only.
final class FakeExecutor: PlanExecutor, @unchecked Sendable {
    let limits: StepLimits
    let kvGroups: [KVGroup]
    let pageCount: Int
    let hostPageCount: Int
    let entryPoints = ["decode"]
    let vocabularySize = 48
    let stateSlotCount: Int
    let maxStepsInFlight: Int
    let model: Mutex<FakeModel>
    private let queue = DispatchQueue(label: "fake executor")
    private let gate: DispatchSemaphore?
    private let failingStep: Int?
    private let nonFiniteStep: Int?
    private let inFlight = Atomic<Int>(0)
    private let steps = Atomic<Int>(0)
    private let rows = Atomic<Int>(0)
    private let mostInFlight = Atomic<Int>(0)

    init(
        limits: StepLimits = StepLimits(
            maxTokens: 16, maxRequests: 8, maxLogitRows: 8, maxContext: 64),
        groups: [KVGroup] = [FakeModel.group(blockSize: 4)], pageCount: Int = 128,
        stateSlotCount: Int = 8, maxStepsInFlight: Int = 2, isGated: Bool = false,
        hostPageCount: Int = 0, failingStep: Int? = nil, nonFiniteStep: Int? = nil
    ) {
        self.limits = limits
        kvGroups = groups
        self.pageCount = pageCount
        self.hostPageCount = hostPageCount
        self.stateSlotCount = stateSlotCount
        self.maxStepsInFlight = maxStepsInFlight
        self.failingStep = failingStep
        self.nonFiniteStep = nonFiniteStep
        gate = isGated ? DispatchSemaphore(value: 0) : nil
        model = Mutex(
            FakeModel(
                limits: limits, streams: RequestStreams(groups: groups), pageCount: pageCount,
                stateSlotCount: stateSlotCount, hostPageCount: hostPageCount))
    }

    /// Lets so many gated steps run.
    func release(_ count: Int) {
        for _ in 0..<count { gate?.signal() }
    }

    var greatestDepth: Int { mostInFlight.load(ordering: .relaxed) }
    /// Steps submitted, and requests in them, since the start.
    var submittedSteps: Int { steps.load(ordering: .relaxed) }
    var submittedRows: Int { rows.load(ordering: .relaxed) }
    var violations: [String] { model.withLock { $0.violations } }
    func answer(_ request: GenerationRequest) -> [Int32] { model.withLock { $0.answer(request) } }

    func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws {
        let depth = inFlight.add(1, ordering: .relaxed).newValue
        _ = mostInFlight.max(depth, ordering: .relaxed)
        steps.add(1, ordering: .relaxed)
        rows.add(step.requestCount, ordering: .relaxed)
        queue.async { [self] in
            gate?.wait()
            if step.number == failingStep {
                inFlight.subtract(1, ordering: .relaxed)
                return completion(MartletError(.device, "the fake device caught fire"))
            }
            model.withLock { $0.execute(step, outputs: outputs) }
            if step.number == nonFiniteStep, !outputs.status.isEmpty {
                outputs.status[0] = .nonFinite
                outputs.tokens[0] = -1
            }
            if step.number == nonFiniteStep {
                for row in outputs.logits.indices { outputs.logits[row][0] = .nan }
            }
            outputs.deviceSeconds = 0.001
            (outputs.kernelCount, outputs.launchCount) = (7, 3)
            outputs.named["rows"] = (0..<step.tokenCount).map { [Float($0)] }
            inFlight.subtract(1, ordering: .relaxed)
            completion(nil)
        }
    }
}

/// Text of a token: three letters, so that stop strings cross tokens.
struct FakeDecoding: TokenDecoding {
    struct Stream: TokenTextStream {
        mutating func append(_ token: Int32) -> String { FakeDecoding.piece(token) }
        mutating func finish() -> String { "." }
    }

    static func piece(_ token: Int32) -> String {
        let letters = Array("abcdefg")
        return (0..<3).map { String(letters[(Int(token) * 5 + $0 * 3) % 7]) }.joined()
    }

    func makeTextStream() -> any TokenTextStream { Stream() }
}
