// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletGraph
import MartletModels
import Testing

/// Baichuan and Baichuan2 (scripts/make-baichuan-golden.py): tiny random models, since the published
/// weights cannot be had here.
@Suite struct BaichuanTests {
    /// A reference in torch, written from the published descriptions.
    @Test(arguments: ["baichuan-7b", "baichuan-13b", "baichuan2-7b", "baichuan2-13b"])
    func logitsEqualTheReference(_ name: String) async throws { try await expectGolden(name) }

    /// llama.cpp's architecture `baichuan`, on the same files.
    @Test(arguments: ["baichuan-7b-gguf", "baichuan-13b-gguf"])
    func logitsEqualLlamaCpp(_ name: String) async throws {
        try await expectGolden(name, file: "model.gguf")
    }

    private func graph(_ fixture: String, _ edits: [(String, JSONValue?)] = []) throws -> [String] {
        try Fixture.architecture(Fixture.object(fixture, edits)).trace().nodes.map(\.op)
    }

    /// Kinds are known by their sizes alone.
    @Test(arguments: [
        ("baichuan-7b", true, false), ("baichuan-13b", false, false),
        ("baichuan2-7b-base", true, true), ("baichuan2-13b-base", false, true),
    ])
    func publishedKindsAreTold(_ name: String, _ rotates: Bool, _ normalizes: Bool) throws {
        let ops = try graph("configurations/\(name).json")
        #expect(ops.contains("rotary") == rotates)
        #expect(ops.contains("normalizeRows") == normalizes)
    }

    @Test(
        arguments: [
            (
                [("position_embedding_type", nil)],
                "'position_embedding_type' is missing: set it to rope"
            ),
            ([("position_embedding_type", "learned")], "\"learned\", supported: rope, alibi"),
            ([("norm_head", nil)], "'norm_head' is missing: set it to true or false"),
            ([("norm_head", 1)], "'norm_head' is 1"),
            ([("tie_word_embeddings", true)], "'tie_word_embeddings' is true"),
            (
                [("max_position_embeddings", nil), ("model_max_length", 0)],
                "'model_max_length' is 0"
            ),
            (
                [("quantization_config", .object(JSONObject([("quant_method", "bitsandbytes")])))],
                "bitsandbytes"
            ),
        ] as [([(String, JSONValue?)], String)])
    func refusesNamingTheKey(_ edits: [(String, JSONValue?)], _ message: String) throws {
        try expectRefusal("baichuan2-7b/config.json", edits, naming: message)
    }

    /// 13B's configuration states its context under another key.
    @Test func contextOfBothKeys() throws {
        for name in ["baichuan2-7b-base", "baichuan2-13b-base"] {
            let config = try Fixture.object("configurations/\(name).json")
            #expect(try Fixture.architecture(config).summary.maxContext == 4096)
        }
    }
}
