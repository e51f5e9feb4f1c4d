// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend

/// What never changes about a request, worked out once when it is submitted.
package final class RequestFacts: Sendable {
    /// What was asked for.
    package let request: GenerationRequest
    /// Most tokens of the answer, the context's limit included.
    package let maxTokens: Int
    /// Biases in order of id, single bad words among them.
    let biases: [LogitBias]
    /// Tokens that end the answer, and before how many tokens of it they are forbidden.
    let stopTokens: [Int32]
    let minTokens: Int
    /// Parameters of the first draw.
    let parameters: SamplingParameters
    /// Rows that it takes in a step: the beams of a search.
    let rowCount: Int
    /// Pages that each of the rows may need.
    let pagesPerRow: Int
    /// Whether the device keeps a sampling state for it.
    let needsState: Bool
    /// Whether each draw needs the tokens before it on the host, so that its steps cannot overlap.
    let needsTokens: Bool
    /// Whether the tokens before decide which ones a draw may not give.
    let bansTokens: Bool
    /// Whether top-p changes from token to token.
    let decaysTopP: Bool
    /// What the row of a draw is for, bits of `RowUse`.
    let rowUse: UInt32
    /// Whether a draw needs no more than unchanging parameters.
    let isPlain: Bool
    /// Whether logits come to the host, which draws.
    let drawsOnHost: Bool
    /// Whether its prompt is computed in a step of its own.
    let isExclusive: Bool
    /// Whether all logits of the prompt are wanted.
    let wantsPromptLogits: Bool

    init(request: GenerationRequest, maxTokens: Int, pagesPerRow: Int) {
        let settings = request.settings
        self.request = request
        self.maxTokens = maxTokens
        self.pagesPerRow = pagesPerRow
        biases = settings.biases
        stopTokens = settings.stopTokens
        minTokens = settings.minTokens
        rowCount = settings.beamCount
        drawsOnHost = settings.drawsOnHost
        needsState = settings.hasPenalties && !settings.drawsOnHost
        needsTokens = settings.needsTokens
        bansTokens = settings.bansTokens && !settings.drawsOnHost
        decaysTopP = settings.topPDecay != 1
        isExclusive = request.returnsNamedOutputs
        wantsPromptLogits =
            settings.returnContextLogits || settings.promptLogProbabilities != nil
        parameters = settings.parameters(outputPosition: 0)
        var use = settings.drawsOnHost ? RowUse.returnLogits : RowUse.sample
        if settings.returnGenerationLogits { use.insert(.returnLogits) }
        rowUse = use.rawValue
        isPlain =
            rowCount == 1 && biases.isEmpty && !bansTokens && !decaysTopP
            && rowUse == RowUse.sample.rawValue
            && (stopTokens.isEmpty || minTokens == 0)
    }

    /// Whether a known beginning spares its computing: not to one that wants to see all of its prompt.
    var takesKnownPrefix: Bool { !wantsPromptLogits && !isExclusive }

    /// Pages that all rows may need at once.
    var reservedPages: Int { rowCount * pagesPerRow }
    /// Priority among those that wait.
    var priority: Int { request.priority }
}
