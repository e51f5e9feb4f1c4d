// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Receives what happens to one request; calls come from the engine's thread, in order.
package protocol GenerationSink: Sendable {
    /// An event; the last one of each answer has a finish reason.
    ///
    /// - Returns: False if its reader is behind: the request pauses until told to resume.
    func receive(_ event: GenerationEvent) -> Bool
    /// The request failed: nothing follows.
    func fail(_ error: MartletError)
}

/// Readers' side of a request that runs: its text, its search, its receiver.
///
/// Only the engine's thread knows it.
final class LiveRequest {
    let id: RequestID
    let prompt: [Int32]
    let settings: SamplingSettings
    let reportsLogProbabilities: Bool
    let sink: any GenerationSink
    /// Whether the plan's named outputs are wanted.
    let returnsNamedOutputs: Bool
    /// Positions of the prompt whose rows were told: those computed again after a pause are not.
    var toldPositions = 0
    /// Whether it has beams.
    var isSearch: Bool { settings.beamCount > 1 }
    /// The search behind them.
    var search: BeamSearch?
    /// What its beams may go on with in the step under way, by beam.
    var rows: [BeamSearch.Row?] = []
    /// Its text so far; of a search, what each answer's begins with.
    @exclusivity(unchecked) var text: AnswerText
    /// When it came.
    let arrival = ContinuousClock.now

    init(
        id: RequestID, request: GenerationRequest, decoding: (any TokenDecoding)?,
        sink: any GenerationSink
    ) {
        self.id = id
        prompt = request.prompt
        settings = request.settings
        reportsLogProbabilities = request.settings.logProbabilities != nil
        returnsNamedOutputs = request.returnsNamedOutputs
        self.sink = sink
        text = AnswerText(request, decoding)
    }
}

extension Duration {
    /// The duration in seconds.
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
