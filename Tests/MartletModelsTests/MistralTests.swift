// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletGraph
import MartletModels
import Testing

/// Mistral: logits of transformers, with a window shorter than the prompt and without one.
@Suite struct MistralTests {
    @Test(arguments: [("mistral", nil), ("mistral", "model.gguf"), ("mistral-window", nil)])
    func logitsEqualTransformers(_ name: String, _ file: String?) async throws {
        try await expectGolden(name, file: file)
    }

    @Test(
        arguments: [
            (16, 16), (.null, nil), (0, nil), (nil, nil), (511, 511), (512, nil),
        ] as [(JSONValue?, Int?)])
    func windowIsTheCachesToo(_ value: JSONValue?, _ window: Int?) throws {
        let config = try Fixture.object("mistral/config.json", [("sliding_window", value)])
        let graph = try Fixture.architecture(config).trace()
        #expect(graph.kvGroups.map(\.window) == [window])
        #expect(graph.kvGroups.map(\.layerCount) == [2])
        for node in graph.nodes where node.op == "attention" {
            #expect(node.attributes["window"]?.int == window ?? 0)
        }
    }

    /// Transformers gives a window to configurations that do not mention it.
    @Test func absentWindowIsTheDefault() throws {
        let config = try Fixture.object(
            "mistral/config.json", [("sliding_window", nil), ("max_position_embeddings", 32_768)])
        #expect(try Fixture.architecture(config).trace().kvGroups.map(\.window) == [4096])
    }

    @Test(
        arguments: [
            ("num_key_value_heads", nil, "'num_key_value_heads' is missing"),
            ("sliding_window", -1, "'sliding_window' is -1"),
            ("sliding_window", "4k", "'sliding_window' is \"4k\""),
            ("hidden_act", "relu", "'hidden_act' is \"relu\""),
        ] as [(String, JSONValue?, String)])
    func refusesNamingTheKey(_ key: String, _ value: JSONValue?, _ message: String) throws {
        try expectRefusal("mistral/config.json", [(key, value)], naming: message)
    }
}
