// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletHub

/// A conversation at the terminal or through a pipe.
struct ChatSession {
    let model: LanguageModel
    let settings: SamplingSettings
    /// What standard output holds: answers, or a table of everything said.
    let form: Table.Form
    /// Whether to print counts and rates after each answer.
    let isVerbose: Bool
    private var conversation: Conversation
    private var reader = MessageReader()

    init(
        _ model: LanguageModel, settings: SamplingSettings, system: String?, form: Table.Form,
        isVerbose: Bool
    ) {
        self.model = model
        self.settings = settings
        self.form = form
        self.isVerbose = isVerbose
        conversation = Conversation(system: system)
    }

    /// What a line beginning with `/` asks for.
    private static let commands: [(name: String, meaning: String)] = [
        ("/help", "this list"), ("/clear", "forget the conversation, keep the system message"),
        ("/system TEXT", "set the system message and start anew; without TEXT show it"),
        ("/save FILE", "write the conversation: Markdown, or JSON if FILE ends in .json"),
        ("/exit", "leave, as Ctrl-D does"),
    ]

    /// Answers messages until there are no more.
    ///
    /// - Throws: `MartletError` of a message through a pipe; at a terminal it is shown instead.
    mutating func run() async throws {
        defer { RawTerminal.leave() }
        if reader.isInteractive {
            Console.error(
                "\(model.precisionLine); context \(model.maxContext) tokens; /help for help")
        }
        defer { if form != .text { Console.line(transcript.rendered(form)) } }
        while true {
            switch try reader.next() {
            case .end: return
            case .interrupted: Self.tellHowToLeave()
            case .line(let text):
                do {
                    guard try await respond(to: text) else { return }
                } catch let error as MartletError where reader.isInteractive {
                    Console.error("error: " + "\(error)".visible)
                }
            }
        }
    }

    private static func tellHowToLeave() { Console.error("(/exit or Ctrl-D to leave)") }

    /// Runs a command or answers a message.
    ///
    /// - Returns: Whether to go on.
    private mutating func respond(to text: String) async throws -> Bool {
        guard !text.allSatisfy(\.isWhitespace) else { return true }
        let first = text.prefix { !$0.isWhitespace }
        // A path is no command.
        guard first.first == "/", !first.dropFirst().contains("/"), first.count > 1 else {
            try await answer(text)
            return true
        }
        let rest = String(text.dropFirst(first.count).drop(while: \.isWhitespace))
        switch first {
        case "/help", "/?": help()
        case "/clear":
            conversation = Conversation(system: conversation.system)
            Console.error("(forgotten)")
        case "/system": setSystem(rest)
        case "/save": try save(rest)
        case "/exit", "/quit", "/bye": return false
        default:
            let names = Self.commands.map { String($0.name.prefix { $0 != " " }) }
            throw MartletError(
                .invalidArgument, "unknown command '\(first)'",
                mend: EditDistance.nearest(String(first), among: names)
                    .map { "Did you mean '\($0)'?" } ?? "/help lists them")
        }
        return true
    }

    private func help() {
        for (name, meaning) in Self.commands {
            Console.error(name + String(repeating: " ", count: 14 - name.count) + meaning)
        }
        Console.error(
            """
            A line that ends in \\ goes on; \"\"\" begins and ends a message of several lines; Alt-Enter \
            makes a new line.
            Ctrl-C stops an answer. Up and down fetch earlier messages.
            """)
    }

    private mutating func setSystem(_ text: String) {
        guard !text.isEmpty else {
            return Console.error(conversation.system ?? "(the template's own system message)")
        }
        conversation = Conversation(system: text)
        Console.error("(system message set, conversation forgotten)")
    }

    private func save(_ path: String) throws {
        guard !path.isEmpty else {
            throw MartletError(.invalidArgument, "/save needs a file", mend: "/save chat.md")
        }
        let text: String
        if path.hasSuffix(".json") {
            text = transcript.rendered(.json) + "\n"
        } else {
            text = conversation.messages.map { "## \($0.role)\n\n\($0.text)\n" }
                .joined(separator: "\n")
        }
        try OutputFile.check(path)
        try OutputFile.write(Array(text.utf8), to: path)
        Console.error("(\(conversation.messages.count) messages saved in \(path))")
    }

    /// Everything said.
    private var transcript: Table {
        var table = Table(["role", "content"])
        for message in conversation.messages {
            table.add([.string(message.role), .string(message.text)])
        }
        return table
    }

    private mutating func answer(_ text: String) async throws {
        let wasShortened = conversation.isShortened
        let prompt = try conversation.ask(text, of: model, reserving: settings.maxTokens)
        if conversation.isShortened, !wasShortened {
            Console.error("(the oldest turns no longer fit the context and are left out)")
        }
        let reusedBefore = model.statistics.reusedTokenCount
        let clock = ContinuousClock()
        let start = clock.now
        do {
            let output = try await generate(GenerationRequest(prompt: prompt, settings: settings))
            conversation.answered(output.text, tokens: output.tokens, by: model)
            report(
                output, promptCount: prompt.count,
                reusedCount: model.statistics.reusedTokenCount - reusedBefore,
                seconds: (clock.now - start).seconds)
        } catch let error as MartletError {
            conversation.withdraw()
            guard error.code == .limitExceeded else { throw error }
            throw MartletError(
                error.code, error.message,
                mend: "/clear starts anew; --max-context allows more where the model does")
        }
    }

    /// Streams an answer; Ctrl-C ends it early.
    private func generate(_ request: GenerationRequest) async throws -> GenerationOutput {
        let events = try model.events(request)
        let isInteractive = reader.isInteractive
        let isData = form == .text
        @Sendable func show(_ text: String) {
            if isData { Console.write(text) } else if isInteractive { Console.status(text) }
        }
        let task = Task {
            var output = GenerationOutput()
            output.finishReason = .cancelled
            for try await event in events {
                show(event.text)
                output.append(event)
            }
            return output
        }
        Interrupt.onInterrupt { task.cancel() }
        // Between answer and prompt too, Ctrl-C does not end a conversation at the terminal.
        defer {
            if isInteractive {
                Interrupt.onInterrupt { Self.tellHowToLeave() }
            } else {
                Interrupt.onInterrupt(nil)
            }
        }
        let result = await task.result
        show("\n")
        return try result.get()
    }

    private func report(
        _ output: GenerationOutput, promptCount: Int, reusedCount: Int, seconds: Double
    ) {
        switch output.finishReason {
        case .cancelled: Console.error("(stopped)")
        case .length:
            Console.error(
                "(cut after \(output.tokens.count) tokens; --max-tokens or --max-context allow more)"
            )
        default: break
        }
        guard isVerbose else { return }
        let rate = Format.decimal(Double(output.tokens.count) / max(seconds, 1e-9), 1)
        Console.error(
            "(prompt \(promptCount) tokens, the first \(conversation.reusedTokenCount) as in the "
                + "turn before, \(reusedCount) not computed again; answer \(output.tokens.count) tokens in "
                + "\(Format.decimal(seconds, 3)) s, \(rate) tokens/s)")
    }
}
