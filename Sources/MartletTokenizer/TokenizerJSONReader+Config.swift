// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension TokenizerJSONReader {
    /// Adds the tokens that the files beside `tokenizer.json` name, as the package transformers does.
    ///
    /// A text that the vocabulary has keeps its id there, whatever the entry says; others come after all
    /// ids, in the order of theirs. Of a token that both have, `tokenizer_config.json` says how it is
    /// found.
    mutating func addTokens(_ config: JSONValue?) throws {
        let named = AddedToken.named(config)
        var entries = try AddedToken.entries(config)
        if config?["added_tokens_decoder"] == nil {
            // The older file says less of a token than tokenizer.json.
            let known = Set(added.map(\.id))
            let texts = Set(added.map { Array($0.content.utf8) })
            entries.removeAll { known.contains($0.id) || texts.contains(Array($0.content.utf8)) }
        }
        let special = Set(named.map { Array($0.content.utf8) })
        for index in entries.indices where special.contains(Array(entries[index].content.utf8)) {
            entries[index].isSpecial = true
        }
        var places: [[UInt8]: Int] = [:]
        for (index, token) in added.enumerated() where places[Array(token.content.utf8)] == nil {
            places[Array(token.content.utf8)] = index
        }
        let wanted = Set((entries + named).map { Array($0.content.utf8) }).subtracting(places.keys)
        let vocabulary = vocabularyIDs(of: wanted)
        var next = max(ids.max().map { Int($0) } ?? -1, added.map(\.id).max() ?? -1) + 1
        for (index, entry) in (entries + named).enumerated() where !entry.content.isEmpty {
            let text = Array(entry.content.utf8)
            var token = entry
            if let place = places[text] {
                // A name alone changes nothing of a token that is there.
                guard index < entries.count else { continue }
                token.id = added[place].id
                token.isSpecial = token.isSpecial || added[place].isSpecial
                added[place] = token
            } else {
                token.id = vocabulary[text] ?? next
                if token.id == next { next += 1 }
                places[text] = added.count
                try append(token)
            }
        }
    }

    /// Ids of texts in the vocabulary.
    private func vocabularyIDs(of wanted: Set<[UInt8]>) -> [[UInt8]: Int] {
        var found: [[UInt8]: Int] = [:]
        let lengths = Set(wanted.map(\.count))
        if wanted.isEmpty { return found }
        var start = 0
        for (index, end) in ends.enumerated() {
            defer { start = Int(end) }
            guard lengths.contains(Int(end) - start) else { continue }
            let text = Array(texts[start..<Int(end)])
            if wanted.contains(text) { found[text] = Int(ids[index]) }
        }
        return found
    }
}
