// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCore

/// Receives what happens to one request; calls come from the engine's thread, in order.
package protocol GenerationSink: Sendable {
    /// An event; the last one has a finish reason.
    func receive(_ event: GenerationEvent)
    /// The request failed: nothing follows.
    func fail(_ error: MartletError)
}

/// Text side of a request that runs: detokeniser, stop strings, receiver.
struct LiveRequest {
    let id: RequestID
    let settings: SamplingSettings
    let sink: any GenerationSink
    private var textStream: (any TokenTextStream)?
    private var matcher: StopStringMatcher

    init(
        id: RequestID, request: GenerationRequest, decoding: (any TokenDecoding)?,
        sink: any GenerationSink
    ) {
        self.id = id
        settings = request.settings
        self.sink = sink
        textStream = decoding?.makeTextStream()
        matcher = StopStringMatcher(request.settings.stopStrings)
    }

    /// Text of a token; the finish reason becomes `.stopString` if its text reaches a stop string.
    ///
    /// Before `minTokens` tokens stop strings pass unnoticed: their text is given out at once.
    mutating func text(
        of token: Int32, index: Int, finish: inout FinishReason?
    ) -> String {
        var text = ""
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
    private mutating func remainder(_ finish: inout FinishReason?) -> String {
        let result = matcher.append(textStream?.finish() ?? "")
        if result.match != nil {
            finish = .stopString
            return result.text
        }
        return result.text + matcher.finish()
    }
}

/// Gathers the answer to one request of a batch and posts it when complete.
///
/// `@unchecked Sendable`: only the engine's thread calls it, until it posts the output.
final class OutputCollector: GenerationSink, @unchecked Sendable {
    private let index: Int
    private let mailbox: Mailbox<(Int, GenerationOutput)>
    private let start = ContinuousClock.now
    private var output = GenerationOutput()

    init(index: Int, mailbox: Mailbox<(Int, GenerationOutput)>) {
        self.index = index
        self.mailbox = mailbox
    }

    func receive(_ event: GenerationEvent) {
        if event.token != nil, output.firstTokenSeconds == nil {
            output.firstTokenSeconds = (ContinuousClock.now - start).seconds
        }
        output.append(event)
        if event.finishReason != nil { post() }
    }

    func fail(_ error: MartletError) {
        output.failure = error
        output.finishReason = error.code == .cancelled ? .cancelled : .error
        post()
    }

    private func post() {
        output.totalSeconds = (ContinuousClock.now - start).seconds
        mailbox.send((index, output))
    }
}

/// Passes events on to an asynchronous stream.
struct StreamSink: GenerationSink {
    let continuation: AsyncThrowingStream<GenerationEvent, any Error>.Continuation

    func receive(_ event: GenerationEvent) {
        continuation.yield(event)
        if event.finishReason != nil { continuation.finish() }
    }

    func fail(_ error: MartletError) { continuation.finish(throwing: error) }
}

extension Duration {
    /// The duration in seconds.
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
