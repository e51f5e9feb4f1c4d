// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// Answers several questions at once, one of them first and without a word: `ManyRequests MODEL.gguf WORD "..." "..."`.
@main
enum ManyRequests {
    static func main() async throws {
        guard CommandLine.arguments.count > 3 else {
            print("usage: ManyRequests MODEL WORD PROMPT...")
            return
        }
        let model = try LanguageModel.load(CommandLine.arguments[1])
        let forbidden = try model.tokens(CommandLine.arguments[2], addSpecial: false)
        var requests = try CommandLine.arguments.dropFirst(3).map { question in
            var settings = SamplingSettings()
            settings.maxTokens = 64
            settings.stopTokens = model.stopTokens
            return GenerationRequest(prompt: try model.promptTokens(question), settings: settings)
        }
        // It starts before the others, and is paused last where memory is short.
        requests[0].priority = 1
        // Sees all logits before a token is drawn; of this request alone they come to the host.
        requests[0].settings.processors = [
            LogitsProcessor { _, logits in
                for token in forbidden { logits[Int(token)] = -.infinity }
            }
        ]
        // Asks of its own: nobody learns from timing that another began alike.
        requests[requests.count - 1].cacheSalt = "of the last asker"
        try await withThrowingTaskGroup(of: (Int, String).self) { group in
            for (index, request) in requests.enumerated() {
                let events = try model.events(request)
                group.addTask {
                    var answer = ""
                    for try await event in events { answer += event.text }
                    return (index, answer)
                }
            }
            for try await (index, answer) in group { print("\(index): \(answer)") }
        }
    }
}
