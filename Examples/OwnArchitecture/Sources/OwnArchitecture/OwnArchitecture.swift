// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Martlet

/// Loads a checkpoint of an architecture that Martlet does not know, quantized, and runs it.
@main
enum OwnArchitecture {
    static func main() throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("own-architecture-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try TinyCheckpoint.write(to: folder)

        var options = LoadOptions()
        options.architectures = .builtIn + [ParallelDecoder.self]
        options.quantize = "int8"
        options.engineCache = nil
        let model = try LanguageModel.load(folder.path, options: options)
        var settings = SamplingSettings()
        settings.maxTokens = 8
        let answer = try model.generateBatch([
            GenerationRequest(prompt: [1, 2, 3], settings: settings)
        ])[0]
        print(answer.tokens.map(String.init).joined(separator: " "))
    }
}
