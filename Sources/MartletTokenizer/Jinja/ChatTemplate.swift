// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A message of a conversation.
package struct ChatMessage: Sendable {
    /// Who speaks: system, user, assistant, tool.
    package var role: String
    /// What is said: a text, or a list of parts.
    package var content: JSONValue
    /// Other fields, such as `tool_calls`.
    package var extra: JSONObject

    /// A message of text.
    package init(role: String, content: String, extra: JSONObject = JSONObject()) {
        self.init(role: role, content: .string(content), extra: extra)
    }

    /// A message as JSON has it: an object with `role`, `content`, and fields of its own.
    ///
    /// - Throws: `invalidArgument` without a role.
    package init(json: JSONValue) throws {
        guard let object = json.object, let role = object["role"]?.string else {
            throw MartletError(
                .invalidArgument, "a message is an object with a role, this is \(json.kind)",
                mend: "Write {\"role\": \"user\", \"content\": \"...\"}")
        }
        var extra = object
        extra["role"] = nil
        extra["content"] = nil
        self.init(role: role, content: object["content"] ?? .null, extra: extra)
    }

    /// A message whose content may be a list of parts.
    package init(role: String, content: JSONValue, extra: JSONObject = JSONObject()) {
        self.role = role
        self.content = content
        self.extra = extra
    }
}

/// A chat template: Jinja that turns a conversation into the text a model was trained on.
///
/// It renders what jinja2 3.1 renders in transformers (`trim_blocks`, `lstrip_blocks`, loop
/// controls), within
/// limits of work, size and nesting.
package struct ChatTemplate: Sendable {
    /// The Jinja source.
    package let source: String
    private let statements: [JinjaStatement]
    /// Most bytes of a source; published templates stay below 64 KiB.
    private static let sourceLimit = 256 << 10

    /// Reads a template.
    ///
    /// - Throws: `corrupt` for wrong syntax, `unsupported` naming a tag, filter or test, each with
    ///   the line.
    package init(source: String) throws {
        guard source.utf8.count <= Self.sourceLimit else {
            throw MartletError(
                .limitExceeded,
                "chat template: the source has \(source.utf8.count) bytes, the limit is "
                    + "\(Self.sourceLimit)", context: ["key": "chat_template"])
        }
        self.source = source
        statements = try JinjaParser.parse(source)
    }

    /// Renders a conversation.
    ///
    /// - Parameters:
    ///   - addGenerationPrompt: Ends with the start of the assistant's answer.
    ///   - bosToken: Text of the begin token, trusted.
    ///   - eosToken: Text of the end token, trusted.
    ///   - variables: Further variables, such as `tools`; their strings are untrusted.
    ///   - now: Local time for `strftime_now`.
    /// - Returns: The text in parts: trusted where the template wrote it, untrusted where a message
    ///   did.
    /// - Throws: `invalidArgument` for what the template refuses or does wrong, `limitExceeded`.
    package func render(
        messages: [ChatMessage], addGenerationPrompt: Bool = true, bosToken: String? = nil,
        eosToken: String? = nil, variables: JSONObject = JSONObject(),
        now: TemplateTime = .current
    ) throws -> [TextSegment] {
        let list = messages.map { message in
            var object = JSONObject()
            object["role"] = .string(message.role)
            object["content"] = message.content
            for member in message.extra.members { object[member.key] = member.value }
            return JSONValue.object(object)
        }
        var values: [String: JinjaValue] = [
            "messages": JinjaValue(.array(list)),
            "add_generation_prompt": .bool(addGenerationPrompt),
            // What transformers passes where there are none: templates compare with none.
            "tools": JinjaValue(.null), "documents": JinjaValue(.null),
        ]
        if let bosToken { values["bos_token"] = .text(bosToken) }
        if let eosToken { values["eos_token"] = .text(eosToken) }
        values["strftime_now"] = .callable(
            JinjaCallable("strftime_now") { _, arguments in
                let format = try arguments.value(0, "format")?.printed().string ?? ""
                guard let text = now.formatted(format) else {
                    throw JinjaFailure.error(
                        "strftime_now does not know the format '\(format)'")
                }
                return .text(text)
            })
        for member in variables.members { values[member.key] = JinjaValue(member.value) }
        return try JinjaRenderer(variables: values).render(statements).segments
    }

    /// Renders with variables alone.
    package func render(variables: JSONObject) throws -> [TextSegment] {
        let values = Dictionary(
            variables.members.map { ($0.key, JinjaValue($0.value)) },
            uniquingKeysWith: { first, _ in first })
        return try JinjaRenderer(variables: values).render(statements).segments
    }
}
