// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletModels
import Testing

/// From names to tensors, and what is refused before anything is built.
@Suite struct CheckpointWeightsTests {
    static func tensor(_ shape: [Int], _ value: Float = 1) throws -> WeightValue {
        .plain(try TensorData([Float](repeating: value, count: shape.reduce(1, *)), shape: shape))
    }

    @Test(arguments: [
        ("embedding.weight", ["model.embed_tokens.weight"]),
        ("layers.12.attention.q.weight", ["model.layers.12.self_attn.q_proj.weight"]),
        ("layers.0.attention.k.bias", ["model.layers.0.self_attn.k_proj.bias"]),
        ("layers.3.feedForward.down.weight", ["model.layers.3.mlp.down_proj.weight"]),
        ("layers.x.inputNorm.weight", []), ("layers..inputNorm.weight", []), ("other", []),
    ])
    func huggingFaceNames(_ name: String, _ tensors: [String]) {
        #expect(WeightMap.huggingFaceDecoder.sources(of: name).map(\.tensor) == tensors)
    }

    /// Of the rules that match, the first counts whose tensor is there.
    @Test func rulesGiveWay() throws {
        let map = WeightMap([
            .init("layers.*.a") { .rows("fused.\($0)", 1..<3) }, .init("b", tensor: "b.first"),
        ]).over(
            WeightMap([.init("layers.*.a", tensor: "single.*"), .init("b", tensor: "b.second")]))
        let fused = try TensorData([0, 1, 2, 3, 4, 5, 6, 7], shape: [4, 2])
        let checkpoint = InMemoryCheckpoint([
            "fused.0": .plain(fused), "single.1": try Self.tensor([2, 2], 9),
            "b.second": try Self.tensor([1]),
        ])
        let weights = CheckpointWeights(checkpoint, map: map)
        func floats(_ name: String, _ shape: [Int]) throws -> [Float] {
            guard case .plain(let tensor) = try weights.weight(name, shape: shape) else {
                return []
            }
            return try tensor.floats()
        }
        #expect(try floats("layers.0.a", [2, 2]) == [2, 3, 4, 5])
        #expect(try floats("layers.1.a", [2, 2]) == [9, 9, 9, 9])
        #expect(try floats("b", [1]) == [1])
        let missing = #expect(throws: MartletError.self) { try floats("layers.2.a", [2, 2]) }
        #expect(missing?.description.contains("'fused.2'") == true)
        let mismatch = #expect(throws: MartletError.self) { try floats("b", [2]) }
        #expect(mismatch?.message == "tensor 'b.second' has shape [1], the configuration needs [2]")
        let unmapped = #expect(throws: MartletError.self) { try floats("c", [1]) }
        #expect(unmapped?.message.contains("'c'") == true)
    }

    @Test(arguments: [DType.f8e4m3, .f8e5m2, .bool])
    func storagesWithoutMeaningAreNamed(_ dtype: DType) throws {
        let value = WeightValue.plain(
            try TensorData(
                dtype: dtype, shape: [2, 2], bytes: ByteView([UInt8](repeating: 0, count: 4))))
        let weights = CheckpointWeights(
            InMemoryCheckpoint(["x": value]), map: WeightMap([.init("a", tensor: "x")]))
        let error = #expect(throws: MartletError.self) {
            try weights.storage(of: "a", shape: [2, 2])
        }
        #expect(error?.message == "tensor 'x' is stored as \(dtype.rawValue), which is not read")
    }

    /// A tiny model's weights with some replaced; nil removes one.
    private func check(
        _ fixture: String, _ edits: [(String, WeightValue?)]
    ) throws {
        let source = try ModelSource.open(Fixture.path(fixture))
        var values: [String: WeightValue] = [:]
        for name in source.checkpoint.names { values[name] = try source.checkpoint.weight(name) }
        for (name, value) in edits { values[name] = value }
        let architecture = try ModelRegistry.builtIn.architecture(
            named: source.architectures, source.configuration)
        try CheckpointWeights(InMemoryCheckpoint(values), map: architecture.weightMap)
            .check(architecture)
    }

    @Test func whatIsThereIsWhatIsRead() throws {
        try check("llama-gqa", [])
        try check("llama-gqa", [("model.layers.0.self_attn.rotary_emb.inv_freq", Self.tensor([8]))])
        try check("llama-gqa", [("model.layers.0.self_attn.q_proj.bias", Self.tensor([64], 0))])
        try check("llama-mqa", [("lm_head.weight", Self.tensor([256, 64]))])
        try check("baichuan2-7b", [])
        let lacks = message(
            "llama-gqa",
            [
                ("model.layers.1.mlp.up_proj.weight", nil),
                ("model.layers.1.mlp.down_proj.weight", nil),
            ])
        #expect(
            lacks.hasPrefix(
                "the checkpoint lacks 2 of the model's tensors, such as 'model.layers.1.mlp."))
        let (vector, longer) = (try Self.tensor([64]), try Self.tensor([65]))
        #expect(
            message("llama-gqa", [("model.norm.weight", longer)])
                == "tensor 'model.norm.weight' has shape [65], the configuration needs [64]: "
                + "hidden_size or num_attention_heads x head_dim is 64")
        let bias = "model.layers.0.self_attn.q_proj.bias"
        #expect(message("llama-gqa", [(bias, vector)]).contains("does not read, such as '\(bias)'"))
        let layer = message("llama-gqa", [("model.layers.2.input_layernorm.weight", vector)])
        #expect(layer.contains("1 tensors that llama does not read"))
        #expect(layer.hasSuffix("layers.2.input_layernorm.weight': num_hidden_layers is 2"))
        let head = message("llama-gqa", [("lm_head.weight", nil)])
        #expect(head.hasSuffix("'lm_head.weight': tie_word_embeddings says whether it is needed"))
        let packed = "model.layers.1.self_attn.W_pack.weight"
        let wide = try Self.tensor([97, 32])
        #expect(
            message("baichuan2-7b", [(packed, wide)])
                == "tensor '\(packed)' has shape [97, 32], the configuration needs [96, 32]: "
                + "(num_attention_heads + 2 num_key_value_heads) x head_dim is 96")
    }

    private func message(_ fixture: String, _ edits: [(String, WeightValue?)]) -> String {
        let error = #expect(throws: MartletError.self) { try check(fixture, edits) }
        return error?.message ?? ""
    }
}
