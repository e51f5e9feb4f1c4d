// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer

/// A chat with a model: what was said, and the tokens of it.
///
/// The prompt of a turn begins with the very tokens of the turns before, answers as they were
/// drawn, so that their keys and values stay valid.
///
/// ```swift
/// var conversation = Conversation(system: "Answer in one sentence.")
/// let prompt = try conversation.ask("Why is the sky blue?", of: model)
/// let answer = try model.generateBatch([GenerationRequest(prompt: prompt)])[0]
/// conversation.answered(answer.text, tokens: answer.tokens, by: model)
/// ```
public struct Conversation: Sendable {
    /// Something said.
    public struct Message: Sendable, Hashable {
        /// Who said it: `system`, `user` or `assistant`.
        public let role: String
        /// What was said.
        public let text: String
    }

    /// Everything said, oldest first, the system message included.
    public private(set) var messages: [Message] = []
    /// Prompt and answer of the last turn as text and as tokens; empty where they are not equal.
    private var knownText = ""
    private var knownTokens: [Int32] = []
    /// How many tokens at the start of the last prompt were those of the turn before.
    public private(set) var reusedTokenCount = 0
    /// Whether the last prompt leaves out the oldest turns, for which there was no room.
    public private(set) var isShortened = false

    /// Begins a conversation.
    ///
    /// - Parameter system: A system message, if any.
    public init(system: String? = nil) {
        if let system { messages.append(Message(role: "system", text: system)) }
    }

    /// The system message.
    public var system: String? { messages.first { $0.role == "system" }?.text }

    /// Refuses a model that cannot hold a conversation.
    ///
    /// - Throws: `MartletError` `.unsupported` without tokenizer, or without a form for chats.
    public static func check(_ model: LanguageModel) throws {
        guard try model.chatTokens([ChatMessage(role: "user", content: "hello")]) == nil else {
            return
        }
        throw cannotChat(model)
    }

    private static func cannotChat(_ model: LanguageModel) -> MartletError {
        MartletError(
            .unsupported,
            "the model has no \(model.hasTokenizer ? "chat template" : "tokenizer")",
            mend: "Use a model made for chat, or: martlet run MODEL --raw")
    }

    /// Adds a message of the user.
    ///
    /// Where turns are told apart by role tokens (Baichuan), the oldest rounds are left out of the prompt
    /// when there is no room for all; a template may need them, so its prompts are never shortened.
    ///
    /// - Parameters:
    ///   - text: What the user says.
    ///   - model: Who is asked.
    ///   - answerCount: Tokens of the context to keep free for the answer; at most half of it counts.
    /// - Returns: Token ids of the whole conversation, the answer begun.
    /// - Throws: `MartletError` `.unsupported` without tokenizer or chat template, or what the
    ///   template refuses; nothing is added then.
    public mutating func ask(
        _ text: String, of model: LanguageModel, reserving answerCount: Int = 0
    ) throws -> [Int32] {
        let said = messages + [Message(role: "user", text: text)]
        let list = said.map { ChatMessage(role: $0.role, content: $0.text) }
        guard let tokenizer = model.tokenizer else { throw Self.cannotChat(model) }
        var whole = "", prompt: [Int32]
        var isContinued = false
        if let segments = try model.chatText(list) {
            whole = segments.map(\.text).joined()
            isContinued = !knownTokens.isEmpty && whole.utf8.starts(with: knownText.utf8)
            let rest = isContinued ? segments.dropping(utf8Count: knownText.utf8.count) : segments
            prompt =
                (isContinued ? knownTokens : [])
                // The template writes the tokens that begin a text itself.
                + tokenizer.encode(rest, addSpecial: false).map { Int32(clamping: $0) }
        } else if let roles = model.roleTokens {
            let room = model.maxContext - min(max(answerCount, 0), model.maxContext / 2)
            prompt = knownTokens + (try roles.encode(list.suffix(1), tokenizer))
            isContinued = !knownTokens.isEmpty && prompt.count <= room
            if !isContinued {
                prompt = try roles.encode(list, tokenizer, limit: room)
                isShortened = try prompt.count < roles.encode(list, tokenizer).count
            }
        } else {
            throw Self.cannotChat(model)
        }
        messages = said
        reusedTokenCount = isContinued ? knownTokens.count : 0
        (knownText, knownTokens) = (whole, prompt)
        return prompt
    }

    /// Adds the model's answer to the last message.
    ///
    /// - Parameters:
    ///   - text: The answer, or what there was of it when it was stopped.
    ///   - tokens: Tokens drawn, a final stop token included.
    public mutating func answered(
        _ text: String, tokens: [Int32], by model: LanguageModel
    ) {
        messages.append(Message(role: "assistant", text: text))
        var tokens = tokens
        if let last = tokens.last, model.stopTokens.contains(last) { tokens.removeLast() }
        let decoded = model.tokenizer?.decode(tokens.map(Int.init), skipSpecial: false)
        // A stop string's tokens, or half a character's, are no part of the text.
        let isWhole = !knownTokens.isEmpty && decoded == text
        knownText = isWhole ? knownText + text : ""
        knownTokens = isWhole ? knownTokens + tokens : []
    }

    /// Takes the last message back, which got no answer.
    public mutating func withdraw() {
        guard messages.last?.role == "user" else { return }
        messages.removeLast()
        (knownText, knownTokens) = ("", [])
    }
}

extension [TextSegment] {
    /// What follows the first bytes; those end between two characters.
    fileprivate func dropping(utf8Count: Int) -> [TextSegment] {
        var rest = utf8Count
        return compactMap { segment in
            let count = Swift.min(rest, segment.text.utf8.count)
            rest -= count
            let text = String(decoding: segment.text.utf8.dropFirst(count), as: UTF8.self)
            return text.isEmpty ? nil : TextSegment(text, isTrusted: segment.isTrusted)
        }
    }
}
