// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Many requests at once, instead of one shape at a time.
struct LoadFlags: ParsableArguments {
    @Option(
        help: """
            Load of random requests: lengths of prompts and answers, each a number, uniform:A-B or \
            log:A-B, such as 128,log:16-512.
            """)
    var random: String?
    @Option(
        help: """
            Load of a file: trtllm-bench's JSON lines, ShareGPT's JSON, or a trace with the columns \
            of Azure or Mooncake, whose times are kept.
            """, completion: .file())
    var requests: String?
    @Option(
        parsing: .unconditional,
        help: "Requests of the load (default: 64 random ones, or all of the file).")
    var requestCount: Int?
    @Option(
        parsing: .unconditional,
        help: "Requests a second, at random times (default: all at once, or the trace's times).")
    var requestRate: Double?
    @Option(
        parsing: .unconditional,
        help: "Requests under way at a time: the next comes when one ends.")
    var concurrency: Int?
    @Option(
        parsing: .unconditional,
        help: """
            Answer tokens that each request declares, where its own are fewer; it stops at its own \
            length.
            """)
    var declaredOutputLen: Int?
    @Option(
        help: "What counts as good: seconds to the first token and per token, ttft=0.5,tpot=0.05.")
    var slo: String?
    @Option(
        parsing: .unconditional,
        help: "Most requests that wait for a row; more are refused and fail (default: any number)."
    )
    var queueLimit: Int?
    @Option(
        parsing: .unconditional,
        help: "Share of the requests, 0 to 1, that are cancelled at random moments (default: 0).")
    var cancelShare: Double?
    @Flag(help: "Draw each request's sampling settings: filters, penalties, biases, n-grams.")
    var varySampling = false
    @Flag(help: "Then run each answered request alone and fail if any answer is another one.")
    var checkAlone = false
    @Flag(help: "Leave out requests of a file that are longer than the context.")
    var skipLong = false
    @Option(
        help:
            "Write tokens, batch, queue, blocks and times of each step here, a JSON object a line.",
        completion: .file(extensions: ["jsonl"]))
    var iterationLog: String?
    @Option(
        help: "Draw slots over steps into this SVG file, policies below each other.",
        completion: .file(extensions: ["svg"]))
    var timeline: String?
    @Flag(help: "No live view on the terminal.")
    var quiet = false

    /// Requests a second: fewer than about one a day would be waited for without end.
    private static let rates = 1e-5...1e6

    /// Whether a load is asked for.
    var isGiven: Bool { random != nil || requests != nil }

    /// Refuses what does not fit together, before anything is loaded.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the flag; `.io` for a file that cannot be made.
    func check() throws {
        if random != nil, requests != nil {
            throw MartletError(
                .invalidArgument, "--random and --requests exclude each other",
                mend: "Give one of them")
        }
        if requestRate != nil, concurrency != nil {
            throw MartletError(
                .invalidArgument, "--request-rate and --concurrency exclude each other",
                mend: "Give one of them")
        }
        if requests == nil {
            try GivenFlags.refuse(
                ["--skip-long"], "with --random, whose requests all fit", mend: "Leave it out")
        }
        try LimitOptions.require(requestCount, atLeast: 1, "--request-count")
        try LimitOptions.require(concurrency, atLeast: 1, atMost: 1 << 16, "--concurrency")
        try LimitOptions.require(declaredOutputLen, atLeast: 1, "--declared-output-len")
        try LimitOptions.require(queueLimit, atLeast: 0, "--queue-limit")
        if let requestRate, !Self.rates.contains(requestRate) {
            throw MartletError(
                .invalidArgument,
                "--request-rate is \(requestRate), but must be 0.00001 (about one a day) to "
                    + "1000000",
                mend: "Leave it out for all at once")
        }
        if let cancelShare, !(0...1).contains(cancelShare) {
            throw MartletError(
                .invalidArgument, "--cancel-share is \(cancelShare), but must be 0 to 1",
                mend: "Such as 0.5 for half of the requests")
        }
        for path in [iterationLog, timeline].compactMap({ $0 }) { try OutputFile.check(path) }
    }

    /// How requests come.
    var arrivals: LoadPlan.Arrivals {
        if let requestRate { return .poisson(rate: requestRate) }
        if let concurrency { return .concurrency(concurrency) }
        return requests == nil ? .atOnce : .recorded
    }

    /// The load's requests, text made tokens.
    ///
    /// - Parameters:
    ///   - tokens: The model's tokenizer, asked for where there is text.
    ///   - context: Longest request; nil for as long as they are.
    ///   - seed: Of random lengths.
    /// - Throws: `MartletError` naming the line that is wrong or too long.
    func items(
        _ tokens: () throws -> (String) -> [Int32], context: Int?, seed: UInt64
    ) throws -> [LoadItem] {
        let content = try content(seed)
        var (items, tooLong) = ([LoadItem](), 0)
        var tokenizer: ((String) -> [Int32])?
        for item in content.items where items.count < requestCount ?? .max {
            let item = try item.tokenized { text in
                let encode = try tokenizer ?? tokens()
                tokenizer = encode
                return encode(text)
            }
            guard let context, case let length = length(item), length > context else {
                items.append(item)
                continue
            }
            guard skipLong else {
                throw MartletError(
                    .limitExceeded,
                    "\(item.place): \(length) tokens, but the context is \(context)",
                    mend: "Raise --max-context"
                        + (requests == nil ? "" : ", or leave such requests out with --skip-long"))
            }
            tooLong += 1
        }
        for (count, what) in [
            (content.skippedCount, "conversations without question and answer"),
            (tooLong, "requests longer than the context"),
        ] where count > 0 { Console.error("\(requests ?? ""): left out \(count) \(what)") }
        if items.isEmpty, let context, tooLong > 0 {
            throw MartletError(
                .limitExceeded,
                "\(requests ?? ""): all requests are longer than the context of \(context)",
                mend: "Raise --max-context")
        }
        if let requestCount, items.count < requestCount {
            throw MartletError(
                .invalidArgument,
                "\(requests ?? "") holds \(items.count) requests, but \(requestCount) are asked for",
                mend: "Lower --request-count")
        }
        try checkDeclared(items)
        return items
    }

    /// Refuses a declared length that no request declares.
    private func checkDeclared(_ items: [LoadItem]) throws {
        guard let declaredOutputLen, let shortest = items.map(\.answerCount).min(),
            shortest > declaredOutputLen
        else { return }
        throw MartletError(
            .invalidArgument,
            "--declared-output-len is \(declaredOutputLen), but the shortest answer has "
                + "\(shortest) tokens, which it declares itself",
            mend: "Raise it above \(shortest), or leave it out")
    }

    /// Tokens of a request, prompt and declared answer.
    func length(_ item: LoadItem) -> Int {
        item.promptCount + max(item.answerCount, declaredOutputLen ?? 0)
    }

    private func content(_ seed: UInt64) throws -> LoadFile.Content {
        if let random {
            return LoadFile.Content(items: try randomItems(random, seed: seed))
        }
        guard let requests else { return LoadFile.Content(items: []) }
        return try LoadFile.parse(TextFile.read(requests), name: requests)
    }

    private func randomItems(_ text: String, seed: UInt64) throws -> [LoadItem] {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        guard parts.count == 2 else {
            throw MartletError(
                .invalidArgument, "--random \(text) is not IN,OUT",
                mend: "Such as 128,128 or uniform:64-256,log:16-512")
        }
        return LoadItem.random(
            count: requestCount ?? 64, prompt: try LengthDistribution(String(parts[0])),
            answer: try LengthDistribution(String(parts[1])), seed: seed)
    }
}
