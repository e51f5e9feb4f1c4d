// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension TokenizerJSONReader {
    /// Patterns of `Split` steps that have a hand-compiled scanner.
    private static let patterns: [(pattern: String, kind: PreTokenizerKind)] = [
        (
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
                + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#, .llama3
        ),
        (
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
                + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#, .qwen2
        ),
        (#"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#, .gpt2),
        (#"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#, .gpt2),
    ]

    /// Recognises the chains of steps that a scanner does in one go.
    func preTokenizer(into description: inout TokenizerDescription) throws {
        var steps: [JSONValue] = []
        if let value = root["pre_tokenizer"], !value.isNull {
            steps =
                value["type"]?.string == "Sequence" ? value["pretokenizers"]?.array ?? [] : [value]
        }
        guard let last = steps.popLast() else { throw unsupported("pre_tokenizer", "(none)") }
        guard last["type"]?.string == "ByteLevel" else {
            throw unsupported("pre_tokenizer", last["type"]?.string ?? "?")
        }
        let usesPattern = last["use_regex"]?.bool ?? true
        description.addsPrefixSpace = last["add_prefix_space"]?.bool ?? true
        switch (steps.count, steps.first?["type"]?.string, usesPattern) {
        case (0, _, true): description.preTokenizer = .gpt2
        case (0, _, false): description.preTokenizer = .whole
        case (1, "Digits", true) where steps[0]["individual_digits"]?.bool == true:
            if description.addsPrefixSpace {
                throw unsupported("pre_tokenizer", "Digits with add_prefix_space")
            }
            description.preTokenizer = .smollm
        case (1, "Split", false):
            if description.addsPrefixSpace {
                throw unsupported("pre_tokenizer", "Split with add_prefix_space")
            }
            description.preTokenizer = try split(steps[0])
        default:
            let names = (steps + [last]).map { $0["type"]?.string ?? "?" }
            throw unsupported("pre_tokenizer", names.joined(separator: " + "))
        }
    }

    private func split(_ step: JSONValue) throws -> PreTokenizerKind {
        let pattern = step["pattern"]?["Regex"]?.string ?? ""
        guard let row = TokenizerJSONReader.patterns.first(where: { $0.pattern == pattern }) else {
            throw unsupported("pre_tokenizer", "Split \(pattern)")
        }
        // Each pattern matches everywhere, so that removing what is between matches removes
        // nothing.
        let behavior = step["behavior"]?.string ?? "?"
        let inverted = step["invert"]?.bool ?? false
        guard behavior == "Isolated" && !inverted || behavior == "Removed" && inverted else {
            throw unsupported(
                "pre_tokenizer", "Split with behavior \(behavior), invert \(inverted)")
        }
        return row.kind
    }

    /// Tokens put around a text.
    func postProcessor(into description: inout TokenizerDescription) throws {
        guard let value = root["post_processor"], !value.isNull else { return }
        let isSequence = value["type"]?.string == "Sequence"
        for step in isSequence ? value["processors"]?.array ?? [] : [value] {
            switch step["type"]?.string ?? "?" {
            case "ByteLevel": break
            case "TemplateProcessing": try template(step, into: &description)
            case let other: throw unsupported("post_processor", other)
            }
        }
    }

    private func template(_ step: JSONValue, into description: inout TokenizerDescription) throws {
        var isBefore = true
        for part in step["single"]?.array ?? [] {
            if part["Sequence"] != nil {
                isBefore = false
                continue
            }
            guard let name = part["SpecialToken"]?["id"]?.string else {
                throw corrupt("a template part")
            }
            let ids = step["special_tokens"]?[name]?["ids"]?.array?.compactMap(\.int) ?? []
            guard !ids.isEmpty else {
                throw corrupt("the template names '\(name)', which has no ids")
            }
            if isBefore { description.prefixIDs += ids } else { description.suffixIDs += ids }
        }
    }
}
