// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletModels
import Testing

/// LLaMA: logits of transformers (scripts/make-golden.py), and what the reader refuses.
@Suite struct LlamaTests {
    @Test(arguments: ["llama-mha", "llama-gqa", "llama-mqa"], ["model.safetensors", "model.gguf"])
    func logitsEqualTransformers(_ name: String, _ file: String) async throws {
        try await expectGolden(name, file: file)
    }

    @Test(
        arguments: [
            ("hidden_size", nil, "'hidden_size' is missing"),
            ("hidden_size", 0, "'hidden_size' is 0, not an integer in 1 ..."),
            (
                "max_position_embeddings", 268_435_456,
                "'max_position_embeddings' is 268435456, not an integer in 1 ... 16777216"
            ),
            ("hidden_size", -64, "'hidden_size' is -64"),
            ("hidden_size", 64.5, "'hidden_size' is 64.5"),
            ("hidden_size", .int(1 << 60), "'hidden_size' is 1152921504606846976"),
            ("intermediate_size", nil, "'intermediate_size' is missing"),
            (
                "num_hidden_layers", 100_000,
                "'num_hidden_layers' is 100000, not an integer in 1 ... 1024"
            ),
            ("num_attention_heads", "4", #"'num_attention_heads' is "4""#),
            ("num_key_value_heads", 0, "'num_key_value_heads' is 0"),
            ("head_dim", 15, "'head_dim' is 15, but rotary positions need pairs"),
            ("vocab_size", nil, "'vocab_size' is missing"),
            ("hidden_act", "gelu", #"'hidden_act' is "gelu", supported: silu"#),
            ("rms_norm_eps", 0, "'rms_norm_eps' is 0.0, not a number above 0"),
            ("rope_theta", -1.0, "'rope_theta' is -1.0, not a number above 0"),
            ("rope_theta", "1e6", "'rope_theta' is \"1e6\", not a number"),
            ("tie_word_embeddings", 1, "'tie_word_embeddings' is 1, not true or false"),
            ("attention_bias", "yes", "'attention_bias' is \"yes\""),
            (
                "rope_scaling", .object(JSONObject([("rope_type", "yarn")])),
                #"'rope_type' is "yarn""#
            ),
            ("rope_scaling", .object(JSONObject([("type", "dynamic")])), #"'type' is "dynamic""#),
            ("rope_scaling", .object(JSONObject([("type", "linear")])), "'factor' is missing"),
            ("rope_scaling", 8, "'rope_scaling' is not an object"),
            ("sliding_window", 4096, "'sliding_window' is 4096, which is not supported"),
            ("quantization_config", .object(JSONObject()), "'quantization_config' is {}"),
            ("num_local_experts", 8, "'num_local_experts' is 8"),
            ("partial_rotary_factor", 0.5, "'partial_rotary_factor' is 0.5"),
            ("attn_logit_softcapping", 50.0, "'attn_logit_softcapping' is 50.0"),
            ("layer_types", .array(["full_attention"]), "'layer_types' is no list of 2 words"),
            (
                "layer_types", .array(["full_attention", "sliding_attention"]),
                "'layer_types' has 'sliding_attention', supported: full_attention"
            ),
        ] as [(String, JSONValue?, String)])
    func refusesNamingTheKey(_ key: String, _ value: JSONValue?, _ message: String) throws {
        try expectRefusal("llama-gqa/config.json", [(key, value)], naming: message)
    }

    /// Values that change nothing are no reason to refuse.
    @Test(
        arguments: [
            ("sliding_window", 0), ("sliding_window", .null), ("num_local_experts", 0),
            ("partial_rotary_factor", 1.0), ("quantization_config", .null),
            ("layer_types", .array(["full_attention", "full_attention"])),
        ] as [(String, JSONValue)])
    func neutralValuesPass(_ key: String, _ value: JSONValue) throws {
        let config = try Fixture.object("llama-gqa/config.json", [(key, value)])
        #expect(try Fixture.architecture(config).summary.layerCount == 2)
    }

    @Test func unknownNamesAreListed() throws {
        try expectRefusal(
            "llama-gqa/config.json", [("architectures", .array(["FooForCausalLM"]))],
            naming: "Known: BaichuanForCausalLM, BaiChuanForCausalLM, LlamaForCausalLM")
        try expectRefusal("llama-gqa/config.json", [("architectures", nil)], naming: "(none named)")
    }
}
