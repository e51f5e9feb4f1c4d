// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// What the components of a `tokenizer.json` say, step by step; a step that is not known is an error.
struct TokenizerComponents {
    /// Unknown characters become `<0xNN>` tokens.
    let fallsBackToBytes: Bool
    let unknownToken: String?
    private let components: [String: JSONValue]

    init(_ components: [String: JSONValue]) {
        self.components = components
        fallsBackToBytes = components["byte_fallback"]?.bool ?? false
        unknownToken = components["unk_token"]?.string
    }

    private func unsupported(_ component: String, _ name: String) -> MartletError {
        TokenizerJSONReader.unsupported(component, name)
    }

    func apply(to description: inout TokenizerDescription) throws {
        var steps = steps("pre_tokenizer", "pretokenizers")
        // Without a byte alphabet the units are characters.
        if steps.last?["type"]?.string == "ByteLevel" {
            if fallsBackToBytes { throw unsupported("model.byte_fallback", "true") }
            try byteLevel(steps.removeLast(), after: steps, into: &description)
        } else {
            description.model = .sentencePiece
            if description.ignoresMerges { throw unsupported("model.ignore_merges", "true") }
            try sentencePiece(steps, into: &description)
        }
        try normalizer(into: &description)
        try decoder(into: &description)
        try postProcessor(into: &description)
    }

    /// The steps of a component that may be a sequence.
    private func steps(_ key: String, _ list: String) -> [JSONValue] {
        guard let value = components[key], !value.isNull else { return [] }
        if value["type"]?.string == "Sequence" { return value[list]?.array ?? [] }
        return [value]
    }

    private func type(_ step: JSONValue) -> String { step["type"]?.string ?? "?" }

    // MARK: Pre-tokenizers

    /// Patterns that have a scanner, each as the steps before `ByteLevel`.
    private static let patterns: [(patterns: [String], kind: PreTokenizerKind)] = {
        let start = #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"#
        let end = #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        let llama3: String = start + "{1,3}" + end
        let qwen2: String = start + end
        let words = #"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
        let gpt2: String = "'s|'t|'re|'ve|'m|'ll|'d" + words
        let gpt2Grouped: String = "'(?:[sdmt]|ll|ve|re)" + words
        // These files hold line breaks as such.
        let ascii = ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"##
        let letters = "\r\n" + #"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+["#
        let breaks = "\r\n" + #"]*|\s*["# + "\r\n" + #"]+|\s+(?!\S)|\s+"#
        let deepSeekV3: String = ascii + letters + breaks
        let kana = "[一-龥\u{3040}-ゟ゠-ヿ]+"
        let eastAsian = "[一-龥ࠀ-一가-\u{D7FF}]+"
        let cased: String = #"\s?["# + CodeRanges.casedLetterPattern + "]+"
        let wide = #"\s?[!-/:-~！-／：-～‘-‟　-。]+"#
        return [
            ([llama3], .llama3), ([qwen2], .qwen2), ([gpt2], .gpt2), ([gpt2Grouped], .gpt2),
            ([#"\p{N}{1,3}"#, kana, deepSeekV3], .deepSeekV3),
            (["[\r\n]", #"\s?\p{L}+"#, #"\s?\p{P}+"#, eastAsian, "Digits"], .deepSeekCoder),
            (["[\r\n]", cased, wide, #"\s+$"#, eastAsian, "Digits"], .deepSeekLLM),
        ]
    }()

    /// The steps before `ByteLevel` that a scanner stands for.
    static func patterns(of kind: PreTokenizerKind) -> [String] {
        patterns.first { $0.kind == kind }?.patterns ?? []
    }

    /// Recognises the chains of steps that a scanner does in one go.
    private func byteLevel(
        _ last: JSONValue, after steps: [JSONValue], into description: inout TokenizerDescription
    ) throws {
        if last["add_prefix_space"]?.bool ?? true { description.spacePrefix = .partsUnlessSpace }
        let usesPattern = last["use_regex"]?.bool ?? true
        if !steps.isEmpty, description.spacePrefix != .never {
            throw unsupported("pre_tokenizer", "\(type(steps[0])) with add_prefix_space")
        }
        let patterns = try steps.map(pattern)
        if usesPattern, patterns.isEmpty {
            description.preTokenizer = .gpt2
        } else if usesPattern, patterns == ["Digits"] {
            description.preTokenizer = .smollm
        } else if !usesPattern, patterns.isEmpty {
            description.preTokenizer = .whole
        } else if !usesPattern,
            let row = Self.patterns.first(where: { $0.patterns == patterns })
        {
            description.preTokenizer = row.kind
        } else {
            let names = patterns + ["ByteLevel\(usesPattern ? "" : " without its pattern")"]
            throw unsupported("pre_tokenizer", names.joined(separator: " + "))
        }
    }

    /// The pattern of a step that cuts at its matches.
    private func pattern(_ step: JSONValue) throws -> String {
        switch type(step) {
        case "Digits" where step["individual_digits"]?.bool == true: return "Digits"
        case "Split":
            let text = step["pattern"]?["Regex"]?.string ?? step["pattern"]?["String"]?.string
            let behavior = step["behavior"]?.string ?? "?"
            let isInverted = step["invert"]?.bool ?? false
            // Where every character is in a match, removing what is between removes nothing.
            let isWhole = Self.patterns.contains { $0.patterns == [text ?? ""] }
            guard
                behavior == "Isolated" && !isInverted
                    || behavior == "Removed" && isInverted && isWhole
            else {
                throw unsupported(
                    "pre_tokenizer", "Split with behavior \(behavior), invert \(isInverted)")
            }
            return text ?? ""
        case let other: throw unsupported("pre_tokenizer", other)
        }
    }

    /// Llama 2 has no step, newer files have Metaspace, Gemma splits at spaces that are gone by then.
    private func sentencePiece(
        _ steps: [JSONValue], into description: inout TokenizerDescription
    ) throws {
        description.preTokenizer = .whole
        for step in steps {
            switch type(step) {
            case "Metaspace":
                guard step["replacement"]?.string == "▁" else {
                    throw unsupported(
                        "pre_tokenizer",
                        "Metaspace with replacement '\(step["replacement"]?.string ?? "?")'")
                }
                if step["split"]?.bool ?? true { description.preTokenizer = .spaces }
                let legacy = step["add_prefix_space"]?.bool == false ? "never" : "always"
                switch step["prepend_scheme"]?.string ?? legacy {
                case "always": description.spacePrefix = .partsUnlessSpace
                case "first": description.spacePrefix = .startUnlessSpace
                case "never": break
                case let other:
                    throw unsupported("pre_tokenizer", "Metaspace with scheme '\(other)'")
                }
            case "Split" where step["pattern"]?["String"]?.string == " " && replacesSpaces: break
            case let other: throw unsupported("pre_tokenizer", other)
            }
        }
        let hasMetaspace = steps.contains { type($0) == "Metaspace" }
        guard replacesSpaces || hasMetaspace else {
            let names = steps.isEmpty ? "(none)" : steps.map(type).joined(separator: " + ")
            throw unsupported("pre_tokenizer", names)
        }
    }

    // MARK: Normalizers and decoders

    private var replacesSpaces: Bool {
        steps("normalizer", "normalizers").contains(where: isSpaceReplacement)
    }

    private func isSpaceReplacement(_ step: JSONValue) -> Bool {
        type(step) == "Replace" && step["pattern"]?["String"]?.string == " "
            && step["content"]?.string == "▁"
    }

    private func normalizer(into description: inout TokenizerDescription) throws {
        for step in steps("normalizer", "normalizers") {
            switch type(step) {
            case "NFC": description.composes = true
            case "Prepend" where step["prepend"]?.string == "▁" && replacesSpaces:
                description.spacePrefix = .parts
            case "Replace" where isSpaceReplacement(step) && description.model == .sentencePiece:
                break
            case let other: throw unsupported("normalizer", other)
            }
        }
    }

    private func decoder(into description: inout TokenizerDescription) throws {
        for step in steps("decoder", "decoders") {
            let isSentencePiece = description.model == .sentencePiece
            switch type(step) {
            case "ByteLevel" where !isSentencePiece: break
            case "ByteFallback" where isSentencePiece, "Fuse" where isSentencePiece: break
            case "Replace"
            where isSentencePiece && step["pattern"]?["String"]?.string == "▁"
                && step["content"]?.string == " ":
                break
            case "Strip"
            where isSentencePiece && step["content"]?.string == " " && step["start"]?.int == 1
                && step["stop"]?.int ?? 0 == 0:
                description.stripsLeadingSpace = true
            case let other: throw unsupported("decoder", other)
            }
        }
    }

    // MARK: Post-processors

    /// Tokens put around a text.
    private func postProcessor(into description: inout TokenizerDescription) throws {
        for step in steps("post_processor", "processors") {
            switch type(step) {
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
                throw TokenizerJSONReader.corrupt(
                    "a template part is no token", key: "post_processor")
            }
            let ids = step["special_tokens"]?[name]?["ids"]?.array?.compactMap(\.int) ?? []
            guard !ids.isEmpty else {
                throw TokenizerJSONReader.corrupt(
                    "the template names '\(name)', which has no ids", key: "post_processor")
            }
            if isBefore { description.prefixIDs += ids } else { description.suffixIDs += ids }
        }
    }
}
