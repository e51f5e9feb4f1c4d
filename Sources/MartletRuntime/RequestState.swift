// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend

/// What the scheduler knows of one request.
///
/// Positions `0 ..< computed` lie in the KV cache; `computed ..< scheduled` are in flight; those up
/// to `wanted` may be scheduled. There is no prefill phase: a prompt is many wanted positions, an
/// answer one at a time.
package struct RequestState: Sendable {
    /// Where a request stands.
    enum Phase: Sendable { case unused, waiting, active, draining }

    /// Name.
    package let id: RequestID
    /// What was asked for.
    package let request: GenerationRequest
    /// Most tokens of the answer, the context's limit included.
    package let maxTokens: Int
    /// Biases in order of id.
    let biases: [LogitBias]
    /// Prompt, then the answer as far as it is known.
    package internal(set) var tokens: [Int32]
    /// Positions computed.
    package internal(set) var computed = 0
    /// Positions computed or in flight.
    package internal(set) var scheduled = 0
    /// Answer tokens drawn by completed steps and by steps in flight.
    var sampledCount = 0
    /// Step that draws the newest token, and its logit row there.
    var lastSample = (step: -1, row: 0)
    /// Newest step that names the request.
    var lastStep = -1
    var inFlight = 0
    var phase = Phase.waiting
    /// Whether its pages were set aside.
    var admitted = false
    /// Pages that the pool keeps for the request.
    var reservedPages: Int
    /// Pages in tables and pages that wait for a step's completion.
    var heldPages = 0
    /// Positions whose tokens were known when the request last started; the device's sampling state
    /// is told them, and adds those that it draws.
    package internal(set) var knownCount: Int
    /// Whether a step has to clear the sampling state.
    var mustReset = true
    /// Whether its blocks may be found by other requests.
    var sharesPrefix = false
    /// Where its next block goes among the known prefixes, and the positions before it.
    var prefixEnd = PrefixCache.root
    var prefixPositions = 0
    /// Pages to copy before the first step: partly filled blocks of other requests.
    var copies: [(group: Int, source: Int32, destination: Int32)] = []
    /// The request whose prompt begins alike and is under way, and how much of it is worth waiting for.
    var leader: (slot: Int, id: RequestID, positions: Int)?
    /// Whether it gives up its pages as soon as no step names them.
    var isPreempted = false
    /// Slot of the device's sampling state, -1 for none.
    package internal(set) var stateSlot: Int32 = -1
    /// One per KV group.
    package internal(set) var tables: [BlockTable]

    init(
        id: RequestID, request: GenerationRequest, maxTokens: Int, reservedPages: Int,
        groupCount: Int
    ) {
        self.id = id
        self.request = request
        self.maxTokens = maxTokens
        self.reservedPages = reservedPages
        biases = request.settings.biases
        tokens = request.prompt
        knownCount = request.prompt.count
        tokens.reserveCapacity(request.prompt.count + min(maxTokens, 4096))
        tables = [BlockTable](repeating: BlockTable(), count: groupCount)
    }

    /// Tokens of the prompt.
    package var promptCount: Int { request.prompt.count }
    /// Positions that may be scheduled: the last answer token is never computed.
    var wanted: Int { promptCount + min(sampledCount, max(maxTokens - 1, 0)) }
    /// Whether the position's logits are to draw a token.
    func samples(at position: Int) -> Bool {
        position + 1 == promptCount + sampledCount && sampledCount < maxTokens
    }
}
