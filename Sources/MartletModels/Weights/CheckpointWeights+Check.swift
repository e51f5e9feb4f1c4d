// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletGraph

extension CheckpointWeights {
    /// Compares what a model reads with what the checkpoint holds, before anything is built.
    ///
    /// A weight that nothing reads is as wrong as one that is missing: a bias left out gives other
    /// answers. Only what is all zeros, or known to be computed, may be left.
    ///
    /// - Throws: `MartletError` `.notFound` naming missing tensors, `.shapeMismatch` for others of
    ///   another shape, `.unsupported` for tensors that the architecture does not read.
    package func check(_ architecture: any ModelArchitecture) throws {
        let keys = ConfigurationKeys(architecture.summary)
        var used: Set<String> = []
        var missing: [String] = []
        var rowCounts: [String: Int] = [:]
        for entryPoint in architecture.entryPoints {
            for node in try architecture.trace(entryPoint).nodes where node.op == "parameter" {
                let source = try source(node.attributes["name"]?.string ?? "")
                let isNew = used.insert(source.tensor).inserted
                guard checkpoint.contains(source.tensor) else {
                    if isNew { missing.append(source.tensor) }
                    continue
                }
                if isNew { try refuseIntegers(source.tensor) }
                if case .rows(let tensor, let rows) = source {
                    rowCounts[tensor] = max(rows.upperBound, rowCounts[tensor] ?? 0)
                    continue
                }
                let wanted = node.results[0].fixedShape ?? []
                let found = try checkpoint.shape(of: source.tensor)
                if found != wanted {
                    throw Self.mismatch(source.tensor, found, wanted, keys.note(found, wanted))
                }
            }
        }
        // Parts of a tensor must be all of it.
        for (tensor, end) in rowCounts.sorted(by: { $0.key < $1.key }) {
            let found = try checkpoint.shape(of: tensor)
            let wanted = [end] + found.dropFirst()
            if found != wanted {
                throw Self.mismatch(tensor, found, wanted, keys.note(found, wanted))
            }
        }
        if let first = missing.first {
            throw MartletError(
                .notFound,
                "the checkpoint lacks \(missing.count) of the model's tensors, such as '\(first)'"
                    + keys.note(first),
                mend: "config.json and weights do not belong together")
        }
        let left = try checkpoint.names.filter { !used.contains($0) && matters($0) }.filter {
            try !isZero($0)
        }
        if let first = left.first {
            throw MartletError(
                .unsupported,
                "the checkpoint has \(left.count) tensors that \(architecture.summary.architecture) "
                    + "does not read, such as '\(first)'" + keys.note(first),
                mend:
                    "config.json and weights do not belong together, or the model has a part that "
                    + "is not supported")
        }
    }

    /// Codes of a quantization that nobody has decoded are not numbers to compute with.
    private func refuseIntegers(_ name: String) throws {
        guard case .plain(let dtype) = try checkpoint.storage(of: name), !dtype.isFloatingPoint
        else {
            return
        }
        throw MartletError(
            .unsupported, "tensor '\(name)' has elements of type \(dtype.rawValue)",
            mend:
                "Integers are codes of a quantization that is not read: use the model as it was before, "
                + "and --quantize")
    }

    /// Whether a tensor that is not read would change the model's answers.
    private func matters(_ name: String) -> Bool {
        // A head stored beside the table that it is tied to; factors that became part of the graph.
        let ignored = ["lm_head.weight", "rope_freqs.weight"]
        let word = name.split(separator: ".").last ?? ""
        let isOfCodes = ["scale", "zero", "qweight", "absmax"].contains { word.contains($0) }
        guard ["weight", "bias"].contains(word) || isOfCodes else { return false }
        return !ignored.contains(name) && !name.hasSuffix(".attn.bias")
    }

    private func isZero(_ name: String) throws -> Bool {
        let shape = try checkpoint.shape(of: name)
        guard shape.count == 1, case .plain(let tensor) = try checkpoint.weight(name) else {
            return false
        }
        return try tensor.floats().allSatisfy { $0 == 0 }
    }
}

/// Which keys of `config.json` stand behind sizes and names, for messages.
private struct ConfigurationKeys {
    private let sizes: [(key: String, value: Int)]
    private let layerCount: Int

    init(_ summary: ModelSummary) {
        layerCount = summary.layerCount
        sizes = [
            ("vocab_size", summary.vocabularySize), ("hidden_size", summary.hiddenSize),
            ("intermediate_size", summary.intermediateSize),
            ("num_attention_heads x head_dim", summary.headCount * summary.headDim),
            ("num_key_value_heads x head_dim", summary.kvHeadCount * summary.headDim),
            (
                "(num_attention_heads + 2 num_key_value_heads) x head_dim",
                (summary.headCount + 2 * summary.kvHeadCount) * summary.headDim
            ),
        ]
    }

    /// The keys that may have given the first size that is not as found.
    func note(_ found: [Int], _ wanted: [Int]) -> String {
        guard found.count == wanted.count,
            let size = zip(wanted, found).first(where: { $0 != $1 })?.0
        else { return "" }
        let keys = sizes.filter { $0.value == size }.map(\.key)
        return keys.isEmpty ? "" : ": \(keys.joined(separator: " or ")) is \(size)"
    }

    /// The key that decides whether a tensor is there.
    func note(_ tensor: String) -> String {
        if tensor == "lm_head.weight" { return ": tie_word_embeddings says whether it is needed" }
        let layer = tensor.split(separator: ".").lazy.compactMap { Int($0) }.first
        guard let layer else { return "" }
        if layer >= layerCount || tensor.hasSuffix(".weight") {
            return ": num_hidden_layers is \(layerCount)"
        }
        return ""
    }
}
