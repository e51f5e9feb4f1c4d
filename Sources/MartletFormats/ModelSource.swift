// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A model on disk seen the Hugging Face way, whatever its container: configuration, weights, tokenizer.
package struct ModelSource: Sendable {
    /// Where the tokenizer is described.
    package enum TokenizerFiles: Sendable {
        /// Nowhere.
        case none
        /// In GGUF metadata.
        case gguf([String: GGUFValue])
        /// In `tokenizer.json`, with `tokenizer_config.json` beside it or not.
        case json(tokenizer: ByteView, configuration: JSONValue?)
    }

    /// Class names such as `LlamaForCausalLM`.
    package let architectures: [String]
    /// The model's `config.json`, or its equivalent.
    package let configuration: ConfigurationReader
    /// Weights under Hugging Face names.
    package let checkpoint: any CheckpointSource
    /// Tokenizer description.
    package let tokenizer: TokenizerFiles
    /// Chat template source.
    package let chatTemplate: String?
    /// `generation_config.json`, if there is one.
    package let generation: JSONValue?
    /// Files that take part.
    package let files: [String]
    /// Name for people: file or folder name.
    package let displayName: String

    /// Opens a `.gguf` file, a `.safetensors` file with `config.json` beside it, or a folder of both.
    ///
    /// - Throws: `MartletError` saying what is missing and what would mend it.
    package static func open(_ path: String) throws -> ModelSource {
        if path.hasSuffix(".gguf") { return try GGUFModel.open(path) }
        if path.hasSuffix(".safetensors") {
            let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
                .joined(separator: "/")
            return try open(folder: folder.isEmpty ? "." : folder, weights: path)
        }
        let weights = path + "/model.safetensors"
        if !FileStatus.exists(weights) {
            for (file, what) in [
                ("model.safetensors.index.json", "sharded safetensors"),
                ("pytorch_model.bin", "PyTorch .bin files"),
                ("pytorch_model.bin.index.json", "PyTorch .bin files"),
            ] where FileStatus.exists(path + "/" + file) {
                throw MartletError(
                    .unsupported, "\(path) holds \(what), which are not supported yet",
                    mend: "Use a single model.safetensors or a .gguf file")
            }
            throw MartletError(
                .notFound, "\(path) holds no model.safetensors",
                mend: "Name a folder with config.json and model.safetensors, or a .gguf file")
        }
        return try open(folder: path, weights: weights)
    }

    /// Files that decide a model's content, without opening any.
    package static func files(of path: String) -> [String] {
        if path.hasSuffix(".gguf") { return [path] }
        let folder =
            path.hasSuffix(".safetensors")
            ? path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
                .joined(separator: "/") : path
        let names = [
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
            "generation_config.json",
        ]
        return names.map { (folder.isEmpty ? "." : folder) + "/" + $0 }
    }

    private static func open(folder: String, weights: String) throws -> ModelSource {
        func json(_ name: String) throws -> JSONValue? {
            let path = folder + "/" + name
            guard FileStatus.exists(path) else { return nil }
            return try JSONValue.parse(MappedFile.map(path), name: path)
        }
        let configPath = folder + "/config.json"
        guard let config = try json("config.json")?.object else {
            throw MartletError(
                .notFound, "there is no \(configPath) beside the weights",
                mend: "Put the model's config.json beside \(weights)")
        }
        let tokenizerConfig = try json("tokenizer_config.json")
        let tokenizerPath = folder + "/tokenizer.json"
        let tokenizer: TokenizerFiles =
            FileStatus.exists(tokenizerPath)
            ? .json(tokenizer: try MappedFile.map(tokenizerPath), configuration: tokenizerConfig)
            : .none
        return ModelSource(
            architectures: config["architectures"]?.array?.compactMap(\.string) ?? [],
            configuration: ConfigurationReader(config, origin: configPath),
            checkpoint: try SafetensorsFile(path: weights), tokenizer: tokenizer,
            chatTemplate: tokenizerConfig?["chat_template"]?.string,
            generation: try json("generation_config.json"),
            files: [configPath, weights], displayName: FileStatus.name(folder))
    }

    package init(
        architectures: [String], configuration: ConfigurationReader,
        checkpoint: any CheckpointSource, tokenizer: TokenizerFiles, chatTemplate: String?,
        generation: JSONValue?, files: [String], displayName: String
    ) {
        self.architectures = architectures
        self.configuration = configuration
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.chatTemplate = chatTemplate
        self.generation = generation
        self.files = files
        self.displayName = displayName
    }
}
