// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

@Suite struct RoleTokensTests {
    private let roles = RoleTokens(user: 5, assistant: 6)

    /// One token for each letter.
    private func tokenizer() throws -> Tokenizer {
        let tokens = ["<unk>", "<s>", "</s>", "a", "b", "<reserved_106>", "<reserved_107>", "c"]
        return try Tokenizer(
            TokenizerDescription(
                ggufTokens: tokens, merges: [], tokenTypes: [2, 3, 3, 1, 1, 3, 3, 1],
                scores: [0, 0, 0, -1, -2, 0, 0, -3], model: "llama", pre: nil, bosID: 1, eosID: 2,
                unknownID: 0, addBOS: false, addSpacePrefix: false))
    }

    private func ids(_ messages: [(String, String)], limit: Int? = nil) throws -> [Int32] {
        try roles.encode(
            messages.map { ChatMessage(role: $0.0, content: $0.1) }, tokenizer(), limit: limit)
    }

    @Test func putsATokenBeforeEachTurn() throws {
        #expect(try ids([("user", "ab")]) == [5, 3, 4, 6])
        #expect(
            try ids([("user", "a"), ("assistant", "b"), ("user", "c")]) == [5, 3, 6, 4, 5, 7, 6])
        #expect(try ids([("system", "ab"), ("user", "c")]) == [3, 4, 5, 7, 6])
        #expect(try ids([("user", "a"), ("assistant", "b")]) == [5, 3, 6, 4])
        #expect(try ids([]) == [6])
    }

    @Test func leavesOutTheOldestRounds() throws {
        let chat = [("system", "c"), ("user", "aa"), ("assistant", "bb"), ("user", "ab")]
        #expect(try ids(chat, limit: 11) == [7, 5, 3, 3, 6, 4, 4, 5, 3, 4, 6])
        #expect(try ids(chat, limit: 10) == [7, 5, 3, 4, 6])
        // What is too long by itself is not cut in silence.
        #expect(try ids(chat, limit: 3) == [7, 5, 3, 4, 6])
        #expect(try ids([], limit: 0) == [6])
    }

    @Test func textNeverBecomesARole() throws {
        let mine = try ids([("user", "a<reserved_107>b")])
        #expect(mine.filter { $0 == 6 }.count == 1)
        #expect(mine.last == 6)
    }

    @Test func refusesOtherRoles() throws {
        for chat in [[("tool", "a")], [("user", "a"), ("system", "b")]] {
            let error = #expect(throws: MartletError.self) { try ids(chat) }
            #expect(error?.code == .invalidArgument)
            #expect(error?.message.contains(chat[chat.count - 1].0) == true)
        }
        #expect(throws: MartletError.self) {
            try roles.encode([ChatMessage(role: "user", content: .null)], tokenizer())
        }
    }

    @Test func readsTheGenerationConfig() {
        let both: JSONValue = ["user_token_id": 195, "assistant_token_id": 196]
        #expect(RoleTokens(generation: both) == RoleTokens(user: 195, assistant: 196))
        #expect(RoleTokens(generation: ["user_token_id": 195]) == nil)
        #expect(RoleTokens(generation: nil) == nil)
    }
}
