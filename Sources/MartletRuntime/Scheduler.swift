// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore

/// Decides which tokens of which requests each step computes, and which KV pages they use.
///
/// A value without locks or clock. One rule: every request has computed, scheduled and wanted
/// positions; a step takes wanted ones that are not scheduled, single ones (answers) first, then
/// longer runs (prompts, in chunks) in order of admission, within tokens, requests and logit rows
/// of a step. Steps may be scheduled before earlier ones completed. Steps complete in order; pages
/// are released when the last step that names them has completed.
///
/// No more requests run at once than have a row in every step, so that each answer grows in each
/// step; `fairnessBound` follows from it.
package struct Scheduler: Sendable {
    /// Largest step.
    package let limits: StepLimits
    /// Page needs.
    package let budget: KVBudget
    /// How it chooses.
    package let options: SchedulerOptions
    /// What pausing costs, as far as it is known by now.
    package var preemptionCost: PreemptionCost
    /// Pages of the KV arena.
    package internal(set) var pool: BlockPool
    /// Pages of the host's arena.
    package internal(set) var hostPool: BlockPool
    /// Beginnings of prompts that are in the arena.
    package internal(set) var prefixes: PrefixCache
    /// Whether requests look for their beginnings among them.
    package let reusesPrefixes: Bool
    /// Positions that were not computed because they were known.
    package internal(set) var reusedTokenCount = 0
    /// Times that a request whose reader was behind gave its row to another.
    package internal(set) var asideCount = 0
    /// Times that a request was paused for its pages.
    package internal(set) var preemptionCount = 0
    /// Those of both whose pages were copied to the host.
    package internal(set) var swapCount = 0
    /// Request states by slot; slots of ended requests are used again.
    package internal(set) var states: [RequestState] = []
    /// Their pages.
    package internal(set) var tables: BlockTables

    /// Pages of a block that becomes known; kept for its memory.
    var pagesToShare: [Int32] = []
    var slotsByID: [RequestID: Int] = [:]
    var unusedSlots: [Int] = []
    /// Slots by priority, then arrival; the head is `waitingHead`.
    var waiting: [Int] = []
    var waitingHead = 0
    /// Slots in order of admission.
    var active: [Int] = [] { didSet { activeStamp += 1 } }
    /// Counts changes of `active`.
    private(set) var activeStamp = 0
    var draining: [Int] = []
    /// Slots of ended requests whose pages are yet to be given back.
    var ended: [Int] = []
    /// Whether ended requests keep their pages until `settle` or until pages are short: the next step need not wait for that.
    package var settlesLater = false
    /// Rows set aside for beams of running requests that do not exist yet.
    var awaitedRows = 0
    /// Copies to be done before the next step that begins, in order.
    var pendingOperations: [BlockOperation] = []
    /// Pages out of a window, released when the step has completed.
    var deferred: [(step: Int, page: Int32, slot: Int)] = []
    var reservedPages = 0
    var freeStateSlots: [Int32]
    let stateSlotCount: Int
    var nextNumber = 0
    var lastCompleted = -1
    /// Requests whose rows are computed for nothing.
    var paddingCount = 0
    var exclusiveCount = 0
    /// Whether a running request waits for pages that another gives up.
    var isShortOfPages = false
    var lastWasExclusive = false
    /// Whether the next prompts go by admission alone, whatever their priority.
    var runsByAdmission = false
    /// Whether a reader may be behind whose request has a row.
    var mayHavePaused = false

    /// An idle scheduler.
    ///
    /// - Parameters:
    ///   - limits: Largest step.
    ///   - streams: Entry points that requests run through, and their KV groups.
    ///   - pageCount: Pages of the arena.
    ///   - stateSlotCount: Slots of sampling state.
    ///   - options: How it chooses.
    /// - Throws: `MartletError` `.unsupported` for a KV group that cannot be served,
    ///   `.invalidArgument` for limits below 1.
    package init(
        limits: StepLimits, streams: RequestStreams, pageCount: Int, stateSlotCount: Int,
        options: SchedulerOptions = SchedulerOptions()
    ) throws {
        let groups = streams.groups
        guard groups.allSatisfy({ $0.blockSize > 0 }) else {
            throw MartletError(.unsupported, "a KV group has no block size")
        }
        guard limits.maxTokens > 0, limits.maxRequests > 0, limits.maxLogitRows > 0 else {
            throw MartletError(
                .invalidArgument,
                "a step of \(limits.maxTokens) tokens, \(limits.maxRequests) requests and "
                    + "\(limits.maxLogitRows) logit rows is too small: each must be at least 1")
        }
        self.limits = limits
        self.options = options
        preemptionCost = options.preemptionCost
        self.stateSlotCount = max(stateSlotCount, 0)
        budget = KVBudget(
            streams, maxTokens: limits.maxTokens, depth: max(options.stepsInFlight, 1))
        tables = BlockTables(groupCount: groups.count)
        pool = BlockPool(pageCount: pageCount)
        hostPool = BlockPool(pageCount: options.hostPageCount)
        prefixes = PrefixCache(groups: groups)
        // What a prompt's keys are depends on the source before it.
        reusesPrefixes = options.reusesPrefixes && !groups.isEmpty && streams.source == nil
        freeStateSlots = (0..<Int32(max(stateSlotCount, 0))).reversed()
    }

    /// Which waiting requests may start.
    package var policy: SchedulingPolicy { options.policy }

    /// Entry points that requests run through.
    package var streams: RequestStreams { budget.streams }

    /// Most rows that run at once: each has room in every step.
    package var rowLimit: Int {
        min(limits.maxRequests, limits.maxLogitRows, limits.maxTokens)
    }

    /// Steps within which any running request draws its next token, unless its reader is behind.
    ///
    /// All prompts that run may be before it, B L tokens; what answers leave of a step, at least
    /// T - B + 1 tokens, goes to them in order of admission. Prompts whose logits are wanted take
    /// O - B + 1 rows at least; prompts and sources that have steps of their own take every other step.
    /// Steps in flight come on top. Where priorities differ, every other step with prompts goes by them.
    /// A request that gives up its row or pages waits longer: `returnBound`.
    ///
    /// - Parameters:
    ///   - withPromptLogits: Whether anyone wants logits of a prompt.
    ///   - withNamedOutputs: Whether anyone wants named outputs.
    ///   - withPriorities: Whether requests have different priorities.
    package func fairnessBound(
        withPromptLogits: Bool = false, withNamedOutputs: Bool = false,
        withPriorities: Bool = false
    ) -> Int {
        let rows = rowLimit
        var share = limits.maxTokens - rows + 1
        if withPromptLogits { share = min(share, limits.maxLogitRows - rows + 1) }
        let steps = (rows * limits.maxContext + share - 1) / share + budget.depth
        let isShared = withNamedOutputs || streams.source != nil
        return steps * (isShared ? 2 : 1) * (withPriorities ? 2 : 1)
    }

    /// Steps within which a request that has started draws its next token, though it gave up its row or
    /// pages meanwhile.
    ///
    /// It waits at the head of its priority, so only those that run may be before it, and each of them
    /// ends within L times their bound. Among requests of one priority, whose readers are not behind.
    ///
    /// - Parameter bound: `fairnessBound`.
    package func returnBound(_ bound: Int) -> Int { (limits.maxContext + 1) * bound }

    /// Numbers of requests and pages now.
    package var counts: SchedulerCounts {
        SchedulerCounts(
            waiting: waiting.count - waitingHead, active: active.count, draining: draining.count,
            freePages: pool.freeCount, freeHostPages: hostPool.freeCount)
    }

    /// Whether no request is left, ended ones in flight included.
    package var isIdle: Bool { waiting.count == waitingHead && active.isEmpty && draining.isEmpty }

    /// Requests and beams that run and want tokens.
    package var advancing: [RequestID] {
        active.compactMap {
            states[$0].isPadding || states[$0].isPaused || states[$0].isPreempted
                ? nil : states[$0].id
        }
    }

    /// Requests and beams that have started and want tokens, whether they have a row now or not.
    package var started: [RequestID] {
        (active + waiting[waitingHead...].filter { states[$0].hasStarted }).compactMap {
            states[$0].isPadding || states[$0].isPaused ? nil : states[$0].id
        }
    }

    /// Where a request or beam is kept; nil if it has ended.
    package func slot(of id: RequestID) -> Int? { slotsByID[id] }
}
