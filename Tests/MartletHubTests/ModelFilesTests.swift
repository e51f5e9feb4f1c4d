// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import Testing

@Suite struct ModelFilesTests {
    private static let repository = HubRepository("o/n")

    private func choose(
        _ names: [String], _ selector: ModelReference.Selector? = nil
    ) throws -> ModelFiles {
        try ModelFiles.choose(names, selector, of: Self.repository)
    }

    @Test(arguments: [
        // One file of safetensors comes before everything else.
        (
            ["config.json", "model.safetensors", "pytorch_model.bin", "x.gguf", "vocab.json"],
            ModelFiles(companions: ["config.json", "vocab.json"], weights: ["model.safetensors"])
        ),
        (
            ["config.json", "model.safetensors.index.json", "pytorch_model.bin"],
            ModelFiles(companions: ["config.json"], index: "model.safetensors.index.json")
        ),
        (
            ["config.json", "tokenizer.model", "pytorch_model.bin", "flax_model.msgpack"],
            ModelFiles(
                companions: ["config.json", "tokenizer.model"], weights: ["pytorch_model.bin"])
        ),
        (
            ["config.json", "pytorch_model.bin.index.json", "x.gguf"],
            ModelFiles(companions: ["config.json"], index: "pytorch_model.bin.index.json")
        ),
        // A repository of one GGUF model, perhaps with a configuration and a projector beside it.
        (["README.md", "m.gguf"], ModelFiles(weights: ["m.gguf"])),
        (["config.json", "m-Q8_0.gguf", "mmproj-F16.gguf"], ModelFiles(weights: ["m-Q8_0.gguf"])),
        (
            ["q/m-00002-of-00002.gguf", "q/m-00001-of-00002.gguf"],
            ModelFiles(weights: ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"])
        ),
    ]) func choosesOneFormat(names: [String], wanted: ModelFiles) throws {
        #expect(try choose(names) == wanted)
    }

    private static let quantized = [
        "Model-Q4_K_M.gguf", "Model-Q8_0.gguf", "Model-BF16.gguf", "Model.IQ2_XXS.gguf",
        "Q6_K/Model-Q6_K-00001-of-00002.gguf", "Q6_K/Model-Q6_K-00002-of-00002.gguf",
    ]

    @Test(arguments: [
        ("Q4_K_M", ["Model-Q4_K_M.gguf"]), ("q8_0", ["Model-Q8_0.gguf"]),
        ("bf16", ["Model-BF16.gguf"]), ("IQ2_XXS", ["Model.IQ2_XXS.gguf"]),
        (
            "Q6_K", ["Q6_K/Model-Q6_K-00001-of-00002.gguf", "Q6_K/Model-Q6_K-00002-of-00002.gguf"]
        ),
    ]) func choosesAQuantization(name: String, wanted: [String]) throws {
        #expect(try choose(Self.quantized, .quantization(name)) == ModelFiles(weights: wanted))
    }

    @Test(
        arguments: [
            (quantized, "Q4_K_S", MartletError.Code.notFound, "Did you mean o/n:Q4_K_M?"),
            (quantized, "zzz", .notFound, "It has BF16, IQ2_XXS, Q4_K_M, Q6_K, Q8_0"),
            (
                ["a-7b-Q4_0.gguf", "a-13b-Q4_0.gguf"], "Q4_0", .invalidArgument,
                "o/n:a-13b-Q4_0.gguf"
            ),
            (["a-Q4_0-00001-of-00003.gguf"], "Q4_0", .corrupt, "one of 3 parts"),
            (["config.json", "model.safetensors"], "Q4_0", .notFound, "no GGUF file"),
            (quantized, nil, .invalidArgument, "o/n:Model-Q4_K_M.gguf"),
            (["README.md"], nil, .notFound, "no weights that Martlet reads among its 1 files"),
            (["config.json", "adapter_model.safetensors"], nil, .notFound, "no weights"),
            ([], nil, .notFound, "no weights"),
        ] as [([String], String?, MartletError.Code, String)])
    func saysWhatThereIs(
        names: [String], quantization: String?, code: MartletError.Code, text: String
    ) {
        let error = failure { try choose(names, quantization.map { .quantization($0) }) }
        #expect(error?.code == code)
        #expect(error?.description.contains(text) == true, "\(String(describing: error))")
    }

    @Test(arguments: [
        #"{"weight_map": {"a": "../../x", "b": "s1"}}"#, #"{"weight_map": {"a": "s3"}}"#,
        #"{"weight_map": {}}"#, #"{"weight_map": []}"#, "{", "",
    ]) func refusesAWrongIndex(text: String) throws {
        var files = ModelFiles(index: "i.json")
        let error = failure { try files.read(index: Array(text.utf8), among: ["s1", "s2"]) }
        #expect(error?.code == .corrupt)
        #expect(error?.message.contains("i.json") == true)
    }

    @Test func readsAnIndex() throws {
        var files = ModelFiles(index: "i.json")
        let text = #"{"metadata": {}, "weight_map": {"a": "s2", "b": "s1", "c": "s2"}}"#
        try files.read(index: Array(text.utf8), among: ["s1", "s2", "s3"])
        #expect(files.weights == ["s1", "s2"])
    }
}
