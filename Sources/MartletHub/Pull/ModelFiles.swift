// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Which files of a repository a model needs: one format of weights and what describes them.
package struct ModelFiles: Sendable, Hashable {
    /// Configuration, tokenizer and template: fetched before the weights, so that a folder that
    /// has its weights is complete.
    package var companions: [String]
    /// Names the weights' files, where they are several: fetched next.
    package var index: String?
    /// Weights; empty where the index has to be read first.
    package var weights: [String]

    /// Names files.
    package init(companions: [String] = [], index: String? = nil, weights: [String] = []) {
        self.companions = companions
        self.index = index
        self.weights = weights
    }

    private static let companionNames: Set<String> = [
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt", "vocab.txt", "chat_template.jinja", "chat_template.json",
    ]

    /// Chooses files by their names.
    ///
    /// Safetensors come before `.bin`, and both before GGUF; folders below the top, other
    /// frameworks, adapters, code and duplicates in another format are left alone.
    ///
    /// - Parameters:
    ///   - names: Paths of all files.
    ///   - selector: What the user named; nil for what the repository is.
    /// - Throws: `MartletError` `.notFound` if there are no such weights, `.invalidArgument` where
    ///   several fit, `.corrupt` where parts are missing; each says what there is.
    package static func choose(
        _ names: [String], _ selector: ModelReference.Selector?, of repository: HubRepository
    ) throws -> ModelFiles {
        switch selector {
        case .file(let path): return ModelFiles(weights: [path])
        case .quantization(let name):
            let matches = names.filter {
                $0.lowercased().hasSuffix(".gguf") && HubNames.holds($0, quantization: name)
            }
            if matches.isEmpty { throw nothing(name, names, repository) }
            return ModelFiles(weights: try single(matches, repository))
        case nil:
            let top = names.filter { !$0.contains("/") }
            let companions = top.filter(companionNames.contains).sorted()
            for (name, ending) in [("model", ".safetensors"), ("pytorch_model", ".bin")]
            where companions.contains("config.json") {
                if top.contains(name + ending) {
                    return ModelFiles(companions: companions, weights: [name + ending])
                }
                if top.contains("\(name)\(ending).index.json") {
                    return ModelFiles(companions: companions, index: "\(name)\(ending).index.json")
                }
            }
            let files = names.filter { $0.lowercased().hasSuffix(".gguf") }
            let models = files.filter { !$0.lowercased().contains("mmproj") }
            if models.isEmpty { throw nothing(nil, names, repository) }
            return ModelFiles(weights: try single(models, repository))
        }
    }

    /// Reads the weights' files out of the index.
    ///
    /// - Throws: `MartletError` `.corrupt` if it is malformed or names what the repository lacks.
    package mutating func read(index bytes: [UInt8], among names: [String]) throws {
        let index = index ?? ""
        guard let map = try? JSONValue.parse(bytes)["weight_map"]?.object, map.count > 0 else {
            throw MartletError(.corrupt, "\(index) has no weight_map")
        }
        let present = Set(names)
        weights = Set(map.values.compactMap(\.string)).sorted()
        if let missing = weights.first(where: { !present.contains($0) }) {
            throw MartletError(
                .corrupt, "\(index) names \(missing), which the repository lacks",
                mend: "Whoever keeps it must upload that part; take another revision until then")
        }
    }

    /// The parts of the one model that some files are, in order.
    private static func single(_ files: [String], _ repository: HubRepository) throws -> [String] {
        let models = Dictionary(grouping: files) { part($0)?.base ?? $0 }
        guard models.count == 1, let parts = models.values.first?.sorted(), let first = parts.first
        else {
            let names = models.values.compactMap { $0.min() }.sorted()
            throw MartletError(
                .invalidArgument, "\(repository) has \(models.count) such models",
                mend: "Name one: " + list(names.map { HubFile(repository, $0).description }))
        }
        if let count = part(first)?.count, count != parts.count {
            throw MartletError(
                .corrupt, "\(first) is one of \(count) parts, the repository has \(parts.count)")
        }
        return parts
    }

    /// What a file's name says of being a part: `BASE-00001-of-00003.gguf`.
    private static func part(_ name: String) -> (base: String, count: Int)? {
        let words = name.split(separator: "-", omittingEmptySubsequences: false)
        guard words.count >= 4, words[words.count - 2] == "of", words[words.count - 3].count == 5,
            Int(words[words.count - 3]) != nil,
            let count = words.last.flatMap({ Int($0.prefix { $0 != "." }) })
        else { return nil }
        return (words.dropLast(3).joined(separator: "-"), count)
    }

    private static func nothing(
        _ quantization: String?, _ names: [String], _ repository: HubRepository
    ) -> MartletError {
        let files = names.filter { $0.lowercased().hasSuffix(".gguf") }
        guard let quantization else {
            return MartletError(
                .notFound,
                "\(repository) has no weights that Martlet reads among its \(names.count) files",
                mend: "It needs config.json with model.safetensors or pytorch_model.bin, or a GGUF "
                    + "file at its top")
        }
        if files.isEmpty {
            return MartletError(
                .notFound, "\(repository) has no \(quantization): it has no GGUF file",
                mend: "Leave out :\(quantization) and pass --quantize to what you run")
        }
        let words = Set(files.compactMap(HubNames.quantization)).sorted()
        let nearest = EditDistance.nearest(quantization, among: words)
        return MartletError(
            .notFound, "\(repository) has no \(quantization) file",
            mend: (nearest.map { "Did you mean \(repository):\($0)? " } ?? "")
                + "It has " + list(words.isEmpty ? files : words))
    }

    /// The first words of a list that may be long.
    static func list(_ words: [String]) -> String {
        words.prefix(12).joined(separator: ", ")
            + (words.count > 12 ? " and \(words.count - 12) more" : "")
    }
}

extension HubNames {
    private static func words(_ fileName: String) -> [Substring] {
        (fileName.split(separator: "/").last ?? "").split { $0 == "." || $0 == "-" }
    }

    /// Whether a GGUF file's name has a quantization as one of its words, whatever the case.
    static func holds(_ fileName: String, quantization: String) -> Bool {
        words(fileName).contains { $0.lowercased() == quantization.lowercased() }
    }

    /// The word of a GGUF file's name that is a quantization, such as `Q4_K_M`, `IQ2_XXS` or `BF16`.
    static func quantization(_ fileName: String) -> String? {
        words(fileName).last { word in
            let word = word.lowercased()
            if ["f16", "f32", "bf16"].contains(word) { return true }
            let digits =
                word.droppingPrefix("iq") ?? word.droppingPrefix("tq")
                ?? word.droppingPrefix("q") ?? ""
            return digits.first?.isNumber == true && digits.contains("_")
        }.map(String.init)
    }
}
