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
        /// In SentencePiece's `tokenizer.model`, with `tokenizer_config.json` beside it or not.
        case sentencePiece(model: ByteView, configuration: JSONValue?)
        /// In `vocab.json` and `merges.txt`, with the `model_type` of `config.json`.
        case merges(
            vocabulary: ByteView, merges: ByteView, configuration: JSONValue?, modelType: String?)
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

    /// Opens a `.gguf` file, a folder in Hugging Face's layout, or weights in such a folder:
    /// `.safetensors`, `.bin`, or the index of several.
    ///
    /// - Throws: `MartletError` saying what is missing and what would mend it.
    package static func open(_ path: String) throws -> ModelSource {
        if path.hasSuffix(".gguf") { return try GGUFModel.open(path) }
        if CheckpointFolder.isWeights(path), !FileStatus.isFolder(path) {
            return try open(folder: CheckpointFolder.folder(of: path), weights: path)
        }
        return try open(folder: path, weights: CheckpointFolder.weights(in: path))
    }

    /// Files that decide a model's content, without opening any weights.
    package static func files(of path: String) -> [String] {
        if path.hasSuffix(".gguf") { return [path] }
        let isWeights = CheckpointFolder.isWeights(path) && !FileStatus.isFolder(path)
        let folder = isWeights ? CheckpointFolder.folder(of: path) : path
        let weights = isWeights ? path : try? CheckpointFolder.weights(in: folder)
        return (weights.map(CheckpointFolder.files(of:)) ?? [])
            + textFiles.map { folder + "/" + $0 }
    }

    private static let textFiles =
        [
            "config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt",
            "generation_config.json",
        ] + TokenizerConfiguration.files

    private static func open(folder: String, weights: String) throws -> ModelSource {
        let configPath = folder + "/config.json"
        guard let config = try CheckpointText.object(configPath) else {
            throw MartletError(
                .notFound, "there is no \(configPath) beside the weights",
                mend: "Put the model's config.json beside \(weights)")
        }
        let tokenizerConfig = try TokenizerConfiguration.read(folder)
        let textConfig = tokenizerConfig.map(JSONValue.object)
        var tokenizer = TokenizerFiles.none
        if let bytes = try text(folder + "/tokenizer.json") {
            tokenizer = .json(tokenizer: bytes, configuration: textConfig)
        } else if let bytes = try text(folder + "/tokenizer.model") {
            tokenizer = .sentencePiece(model: bytes, configuration: textConfig)
        } else if let vocabulary = try text(folder + "/vocab.json"),
            let merges = try text(folder + "/merges.txt")
        {
            tokenizer = .merges(
                vocabulary: vocabulary, merges: merges, configuration: textConfig,
                modelType: config["model_type"]?.string)
        }
        return ModelSource(
            architectures: config["architectures"]?.array?.compactMap(\.string) ?? [],
            configuration: ConfigurationReader(config, origin: configPath),
            checkpoint: try CheckpointFolder.checkpoint(weights), tokenizer: tokenizer,
            chatTemplate: tokenizerConfig?["chat_template"]?.string,
            generation: try CheckpointText.object(folder + "/generation_config.json").map(
                JSONValue.object),
            files: [configPath] + CheckpointFolder.files(of: weights),
            displayName: FileStatus.name(folder))
    }

    /// A file's bytes; nil if there is no such file.
    private static func text(_ path: String) throws -> ByteView? {
        guard FileStatus.exists(path) else { return nil }
        let bytes = try MappedFile.map(path)
        do { try GitLFSPointer.refuse(bytes) } catch let error as MartletError {
            throw error.reading(path)
        }
        return bytes
    }

    /// Joins what a reader of a format has found.
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
