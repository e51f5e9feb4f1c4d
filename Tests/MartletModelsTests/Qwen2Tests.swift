// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletGraph
import MartletModels
import Testing

/// Qwen2: logits of transformers, with biases, a tied head, and a layer that slides.
@Suite struct Qwen2Tests {
    @Test(arguments: [("qwen2", nil), ("qwen2", "model.gguf"), ("qwen2-window", nil)])
    func logitsEqualTransformers(_ name: String, _ file: String?) async throws {
        try await expectGolden(name, file: file)
    }

    @Test(
        arguments: [
            ([], [nil, 16]),
            ([("use_sliding_window", false)], [nil]),
            ([("use_sliding_window", nil)], [nil]),
            ([("max_window_layers", 0)], [16]),
            ([("max_window_layers", 2)], [nil]),
            ([("max_window_layers", nil)], [nil]),
            ([("layer_types", .array(["sliding_attention", "full_attention"]))], [16, nil]),
        ] as [([(String, JSONValue?)], [Int?])])
    func layersThatSlide(_ edits: [(String, JSONValue?)], _ windows: [Int?]) throws {
        let config = try Fixture.object("qwen2-window/config.json", edits)
        let graph = try Fixture.architecture(config).trace()
        #expect(graph.kvGroups.map(\.window) == windows)
        #expect(graph.kvGroups.reduce(0) { $0 + $1.layerCount } == 2)
    }

    @Test(
        arguments: [
            ("num_key_value_heads", nil, "'num_key_value_heads' is missing"),
            ("use_sliding_window", 1, "'use_sliding_window' is 1, not true or false"),
            ("max_window_layers", -1, "'max_window_layers' is -1"),
            (
                "layer_types", .array(["full_attention", "chunked_attention"]),
                "'chunked_attention'"
            ),
            ("use_mrope", true, "'use_mrope' is true"),
            ("rope_scaling", .object(JSONObject([("type", "yarn"), ("factor", 4)])), "\"yarn\""),
        ] as [(String, JSONValue?, String)])
    func refusesNamingTheKey(_ key: String, _ value: JSONValue?, _ message: String) throws {
        try expectRefusal("qwen2-window/config.json", [(key, value)], naming: message)
    }

    /// Layers called sliding, in a model that does not slide.
    @Test func refusesContradictions() throws {
        try expectRefusal(
            "qwen2-window/config.json",
            [
                ("use_sliding_window", false),
                ("layer_types", .array(["full_attention", "sliding_attention"])),
            ], naming: "'layer_types' has 'sliding_attention'")
    }
}
