// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A chat format without a template: one token before each turn, as Baichuan and Baichuan 2 have it.
///
/// `[system] (user-token text | assistant-token text)* assistant-token`. The roles are ids, not text, so
/// no text can stand for one.
package struct RoleTokens: Sendable, Equatable {
    /// The token before a user's turn.
    package var user: Int
    /// The token before the assistant's turn.
    package var assistant: Int

    /// Names the two tokens.
    package init(user: Int, assistant: Int) {
        self.user = user
        self.assistant = assistant
    }

    /// The tokens that a `generation_config.json` names, if it names both.
    package init?(generation: JSONValue?) {
        guard let user = generation?["user_token_id"]?.int,
            let assistant = generation?["assistant_token_id"]?.int, user >= 0, assistant >= 0
        else { return nil }
        self.init(user: user, assistant: assistant)
    }

    /// Ids of a conversation, the assistant's turn begun unless it is the last already.
    ///
    /// - Parameters:
    ///   - limit: Most ids, nil for no limit: whole rounds are left out from the oldest on. The last
    ///     round and the system message stay, so there may be more.
    /// - Throws: `invalidArgument` for a role that the format lacks, a system message that is not the
    ///   first, or content that is no text.
    package func encode(
        _ messages: [ChatMessage], _ tokenizer: Tokenizer, limit: Int? = nil
    ) throws -> [Int32] {
        var system: [Int] = []
        var rounds: [[Int]] = []
        for (index, message) in messages.enumerated() {
            guard let text = message.content.string else {
                throw refusal("message \(index) is \(message.content.kind), not text")
            }
            let ids = tokenizer.encode(text, allowSpecial: false, addSpecial: false)
            switch message.role {
            case "system" where index == 0: system = ids
            case "user": rounds.append([user] + ids)
            case "assistant":
                if rounds.isEmpty { rounds.append([]) }
                rounds[rounds.count - 1] += [assistant] + ids
            case "system": throw refusal("message \(index) is the system's, which must come first")
            case let role: throw refusal("message \(index) has the role '\(role)'")
            }
        }
        if messages.last?.role != "assistant" {
            if rounds.isEmpty { rounds.append([]) }
            rounds[rounds.count - 1].append(assistant)
        }
        var count = rounds.reduce(system.count) { $0 + $1.count }
        while let limit, count > limit, rounds.count > 1 { count -= rounds.removeFirst().count }
        return (system + rounds.joined()).map { Int32(clamping: $0) }
    }

    private func refusal(_ what: String) -> MartletError {
        MartletError(
            .invalidArgument,
            "chat: \(what); this model knows a system message, user and assistant",
            mend: "Give messages of these roles")
    }
}
