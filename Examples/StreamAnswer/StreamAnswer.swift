// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// Loads a checkpoint, or an engine file, and streams an answer: `StreamAnswer MODEL.gguf "..."`.
@main
enum StreamAnswer {
    static func main() async throws {
        guard CommandLine.arguments.count == 3 else {
            print("usage: StreamAnswer MODEL PROMPT")
            return
        }
        let model = try LanguageModel.load(CommandLine.arguments[1])
        var settings = SamplingSettings()
        settings.maxTokens = 128
        for try await piece in try model.stream(CommandLine.arguments[2], settings: settings) {
            print(piece, terminator: "")
        }
        print()
    }
}
