// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Martlet

/// A checkpoint of the architecture with random weights, as a training run would leave one.
enum TinyCheckpoint {
    private static let configuration = """
        {"architectures": ["ParallelForCausalLM"], "hidden_size": 64, "intermediate_size": 160,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 256, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}
        """

    /// Name and sizes of each tensor.
    private static var tensors: [(name: String, shape: [Int])] {
        let layers = (0..<3).flatMap { layer in
            [
                ("ln", [64]), ("self_attn.q_proj", [64, 64]), ("self_attn.k_proj", [32, 64]),
                ("self_attn.v_proj", [32, 64]), ("self_attn.o_proj", [64, 64]),
                ("mlp.gate_proj", [160, 64]), ("mlp.up_proj", [160, 64]),
                ("mlp.down_proj", [64, 160]),
            ].map { ("model.layers.\(layer).\($0.0).weight", $0.1) }
        }
        return layers + [
            ("model.embed_tokens.weight", [256, 64]), ("model.norm.weight", [64]),
            ("lm_head.weight", [256, 64]),
        ]
    }

    /// Writes `config.json` and `model.safetensors` into a folder.
    static func write(to folder: URL) throws {
        var header: [String] = []
        var data = Data()
        for (name, shape) in tensors {
            guard case .plain(let tensor) = try RandomWeights().weight(name, shape: shape) else {
                continue
            }
            let start = data.count
            for value in try tensor.floats() {
                withUnsafeBytes(of: value.bitPattern.littleEndian) { data.append(contentsOf: $0) }
            }
            header.append(
                #""\#(name)":{"dtype":"F32","shape":\#(shape),"data_offsets":[\#(start),\#(data.count)]}"#
            )
        }
        let json = Data("{\(header.joined(separator: ","))}".utf8)
        var file = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) }
        file += json + data
        try file.write(to: folder.appendingPathComponent("model.safetensors"))
        try Data(configuration.utf8).write(to: folder.appendingPathComponent("config.json"))
    }
}
