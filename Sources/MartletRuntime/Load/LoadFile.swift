// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Reads requests of loads from the files that others write.
///
/// - JSON objects, one a line: trtllm-bench's (`prompt` or `input_ids`, `output_tokens`), or
///   Mooncake's traces (`timestamp` in ms, `input_length`, `output_length`, `hash_ids`).
/// - A JSON list of conversations, as ShareGPT's: the first turn is asked, the second's length answered.
/// - CSV with a header: the Azure traces' columns (`TIMESTAMP`, `ContextTokens`, `GeneratedTokens`) or
///   Mooncake's.
package enum LoadFile {
    /// A file's requests and how many entries are none.
    package struct Content: Sendable, Hashable {
        /// In the file's order; arrivals count from the earliest.
        package var items: [LoadItem]
        /// Conversations without a question and an answer.
        package var skippedCount = 0

        /// Gathers the values.
        package init(items: [LoadItem], skippedCount: Int = 0) {
            self.items = items
            self.skippedCount = skippedCount
        }
    }

    /// Reads a file of any of the forms, told apart by its first character.
    ///
    /// - Parameters:
    ///   - text: The file.
    ///   - name: What it is called in messages.
    /// - Throws: `MartletError` `.corrupt` naming line and mend, `.limitExceeded` for a trace that
    ///   lasts too long.
    package static func parse(_ text: String, name: String) throws -> Content {
        var content: Content
        let text = text.hasPrefix("\u{feff}") ? String(text.dropFirst()) : text
        switch text.unicodeScalars.first(where: { !$0.properties.isWhitespace }) {
        case "[": content = try conversations(text, name)
        case "{": content = Content(items: try lines(text, name).map(object))
        default: content = Content(items: try LoadTrace.parse(lines(text, name), name: name))
        }
        guard !content.items.isEmpty else {
            throw MartletError(.invalidArgument, "\(name) holds no requests", mend: forms)
        }
        try LoadTrace.countFromFirst(&content.items)
        return content
    }

    private static let forms =
        "Give JSON lines with \"prompt\" or \"input_ids\" and \"output_tokens\", a list of ShareGPT's "
        + "conversations, or CSV with TIMESTAMP,ContextTokens,GeneratedTokens or "
        + "timestamp,input_length,output_length"

    /// A line that is not blank, and where it stands.
    struct Line {
        let text: String
        let place: String

        func wrong(_ what: String, mend: String) -> MartletError {
            MartletError(.corrupt, "\(place): \(what)", mend: mend)
        }
    }

    /// The beginning of a text from outside, for messages; what cannot be seen is escaped.
    static func excerpt(_ text: String) -> String {
        var (shown, count) = ("", 0)
        for scalar in text.unicodeScalars {
            let part = isVisible(scalar) ? String(scalar) : scalar.escaped(asASCII: true)
            count += part.unicodeScalars.count
            guard count <= 60 else { return shown + "..." }
            shown += part
        }
        return shown
    }

    private static func isVisible(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .surrogate,
            .unassigned:
            false
        default: true
        }
    }

    private static func lines(_ text: String, _ name: String) -> [Line] {
        text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
            .compactMap { index, scalars in
                let line = String(scalars)
                guard !line.allSatisfy(\.isWhitespace) else { return nil }
                return Line(text: line, place: "\(name):\(index + 1)")
            }
    }

    /// One line of JSON.
    private static func object(_ line: Line) throws -> LoadItem {
        let json: JSONValue
        do {
            json = try JSONValue.parse(
                ByteView(Array(line.text.utf8)), name: line.place, refusesDuplicateKeys: true)
        } catch {
            let cause = (error as? MartletError)?.message ?? "\(error)"
            throw MartletError(.corrupt, cause, mend: "Write one JSON object a line")
        }
        if json["input_length"] != nil { return try LoadTrace.object(json, line) }
        let mend = "Such as {\"task_id\": 0, \"prompt\": \"Hello\", \"output_tokens\": 64}"
        guard let answer = json["output_tokens"]?.int, LoadTrace.counts.contains(answer) else {
            throw line.wrong(
                "\"output_tokens\" is \(shown(json["output_tokens"])), but must be "
                    + "a count of 0 to \(LoadTrace.counts.upperBound)", mend: mend)
        }
        let prompt: LoadItem.Prompt
        // trtllm-bench's older files call ids logits.
        switch (json["prompt"]?.string, json["input_ids"] ?? json["logits"]) {
        case (let text?, nil), (let text?, .null?):
            guard !text.isEmpty else {
                throw line.wrong("\"prompt\" is empty, but must have text", mend: mend)
            }
            prompt = .text(text)
        case (nil, let list?): prompt = .tokens(try ids(list, line))
        default:
            throw line.wrong("needs one of \"prompt\" and \"input_ids\"", mend: mend)
        }
        return LoadItem(prompt: prompt, answer: .length(answer), place: line.place)
    }

    /// The token ids of a prompt.
    private static func ids(_ list: JSONValue, _ line: Line) throws -> [Int32] {
        let mend = "Such as {\"task_id\": 0, \"input_ids\": [5, 6, 7], \"output_tokens\": 64}"
        guard let values = list.array, !values.isEmpty else {
            throw line.wrong(
                "\"input_ids\" is \(shown(list)), but must be a list of at least one token id",
                mend: mend)
        }
        return try values.map { value -> Int32 in
            guard let id = value.int.flatMap({ Int32(exactly: $0) }), id >= 0 else {
                throw line.wrong(
                    "\"input_ids\" holds \(shown(value)), but a token id is a number of 0 to "
                        + "\(Int32.max)", mend: mend)
            }
            return id
        }
    }

    /// A value from outside, for messages.
    static func shown(_ json: JSONValue?) -> String {
        guard let json else { return "missing" }
        return excerpt(json.serialized())
    }

    private static func conversations(_ text: String, _ name: String) throws -> Content {
        let mend =
            "Such as [{\"conversations\": [{\"from\": \"human\", \"value\": \"Hello\"}, {\"from\": "
            + "\"gpt\", \"value\": \"Hi\"}]}]"
        let json: JSONValue
        do {
            json = try JSONValue.parse(
                ByteView(Array(text.utf8)), name: name, refusesDuplicateKeys: true)
        } catch {
            let cause = (error as? MartletError)?.message ?? "\(error)"
            throw MartletError(.corrupt, cause, mend: mend)
        }
        var content = Content(items: [])
        for (index, entry) in (json.array ?? []).enumerated() {
            let place = "\(name): conversation \(index)"
            guard let turns = (entry["conversations"] ?? entry["conversation"])?.array else {
                throw MartletError(.corrupt, "\(place) has no \"conversations\"", mend: mend)
            }
            let texts = try turns.prefix(2).map { turn in
                guard let text = (turn["value"] ?? turn["content"])?.string else {
                    throw MartletError(
                        .corrupt, "\(place) has a turn without \"value\"", mend: mend)
                }
                return text
            }
            guard texts.count == 2, !texts[0].isEmpty, !texts[1].isEmpty else {
                content.skippedCount += 1
                continue
            }
            content.items.append(
                LoadItem(prompt: .text(texts[0]), answer: .text(texts[1]), place: place))
        }
        return content
    }
}
