// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import Testing

/// Both containers of a tiny model hold the same weights, once names and row order are undone.
@Suite struct ModelSourceTests {
    @Test(arguments: ["llama-mha", "llama-gqa", "llama-mqa", "mistral", "qwen2"])
    func containersAgree(_ name: String) throws {
        let folder = try ModelSource.open(Fixture.path(name))
        let gguf = try ModelSource.open(Fixture.path(name + "/model.gguf"))
        // Files of Mistral without a window are named `llama`, whose mathematics it has.
        #expect(
            folder.architectures == gguf.architectures
                || folder.architectures == ["MistralForCausalLM"])
        for key in ["hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size"] {
            #expect(try folder.configuration.int(key) == gguf.configuration.int(key))
        }
        #expect(!folder.checkpoint.names.isEmpty)
        for name in folder.checkpoint.names {
            guard case .plain(let a) = try folder.checkpoint.weight(name),
                case .plain(let b) = try gguf.checkpoint.weight(name)
            else {
                Issue.record("\(name) is not plain")
                continue
            }
            #expect(a.shape == b.shape && a.bytes.hasSameBytes(as: b.bytes), "\(name)")
        }
    }

    @Test func saysWhatIsMissing() {
        let error = #expect(throws: MartletError.self) {
            try ModelSource.open(Fixture.path("none"))
        }
        #expect(error?.code == .notFound)
    }
}
