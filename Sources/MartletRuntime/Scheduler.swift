// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
package import MartletCore

/// Decides which tokens of which requests each step computes, and which KV pages they use.
///
/// A value without locks or clock. One rule: every request has computed, scheduled and wanted
/// positions; a step takes wanted ones that are not scheduled, single ones (answers) first, then
/// longer runs (prompts, in chunks) in order of arrival, within tokens, requests and logit rows of
/// a step. Steps may be scheduled before earlier ones completed. Steps complete in order; pages are
/// released when the last step that names them has completed.
package struct Scheduler: Sendable {
    /// Largest step.
    package let limits: StepLimits
    /// Page needs.
    package let budget: KVBudget
    /// Which waiting requests may start.
    package let policy: SchedulingPolicy
    /// Pages of the KV arena.
    package internal(set) var pool: BlockPool
    /// Beginnings of prompts that are in the arena.
    package internal(set) var prefixes: PrefixCache
    /// Whether requests look for their beginnings among them.
    package let reusesPrefixes: Bool
    /// Positions that were not computed because they were known.
    package internal(set) var reusedTokenCount = 0
    /// Times that a request gave up its pages.
    package internal(set) var preemptionCount = 0
    /// Request states by slot; slots of ended requests are used again.
    package internal(set) var states: [RequestState] = []

    var slotsByID: [RequestID: Int] = [:]
    var unusedSlots: [Int] = []
    /// Slots in order of arrival; the head is `waitingHead`.
    var waiting: [Int] = []
    var waitingHead = 0
    /// Slots in order of admission.
    var active: [Int] = []
    var draining: [Int] = []
    /// Pages out of a window, released when the step has completed.
    var deferred: [(step: Int, page: Int32, slot: Int)] = []
    var reservedPages = 0
    var freeStateSlots: [Int32]
    let stateSlotCount: Int
    var nextNumber = 0
    var lastCompleted = -1

    /// An idle scheduler.
    ///
    /// - Parameters:
    ///   - limits: Largest step.
    ///   - groups: KV groups, all of kind `selfAttention`.
    ///   - pageCount: Pages of the arena.
    ///   - stateSlotCount: Slots of sampling state.
    ///   - stepsInFlight: Steps that may be scheduled and not completed, at least 1.
    ///   - policy: Which waiting requests may start.
    ///   - reusesPrefixes: Whether a prompt's beginning that is in the arena is not computed again.
    /// - Throws: `MartletError` `.unsupported` for a KV group that cannot be served.
    package init(
        limits: StepLimits, groups: [KVGroup], pageCount: Int, stateSlotCount: Int,
        stepsInFlight: Int = 2, policy: SchedulingPolicy = .guaranteedNoEvict,
        reusesPrefixes: Bool = true
    ) throws {
        guard groups.allSatisfy({ $0.kind == .selfAttention && $0.blockSize > 0 }) else {
            throw MartletError(
                .unsupported, "a KV group holds an encoder's tokens or has no block size")
        }
        guard limits.maxTokens > 0, limits.maxRequests > 0, limits.maxLogitRows > 0 else {
            throw MartletError(
                .invalidArgument,
                "a step of \(limits.maxTokens) tokens, \(limits.maxRequests) requests and "
                    + "\(limits.maxLogitRows) logit rows is too small: each must be at least 1")
        }
        self.limits = limits
        self.policy = policy
        self.stateSlotCount = max(stateSlotCount, 0)
        budget = KVBudget(groups: groups, maxTokens: limits.maxTokens, depth: max(stepsInFlight, 1))
        pool = BlockPool(pageCount: pageCount)
        prefixes = PrefixCache(groups: groups)
        self.reusesPrefixes = reusesPrefixes && !groups.isEmpty
        freeStateSlots = (0..<Int32(max(stateSlotCount, 0))).reversed()
    }

    /// Numbers of requests and pages now.
    package var counts: SchedulerCounts {
        SchedulerCounts(
            waiting: waiting.count - waitingHead, active: active.count, draining: draining.count,
            freePages: pool.freeCount)
    }

    /// Whether no request is left, ended ones in flight included.
    package var isIdle: Bool { waiting.count == waitingHead && active.isEmpty && draining.isEmpty }

    /// Checks that a request can ever run, and how many answer tokens its context leaves.
    ///
    /// - Throws: `MartletError` `.limitExceeded` naming the number, the limit and the flag.
    package func admissibleTokens(_ request: GenerationRequest) throws -> Int {
        let prompt = request.prompt.count
        let least = min(request.settings.maxTokens, 1)
        guard prompt > 0 else {
            throw MartletError(
                .invalidArgument, "the prompt has no tokens, but must have at least 1")
        }
        guard prompt <= limits.maxContext - least else {
            throw MartletError(
                .limitExceeded,
                "the prompt has \(prompt) tokens, but the context of \(limits.maxContext) holds at "
                    + "most \(limits.maxContext - least) beside the answer",
                mend: "Raise --max-context or shorten the prompt",
                context: ["promptTokens": "\(prompt)", "limit": "\(limits.maxContext)"])
        }
        let maxTokens = max(min(request.settings.maxTokens, limits.maxContext - prompt), 0)
        let needed = pagesNeeded(prompt: prompt, maxTokens: maxTokens)
        guard needed <= pool.pageCount else {
            throw MartletError(
                .limitExceeded,
                "prompt and answer of \(prompt) + \(maxTokens) tokens need \(needed) KV pages,"
                    + " but there are only \(pool.pageCount)",
                mend: "Raise --kv-cache-memory or lower --max-output-len",
                context: ["pages": "\(needed)", "limit": "\(pool.pageCount)"])
        }
        if request.settings.needsHistory, stateSlotCount == 0 {
            throw MartletError(
                .unsupported, "the engine has no sampling state, which penalties need")
        }
        return maxTokens
    }

    func pagesNeeded(prompt: Int, maxTokens: Int) -> Int {
        budget.pageCount(positions: prompt + max(maxTokens - 1, 0))
    }

    /// Adds a request to the waiting ones.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if it can never run, `.invalidArgument` if its
    ///   name is taken.
    package mutating func submit(_ id: RequestID, _ request: GenerationRequest) throws {
        let maxTokens = try admissibleTokens(request)
        guard slotsByID[id] == nil else {
            throw MartletError(.invalidArgument, "\(id) is already under way")
        }
        var state = RequestState(
            id: id, request: request, maxTokens: maxTokens,
            reservedPages: pagesNeeded(prompt: request.prompt.count, maxTokens: maxTokens),
            groupCount: budget.groups.count)
        state.sharesPrefix = sharesPrefix(request)
        let slot: Int
        if let unused = unusedSlots.popLast() {
            slot = unused
            states[slot] = state
        } else {
            slot = states.count
            states.append(state)
        }
        slotsByID[id] = slot
        waiting.append(slot)
    }

    /// Ends a request, by a stop string or the caller's wish; results in flight will be dropped.
    ///
    /// - Returns: False if no such request waits or runs.
    @discardableResult
    package mutating func finish(_ id: RequestID) -> Bool {
        guard let slot = slotsByID[id], states[slot].phase != .draining else { return false }
        finish(slot: slot)
        return true
    }

    /// Ends all requests.
    package mutating func finishAll() {
        for slot in Array(slotsByID.values) where states[slot].phase != .draining {
            finish(slot: slot)
        }
    }

    /// Whether a request uses known beginnings: not one that wants logits of all its prompt.
    func sharesPrefix(_ request: GenerationRequest) -> Bool {
        reusesPrefixes && !request.settings.returnContextLogits
    }

    /// Tokens of history that a step's record holds.
    var historyLimit: Int { limits.maxTokens + limits.maxContext }

    mutating func finish(slot: Int) {
        if states[slot].phase == .waiting {
            if let index = waiting[waitingHead...].firstIndex(of: slot) {
                waiting.remove(at: index)
            }
        } else if let index = active.firstIndex(of: slot) {
            active.remove(at: index)
        }
        states[slot].phase = .draining
        if states[slot].inFlight == 0 {
            retire(slot)
        } else {
            draining.append(slot)
        }
    }

    /// Gives back all that an ended request holds.
    mutating func retire(_ slot: Int) {
        share(slot, atEnd: true)
        releasePages(slot)
        reservedPages -= states[slot].admitted ? states[slot].reservedPages : 0
        slotsByID[states[slot].id] = nil
        states[slot].phase = .unused
        unusedSlots.append(slot)
    }
}
