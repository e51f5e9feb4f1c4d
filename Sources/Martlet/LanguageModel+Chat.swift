// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer

extension LanguageModel {
    /// Token ids of a prompt: a chat message through the model's template, or the text as it is.
    ///
    /// Special tokens are recognised in the template's own text only, never in the user's.
    ///
    /// - Parameters:
    ///   - text: The user's message.
    ///   - system: A system message, if any.
    ///   - raw: Whether to leave the template out.
    /// - Throws: `MartletError` without a tokenizer, or for a template that cannot be honoured.
    public func promptTokens(
        _ text: String, system: String? = nil, raw: Bool = false
    ) throws -> [Int32] {
        var messages = [ChatMessage(role: "user", content: text)]
        if let system { messages.insert(ChatMessage(role: "system", content: system), at: 0) }
        if !raw, let ids = try chatTokens(messages) { return ids }
        guard system == nil else {
            throw MartletError(
                .unsupported,
                raw
                    ? "a raw prompt has no place for a system message"
                    : "the model has no chat template, so a system message has no place",
                mend: "Write it into the prompt")
        }
        return try tokens(text)
    }

    /// Token ids of a conversation, the assistant's answer begun.
    ///
    /// - Returns: The ids; nil without tokenizer, or without template and role tokens.
    /// - Throws: `MartletError` for a template that cannot be honoured, or what it refuses.
    func chatTokens(_ messages: [ChatMessage]) throws -> [Int32]? {
        guard let tokenizer else { return nil }
        if let segments = try chatText(messages) {
            // The template writes the tokens that begin a text itself.
            return tokenizer.encode(segments, addSpecial: false).map { Int32(clamping: $0) }
        }
        return try roleTokens?.encode(messages, tokenizer)
    }

    /// Tokens that stand before the turns of a chat, where the model has them in place of a template.
    var roleTokens: RoleTokens? { engine.text.roleTokens }

    /// A conversation as the model's template writes it, the assistant's answer begun.
    ///
    /// - Returns: The text in parts; nil without tokenizer or template.
    /// - Throws: `MartletError` for a template that cannot be honoured, or what it refuses.
    func chatText(_ messages: [ChatMessage]) throws -> [TextSegment]? {
        guard let source = engine.text.chatTemplate, let tokenizer else { return nil }
        func special(_ id: Int?) -> String? {
            id.map { tokenizer.decode([$0], skipSpecial: false) }
        }
        do {
            return try ChatTemplate(source: source).render(
                messages: messages, addGenerationPrompt: true, bosToken: special(tokenizer.bosID),
                eosToken: special(tokenizer.eosID))
        } catch let error as MartletError {
            if error.code == .limitExceeded { try checkLength(of: messages, tokenizer) }
            throw error.mending(
                "Correct the model's chat_template, or leave it out: martlet run MODEL --raw")
        }
    }

    /// Refuses messages that fill the context by themselves: then no template is to blame for its limits.
    private func checkLength(of messages: [ChatMessage], _ tokenizer: Tokenizer) throws {
        let count = messages.reduce(0) { count, message in
            let text = message.content.string ?? message.content.serialized()
            return count + tokenizer.encode(text, allowSpecial: false, addSpecial: false).count
        }
        guard count >= maxContext else { return }
        throw MartletError(
            .limitExceeded,
            "the prompt has \(count) tokens, but the context of \(maxContext) holds at most "
                + "\(maxContext - 1) beside the answer",
            mend: "Shorten the prompt, or raise --max-context if it is below the model's",
            context: ["promptTokens": "\(count)", "limit": "\(maxContext)"])
    }
}
