// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile
import Synchronization

/// What one step of a plan took and moved, summed over the profiled runs.
package struct PlanStepProfile: Sendable, Hashable {
    /// Index in the plan.
    package var step: Int
    /// Op name.
    package var op: String
    /// Kernel family.
    package var family: String
    /// Module path that made the op.
    package var path: String
    /// Time, conversions and barriers included.
    package var nanoseconds: Int
    /// Runs.
    package var runCount: Int
    /// Bytes read and written, as the catalog estimates; nil where it has no estimate.
    package var bytes: Int?
    /// Multiplications and additions, as the catalog estimates.
    package var operations: Int?
}

/// Accumulates the time of plan steps; costs one clock reading per step when it is on.
///
/// `@unchecked Sendable`: totals are locked; a timer belongs to thread 0 of the team.
final class Profiler: @unchecked Sendable {
    /// Measures one run of a plan.
    final class Timer: @unchecked Sendable {
        private let profiler: Profiler
        private let plan: Int
        private var nanoseconds: [Int]
        private let clock = ContinuousClock()
        private var last: ContinuousClock.Instant

        fileprivate init(_ profiler: Profiler, plan: Int, steps: Int) {
            self.profiler = profiler
            self.plan = plan
            nanoseconds = [Int](repeating: 0, count: steps)
            last = clock.now
        }

        func mark(_ step: Int) {
            let now = clock.now
            let elapsed = (now - last).components
            nanoseconds[step] +=
                Int(elapsed.seconds) * 1_000_000_000
                + Int(elapsed.attoseconds / 1_000_000_000)
            last = now
        }

        func finish(_ state: StepState) {
            profiler.add(plan, nanoseconds, state)
        }
    }

    private let plans: [LoadedPlan]
    private let costs: Mutex<[Int: [KernelCost?]]> = Mutex([:])
    private let on = Atomic<Bool>(false)
    private let totals: Mutex<[[PlanStepProfile]]>

    init(_ plans: [LoadedPlan]) {
        self.plans = plans
        totals = Mutex(plans.map(Profiler.empty))
    }

    private static func empty(_ plan: LoadedPlan) -> [PlanStepProfile] {
        plan.plan.steps.enumerated().map { index, step in
            PlanStepProfile(
                step: index, op: step.op, family: step.family, path: step.path, nanoseconds: 0,
                runCount: 0, bytes: nil, operations: nil)
        }
    }

    var isOn: Bool {
        get { on.load(ordering: .acquiring) }
        set { on.store(newValue, ordering: .releasing) }
    }

    func begin(_ plan: Int) -> Timer? {
        isOn ? Timer(self, plan: plan, steps: plans[plan].plan.steps.count) : nil
    }

    private func add(_ plan: Int, _ nanoseconds: [Int], _ state: StepState) {
        let values = Dimension.Values(
            tokens: state.tokenCount, requests: state.requestCount,
            logitRows: state.logitRowCount, context: 0)
        let costs = costs.withLock { known in
            let found = known[plan] ?? plans[plan].costs()
            known[plan] = found
            return found
        }
        totals.withLock { totals in
            for step in nanoseconds.indices {
                totals[plan][step].nanoseconds += nanoseconds[step]
                totals[plan][step].runCount += 1
                guard let cost = costs[step] else { continue }
                totals[plan][step].bytes =
                    (totals[plan][step].bytes ?? 0) + (cost.bytes.evaluate(values) ?? 0)
                totals[plan][step].operations =
                    (totals[plan][step].operations ?? 0) + (cost.operations.evaluate(values) ?? 0)
            }
        }
    }

    func profile(of plan: Int) -> [PlanStepProfile] { totals.withLock { $0[plan] } }

    func reset() {
        totals.withLock { $0 = plans.map(Profiler.empty) }
    }
}
