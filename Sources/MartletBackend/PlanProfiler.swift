// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletEngineFile
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

/// An executor that can tell what each step of its plans takes.
package protocol ProfilingExecutor: PlanExecutor {
    /// Sums up the steps' times.
    var profiler: PlanProfiler { get }
}

extension ProfilingExecutor {
    /// Turns the timing of plan steps on or off; off at first.
    package var isProfiling: Bool {
        get { profiler.isOn }
        set { profiler.isOn = newValue }
    }

    /// What each step of an entry point's plan took since profiling began.
    package func profile(entryPoint: Int) -> [PlanStepProfile] { profiler.profile(of: entryPoint) }

    /// Forgets all timings.
    package func resetProfile() { profiler.reset() }
}

/// Sums up the time of plan steps.
package final class PlanProfiler: Sendable {
    private let plans: [Plan]
    private let catalog: any KernelCatalog
    private let costs = Mutex<[Int: [KernelCost?]]>([:])
    private let on = Atomic<Bool>(false)
    private let totals: Mutex<[[PlanStepProfile]]>

    /// A profiler of some plans, off at first.
    ///
    /// - Parameters:
    ///   - plans: Entry points, in the order that step records count them.
    ///   - catalog: Estimates bytes and operations.
    package init(_ plans: [Plan], catalog: any KernelCatalog) {
        self.plans = plans
        self.catalog = catalog
        totals = Mutex(plans.map(Self.empty))
    }

    private static func empty(_ plan: Plan) -> [PlanStepProfile] {
        plan.steps.enumerated().map { index, step in
            PlanStepProfile(
                step: index, op: step.op, family: step.family, path: step.path, nanoseconds: 0,
                runCount: 0, bytes: nil, operations: nil)
        }
    }

    /// Whether steps are to be timed.
    package var isOn: Bool {
        get { on.load(ordering: .acquiring) }
        set { on.store(newValue, ordering: .releasing) }
    }

    /// Adds one run of a plan.
    ///
    /// - Parameters:
    ///   - nanoseconds: Of each step of the plan.
    ///   - record: What it ran on.
    package func add(_ nanoseconds: [Int], of record: StepRecord) {
        let plan = record.stream
        let values = Dimension.Values(
            tokens: record.tokenCount, requests: record.requestCount,
            logitRows: record.logitRowCount, context: 0)
        let costs = costs.withLock { known in
            let found = known[plan] ?? plans[plan].costs(catalog)
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

    fileprivate func profile(of plan: Int) -> [PlanStepProfile] {
        totals.withLock { $0.indices.contains(plan) ? $0[plan] : [] }
    }

    fileprivate func reset() {
        totals.withLock { $0 = plans.map(Self.empty) }
    }
}

extension Plan {
    /// The cost that a catalog estimates for each step; nil where no family accepts it.
    fileprivate func costs(_ catalog: any KernelCatalog) -> [KernelCost?] {
        let families = Dictionary(
            catalog.families.map { ($0.op + "/" + $0.name, $0) }, uniquingKeysWith: { a, _ in a })
        return steps.map { step in
            guard let family = families[step.op + "/" + step.family],
                case .accepted(let cost, _) = family.evaluate(query(step))
            else { return nil }
            return cost
        }
    }

    private func query(_ step: PlanStep) -> KernelQuery {
        func type(_ operand: PlanOperand) -> TensorType? {
            switch operand {
            case .buffer(let index, _, let columns):
                let buffer = buffers[index]
                return ElementFormat(buffer.format).map {
                    TensorType($0, [buffer.rows, Dimension(columns)])
                }
            case .parameter(let index):
                let parameter = parameters[index]
                return ElementFormat(parameter.format).map {
                    TensorType($0, parameter.shape.map { Dimension($0) })
                }
            case .input(let name): return TensorType(.i32, [name == "logitRows" ? .O : .T])
            case .none: return nil
            }
        }
        return KernelQuery(
            op: step.op, attributes: step.attributes, operands: step.operands.map(type),
            isParameter: step.operands.map { if case .parameter = $0 { true } else { false } },
            results: step.results.compactMap(type))
    }
}
