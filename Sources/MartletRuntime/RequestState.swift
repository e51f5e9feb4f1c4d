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

    /// What keeps an answer from simply growing by a token in each step: one look tells that there is nothing.
    struct Obstacles: OptionSet, Sendable {
        let rawValue: UInt8

        static let notRunning = Obstacles(rawValue: 1)
        static let notPlain = Obstacles(rawValue: 2)
        static let mustReset = Obstacles(rawValue: 4)
        static let preempted = Obstacles(rawValue: 8)
        static let paused = Obstacles(rawValue: 16)
        static let padding = Obstacles(rawValue: 32)
    }

    // First what every step looks at, together and small: states are walked over in the order of slots.

    /// Name.
    package let id: RequestID
    /// Where it stands.
    var phase = Phase.waiting { didSet { obstacles.set(.notRunning, phase != .active) } }
    private(set) var obstacles: Obstacles
    let hasStops: Bool
    @Compact private(set) var promptCount: Int
    @Compact private(set) var maxTokens: Int
    /// Positions whose tokens were known when the request last started; the device's sampling state
    /// is told them, and adds those that it draws.
    @Compact package internal(set) var knownCount: Int
    /// Positions computed.
    @Compact package internal(set) var computed = 0
    /// Positions computed or in flight.
    @Compact package internal(set) var scheduled = 0
    /// First position that may need pages, let some go, or copy a block: those before are simple.
    @Compact var nextBoundary = 0
    /// Answer tokens drawn by completed steps and by steps in flight.
    @Compact var sampledCount = 0
    /// Steps in flight that name the request.
    @Compact var inFlight = 0
    /// Logit row of the newest token, in the step that draws it.
    @Compact var lastSampleRow = 0
    /// Step that draws the newest token.
    var lastSampleStep = -1
    /// Newest step that names the request.
    var lastStep = -1
    /// Prompt, then the answer as far as it is known.
    package internal(set) var tokens: [Int32]

    // From here on what is looked at where requests come, go or need more than a token.

    /// Whether it has ever had a row.
    var hasStarted = false
    /// Slot of the device's sampling state, -1 for none.
    package internal(set) var stateSlot: Int32 = -1
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

    init(id: RequestID, facts: RequestFacts) {
        self.id = id
        self.facts = facts
        promptCount = facts.request.prompt.count
        maxTokens = facts.maxTokens
        obstacles = [.notRunning, .mustReset]
        if !facts.isPlain { obstacles.insert(.notPlain) }
        hasStops = !facts.stopTokens.isEmpty
        parameters = facts.parameters
        reservedPages = facts.reservedPages
        source = SourceProgress(wanted: facts.request.source.count)
        tokens = facts.request.prompt
        knownCount = facts.request.prompt.count
    }

    /// What was asked for.
    package var request: GenerationRequest { facts.request }
    /// Whether tokens are drawn by unchanging parameters, without biases, bans and the host.
    var isPlain: Bool { !obstacles.contains(.notPlain) }
    /// Whether a step has to clear the sampling state.
    var mustReset: Bool {
        get { obstacles.contains(.mustReset) }
        set { obstacles.set(.mustReset, newValue) }
    }
    /// Whether it gives up its pages as soon as no step names them.
    var isPreempted: Bool {
        get { obstacles.contains(.preempted) }
        set { obstacles.set(.preempted, newValue) }
    }
    /// Whether its reader is behind, so that no more is computed for now.
    package internal(set) var isPaused: Bool {
        get { obstacles.contains(.paused) }
        set { obstacles.set(.paused, newValue) }
    }
    /// Whether it has finished, and its row is computed on for nothing.
    var isPadding: Bool {
        get { obstacles.contains(.padding) }
        set { obstacles.set(.padding, newValue) }
    }
    /// Positions that may be scheduled: the last answer token is never computed.
    var wanted: Int { promptCount + min(sampledCount, max(maxTokens - 1, 0)) }
    /// Whether the position's logits are to draw a token.
    func samples(at position: Int) -> Bool {
        position + 1 == promptCount + sampledCount && sampledCount < maxTokens
    }
    /// Whether its next position is an answer's, wanted, and drawn from by unchanging parameters: the newest
    /// token's, which the next is drawn after.
    var addsToken: Bool {
        obstacles.isEmpty && scheduled >= knownCount && sampledCount < maxTokens
    }
    /// Whether it would add a token, but that it may need pages.
    var isAtBoundary: Bool { addsToken && scheduled >= nextBoundary }
    /// Whether its blocks are on the host.
    var isSwapped: Bool { !hostTables.isEmpty }
}

extension RequestState.Obstacles {
    mutating func set(_ obstacle: Self, _ isThere: Bool) {
        if isThere { insert(obstacle) } else { remove(obstacle) }
    }
}
