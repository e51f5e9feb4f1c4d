// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Added tokens that the files beside a tokenizer name.
extension AddedToken {
    /// Keys of the special tokens, in the order in which those that no other file has are added.
    static let roles = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].map { $0 + "_token" }

    /// The entries of `added_tokens_decoder`, or else those of `added_tokens.json`, in order of id.
    ///
    /// - Throws: `corrupt` for an id that is none, or an entry without content.
    static func entries(_ config: JSONValue?) throws -> [AddedToken] {
        guard let decoder = config?["added_tokens_decoder"] else { return try olderEntries(config) }
        var entries: [AddedToken] = []
        for member in decoder.object?.members ?? [] {
            func failure(_ what: String) -> MartletError {
                MartletError(
                    .corrupt,
                    "tokenizer_config.json: added token '\(member.key.prefix(32))' \(what)",
                    context: ["key": "added_tokens_decoder.\(member.key.prefix(32))"])
            }
            guard let id = Int(member.key), id >= 0 else {
                throw failure("has no id of 0 or more")
            }
            guard let content = member.value["content"]?.string else {
                throw failure("has no content")
            }
            entries.append(AddedToken(id, content, member.value))
        }
        return entries.sorted { $0.id < $1.id }
    }

    /// `added_tokens.json` gives texts their ids; special are those that other keys name.
    private static func olderEntries(_ config: JSONValue?) throws -> [AddedToken] {
        let special = Set(named(config).map(\.content))
        var entries: [AddedToken] = []
        for member in config?["added_tokens.json"]?.object?.members ?? [] {
            guard let id = member.value.int, id >= 0 else {
                throw MartletError(
                    .corrupt,
                    "added_tokens.json: '\(member.key.prefix(32))' has no id of 0 or more but "
                        + "\(member.value.serialized().prefix(32))")
            }
            let value: JSONValue = ["special": .bool(special.contains(member.key))]
            entries.append(AddedToken(id, member.key, value))
        }
        return entries.sorted { $0.id < $1.id }
    }

    /// The special tokens that a configuration names, without ids: by role, those of a model's own, others.
    static func named(_ config: JSONValue?) -> [AddedToken] {
        guard let config else { return [] }
        var values = roles.compactMap { config[$0] }
        for member in config.object?.members ?? []
        where member.key.hasSuffix("_token") && !roles.contains(member.key) {
            if member.value.string != nil { values.append(member.value) }
        }
        let extra = config["extra_special_tokens"]
        values += extra?.object?.members.map(\.value) ?? []
        let list = extra?.array ?? []
        values += list.isEmpty ? config["additional_special_tokens"]?.array ?? [] : list
        return values.compactMap { value in
            guard let content = value.string ?? value["content"]?.string else { return nil }
            var token = AddedToken(-1, content, value)
            token.isSpecial = true
            token.isNormalized = value["normalized"]?.bool ?? false
            return token
        }
    }

    private init(_ id: Int, _ content: String, _ value: JSONValue) {
        let isSpecial = value["special"]?.bool ?? false
        self.init(
            id: id, content: content, isSpecial: isSpecial,
            singleWord: value["single_word"]?.bool ?? false,
            stripsLeft: value["lstrip"]?.bool ?? false,
            stripsRight: value["rstrip"]?.bool ?? false,
            isNormalized: value["normalized"]?.bool ?? !isSpecial)
    }
}
