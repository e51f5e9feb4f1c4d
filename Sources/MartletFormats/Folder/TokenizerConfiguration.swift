// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// `tokenizer_config.json`, with what newer and older writers put into files of their own.
enum TokenizerConfiguration {
    /// Files that are read beside the tokenizer.
    static let files = [
        "tokenizer_config.json", "chat_template.jinja", "added_tokens.json",
        "special_tokens_map.json",
    ]

    /// Reads a folder's files; nil if there are none of them.
    ///
    /// The chat template is a string under `chat_template`, wherever it stood; added tokens are under
    /// `added_tokens_decoder` or, where that is missing, under `added_tokens.json`.
    ///
    /// - Throws: `MartletError` `.corrupt` naming the file, `.unsupported` for a template of another kind.
    static func read(_ folder: String) throws -> JSONObject? {
        let path = folder + "/tokenizer_config.json"
        let own = try CheckpointText.object(path, byteLimit: 16 << 20)
        var config = own ?? JSONObject()
        if let map = try CheckpointText.object(folder + "/special_tokens_map.json") {
            for member in map.members where config[member.key] == nil {
                config[member.key] = member.value
            }
        }
        if config["added_tokens_decoder"] == nil,
            let added = try CheckpointText.object(folder + "/added_tokens.json")
        {
            config["added_tokens.json"] = .object(added)
        }
        if let template = try template(folder, config, path) {
            config["chat_template"] = .string(template)
        }
        return config.members.isEmpty ? nil : config
    }

    /// The template in force: the file's, the string's, or the one of a list that is named `default`.
    private static func template(
        _ folder: String, _ config: JSONObject, _ path: String
    ) throws -> String? {
        if let text = try CheckpointText.text(folder + "/chat_template.jinja") { return text }
        guard let value = config["chat_template"], !value.isNull else { return nil }
        if let text = value.string { return text }
        let named = value.array?.first { $0["name"]?.string == "default" }
        guard let text = named?["template"]?.string else {
            throw MartletError(
                .unsupported,
                "\(path): 'chat_template' is neither a text nor a list with one named default",
                mend: "Put the template into \(folder)/chat_template.jinja")
        }
        return text
    }
}
