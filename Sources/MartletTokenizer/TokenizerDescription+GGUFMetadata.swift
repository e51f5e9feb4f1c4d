// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A value of GGUF metadata, as the container's reader gives it.
package protocol GGUFMetadataValue {
    /// The text, if it is one.
    var string: String? { get }
    /// The integer, if it is one.
    var int: Int? { get }
    /// The number, if it is one.
    var double: Double? { get }
    /// The truth value, if it is one.
    var bool: Bool? { get }
    /// The list, if it is one.
    var array: [Self]? { get }
}

extension TokenizerDescription {
    /// Reads the tokenizer from all metadata of a GGUF file; nil if it has no tokens.
    ///
    /// - Throws: `corrupt` naming a key that is missing or of another type; as the reading of the single
    ///   fields does.
    package init?<Value: GGUFMetadataValue>(gguf metadata: [String: Value]) throws {
        let fields = GGUFFields(metadata: metadata)
        let tokens = try fields.list("tokens", "strings") { $0.string }
        guard let tokens else { return nil }
        let model = try fields.value("model", "a string") { $0.string } ?? "(missing)"
        let merges = try fields.list("merges", "strings") { $0.string }
        guard !tokens.isEmpty else { throw fields.failure("tokens", "has no elements") }
        guard merges != nil || model != "gpt2" else {
            throw fields.failure("merges", "is missing; the tokenizer model 'gpt2' needs it")
        }
        try self.init(
            ggufTokens: tokens, merges: merges ?? [],
            tokenTypes: fields.list("token_type", "integers") { $0.int } ?? [],
            scores: (fields.list("scores", "numbers") { $0.double } ?? []).map { Float($0) },
            model: model, pre: fields.value("pre", "a string") { $0.string },
            name: metadata["general.name"]?.string,
            bosID: fields.value("bos_token_id", "an integer") { $0.int },
            eosID: fields.value("eos_token_id", "an integer") { $0.int },
            unknownID: fields.value("unknown_token_id", "an integer") { $0.int },
            padID: fields.value("padding_token_id", "an integer") { $0.int },
            addBOS: fields.value("add_bos_token", "a boolean") { $0.bool },
            addEOS: fields.value("add_eos_token", "a boolean") { $0.bool } ?? false,
            addSpacePrefix: fields.value("add_space_prefix", "a boolean") { $0.bool },
            chatTemplate: metadata["tokenizer.chat_template"]?.string)
    }
}

/// The keys under `tokenizer.ggml`, each of the type that is due.
private struct GGUFFields<Value: GGUFMetadataValue> {
    let metadata: [String: Value]

    func failure(_ name: String, _ what: String) -> MartletError {
        MartletError(
            .corrupt, "tokenizer.ggml.\(name) \(what)",
            mend: "Convert the model to GGUF again, or use another file of it",
            context: ["key": "tokenizer.ggml.\(name)"])
    }

    /// A value; nil if there is no such key.
    func value<Wanted>(
        _ name: String, _ due: String, _ convert: (Value) -> Wanted?
    ) throws -> Wanted? {
        guard let value = metadata["tokenizer.ggml.\(name)"] else { return nil }
        guard let wanted = convert(value) else {
            throw failure(name, "is \(value.kind), \(due) is due")
        }
        return wanted
    }

    /// The elements of an array; nil if there is no such key.
    func list<Wanted>(
        _ name: String, _ due: String, _ convert: (Value) -> Wanted?
    ) throws -> [Wanted]? {
        let elements = try value(name, "an array of \(due)") { $0.array }
        return try elements?.enumerated().map { index, element in
            guard let wanted = convert(element) else {
                throw failure(
                    name, "has \(element.kind) as element \(index), an array of \(due) is due")
            }
            return wanted
        }
    }
}

extension GGUFMetadataValue {
    /// What it is, for messages.
    fileprivate var kind: String {
        if string != nil { return "a string" }
        if bool != nil { return "a boolean" }
        if int != nil { return "an integer" }
        if array != nil { return "an array" }
        return double == nil ? "an integer beyond 63 bits" : "a number"
    }
}
