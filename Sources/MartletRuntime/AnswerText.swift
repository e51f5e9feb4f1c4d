// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Text of one answer as its tokens come: detokeniser and stop strings.
///
/// A value: copies go on apart, as beams do.
package struct AnswerText: Sendable {
    private var stream: (any TokenTextStream)?
    private var matcher: StopStringMatcher
    private let hasStopStrings: Bool
    private let minTokens: Int
    private let stopsAfter: Int?

    /// The text before the first token; without `decoding` it stays empty.
    init(_ request: GenerationRequest, _ decoding: (any TokenDecoding)?) {
        stream = decoding?.makeTextStream()
        matcher = StopStringMatcher(request.settings.stopStrings)
        hasStopStrings = !request.settings.stopStrings.isEmpty
        minTokens = request.settings.minTokens
        stopsAfter = request.stopsAfter
    }

    /// Whether it may end an answer that nothing else ends.
    var mayEnd: Bool { hasStopStrings || stopsAfter != nil }

    /// Text that became certain with a token; the finish reason becomes `.stopString` if it reaches a
    /// stop string.
    ///
    /// Before `minTokens` tokens stop strings pass unnoticed: their text is given out at once.
    mutating func append(_ token: Int32, index: Int, finish: inout FinishReason?) -> String {
        var text = ""
        if finish == nil, let stopsAfter, index + 1 >= stopsAfter { finish = .stopToken }
        if finish == nil, !hasStopStrings { return stream?.append(token) ?? "" }
        if finish != .stopToken {
            let piece = stream?.append(token) ?? ""
            if index + 1 < minTokens {
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
        let result = matcher.append(stream?.finish() ?? "")
        if result.match != nil {
            finish = .stopString
            return result.text
        }
        return result.text + matcher.finish()
    }
}
