// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend

/// What the scheduler knows of one request, or of one beam of its search.
///
/// Positions `0 ..< computed` lie in the KV cache; `computed ..< scheduled` are in flight; those up
/// to `wanted` may be scheduled. There is no prefill phase: a prompt is many wanted positions, an
/// answer one at a time.
package struct RequestState: Sendable {
    /// Where a request stands.
    enum Phase: Sendable {
        case unused, waiting, active
        /// Ended, but named by steps in flight.
        case draining
        /// Ended, and yet to give back its pages.
        case ended
    }

    // First what every step looks at, together: states are walked over in the order of slots.

    /// Name.
    package let id: RequestID
    /// Slot of the device's sampling state, -1 for none.
    package internal(set) var stateSlot: Int32 = -1
    /// Where it stands.
    var phase = Phase.waiting
    /// Whether tokens are drawn by unchanging parameters, without biases, bans and the host.
    let isPlain: Bool
    let needsTokens: Bool
    let hasStops: Bool
    /// Whether a step has to clear the sampling state.
    var mustReset = true
    /// Whether it gives up its pages as soon as no step names them.
    var isPreempted = false
    /// Whether its reader is behind, so that no more is computed for now.
    package internal(set) var isPaused = false
    /// Whether it has ever had a row.
    var hasStarted = false
    /// Whether it has finished, and its row is computed on for nothing.
    var isPadding = false
    let promptCount: Int
    let maxTokens: Int
    /// Positions whose tokens were known when the request last started; the device's sampling state
    /// is told them, and adds those that it draws.
    package internal(set) var knownCount: Int
    /// Prompt, then the answer as far as it is known.
    package internal(set) var tokens: [Int32]
    /// One per KV group.
    package internal(set) var tables: [BlockTable]
    /// Positions computed.
    package internal(set) var computed = 0
    /// Positions computed or in flight.
    package internal(set) var scheduled = 0
    /// First position that may need pages, let some go, or copy a block: those before are simple.
    var nextBoundary = 0
    /// Answer tokens drawn by completed steps and by steps in flight.
    var sampledCount = 0
    /// Step that draws the newest token, and its logit row there.
    var lastSample = (step: -1, row: 0)
    /// Newest step that names the request.
    var lastStep = -1
    var inFlight = 0
    let parameters: SamplingParameters

    /// What does not change; above are copies of some of it.
    package let facts: RequestFacts
    /// What an encoder reads before the prompt begins.
    package internal(set) var source: SourceProgress
    /// Whether its pages were set aside.
    var admitted = false
    /// Pages that the pool keeps for the request.
    var reservedPages: Int
    /// Pages in tables and pages that wait for a step's completion.
    var heldPages = 0
    /// Whether its blocks may be found by other requests.
    var sharesPrefix = false
    /// Where its next block goes among the known prefixes, and the positions before it.
    var prefixEnd = PrefixCache.root
    var prefixPositions = 0
    /// Pages to copy before the next step: partly filled blocks of other requests.
    var copies: [(group: Int, source: Int32, destination: Int32)] = []
    /// The request whose prompt begins alike and is under way, and how much of it is worth waiting for.
    var leader: (slot: Int, id: RequestID, positions: Int)?
    /// Rows set aside for beams that do not exist yet.
    var awaitedRows = 0
    /// Whether its last block, partly filled, is another beam's too.
    var sharesLastBlock = false
    /// Tokens that the next draw may not give, as far as the tokens before forbid them.
    var bans: [Int32] = []
    /// Pages of the host that hold the blocks of a paused request; empty for none.
    var hostTables: [BlockTable] = []

    init(id: RequestID, facts: RequestFacts, groupCount: Int) {
        self.id = id
        self.facts = facts
        promptCount = facts.request.prompt.count
        maxTokens = facts.maxTokens
        needsTokens = facts.needsTokens
        isPlain = facts.isPlain
        hasStops = !facts.stopTokens.isEmpty
        parameters = facts.parameters
        reservedPages = facts.reservedPages
        source = SourceProgress(wanted: facts.request.source.count)
        tokens = facts.request.prompt
        knownCount = facts.request.prompt.count
        tables = [BlockTable](repeating: BlockTable(), count: groupCount)
    }

    /// What was asked for.
    package var request: GenerationRequest { facts.request }
    /// Positions that may be scheduled: the last answer token is never computed.
    var wanted: Int { promptCount + min(sampledCount, max(maxTokens - 1, 0)) }
    /// Whether the position's logits are to draw a token.
    func samples(at position: Int) -> Bool {
        position + 1 == promptCount + sampledCount && sampledCount < maxTokens
    }
    /// Whether its next position is an answer's, wanted, and drawn from by unchanging parameters.
    var addsToken: Bool {
        isPlain && scheduled >= knownCount && scheduled < wanted && phase == .active && !isPadding
            && !isPaused && !isPreempted && !mustReset
    }
    /// Whether it would add a token, but that it may need pages.
    var isAtBoundary: Bool { addsToken && scheduled >= nextBoundary }
    /// Whether its blocks are on the host.
    var isSwapped: Bool { !hostTables.isEmpty }
}
