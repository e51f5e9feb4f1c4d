// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
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

/// Text side of a request that runs: detokeniser, stop strings, receiver.
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
    /// The search behind a request with beams.
    var search: BeamSearch?
    /// Continuations of its beams in the step under way, by beam.
    var continuations: [[TokenLogProbability]?] = []
    @exclusivity(unchecked) private var textStream: (any TokenTextStream)?
    @exclusivity(unchecked) private var matcher: StopStringMatcher
    private let hasStopStrings: Bool
    private let stopsAfter: Int?
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
        textStream = decoding?.makeTextStream()
        matcher = StopStringMatcher(request.settings.stopStrings)
        hasStopStrings = !request.settings.stopStrings.isEmpty
        stopsAfter = request.stopsAfter
    }

    /// Text of a token; the finish reason becomes `.stopString` if its text reaches a stop string.
    ///
    /// Before `minTokens` tokens stop strings pass unnoticed: their text is given out at once.
    func text(
        of token: Int32, index: Int, finish: inout FinishReason?
    ) -> String {
        var text = ""
        if finish == nil, let stopsAfter, index + 1 >= stopsAfter { finish = .stopToken }
        if finish == nil, !hasStopStrings { return textStream?.append(token) ?? "" }
        if finish != .stopToken {
            let piece = textStream?.append(token) ?? ""
            if index + 1 < settings.minTokens {
                text = matcher.finish() + piece
            } else {
                let result = matcher.append(piece)
                text = result.text
                if result.match != nil {
                    finish = .stopString
                    return text
                }
            }
        }
        return finish == nil ? text : text + remainder(&finish)
    }

    /// Text held back by detokeniser and matcher; it too may hold a stop string.
    private func remainder(_ finish: inout FinishReason?) -> String {
        let result = matcher.append(textStream?.finish() ?? "")
        if result.match != nil {
            finish = .stopString
            return result.text
        }
        return result.text + matcher.finish()
    }
}

extension Duration {
    /// The duration in seconds.
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
