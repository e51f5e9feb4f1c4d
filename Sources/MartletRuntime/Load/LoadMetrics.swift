// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// What became of one request of a load.
public struct LoadRecord: Sendable, Hashable {
    /// Which entry of the plan.
    public var index: Int
    /// Tokens of the prompt.
    public var promptCount: Int
    /// Tokens of the answer.
    public var answerCount = 0
    /// Seconds from arrival to the first token.
    public var firstToken = 0.0
    /// Seconds from arrival to the end.
    public var total = 0.0
    /// Seconds between tokens, in order.
    public var gaps: [Double] = []
    /// Tokens of the answer, where the plan keeps them.
    public var tokens: [Int32] = []
    /// Whether it was cancelled before its end.
    public var isCancelled = false
    /// Whether it failed.
    public var hasFailed = false
    /// What it failed of.
    public var failure: String?

    /// A request that has not been answered.
    public init(index: Int, promptCount: Int) {
        self.index = index
        self.promptCount = promptCount
    }

    /// Seconds per token after the first; nil for answers of one.
    public var perToken: Double? {
        answerCount > 1 ? (total - firstToken) / Double(answerCount - 1) : nil
    }
}

/// What a request must keep to count as good.
public struct ServiceGoal: Sendable, Hashable {
    /// Most seconds to the first token; nil for any.
    public var firstToken: Double?
    /// Most seconds per token after it; nil for any.
    public var perToken: Double?

    /// No goal at all.
    public init() {}

    /// Reads `ttft=0.5,tpot=0.05`, in seconds.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the part that is wrong or given twice.
    public init(_ text: String) throws {
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let pair = part.split(separator: "=", omittingEmptySubsequences: false)
            guard pair.count == 2, let value = Double(pair[1]), value > 0, value.isFinite,
                pair[0] == "ttft" || pair[0] == "tpot"
            else {
                throw MartletError(
                    .invalidArgument, "'\(part)' is no service goal",
                    mend: "Write ttft=SECONDS, tpot=SECONDS or both with a comma")
            }
            guard (pair[0] == "ttft" ? firstToken : perToken) == nil else {
                throw MartletError(
                    .invalidArgument, "'\(text)' gives \(pair[0]) twice", mend: "Give each once")
            }
            if pair[0] == "ttft" { firstToken = value } else { perToken = value }
        }
    }

    func isMet(_ record: LoadRecord) -> Bool {
        !record.hasFailed && record.firstToken <= firstToken ?? .infinity
            && (record.perToken ?? 0) <= perToken ?? .infinity
    }
}

/// Throughput and latencies of a load.
public struct LoadMetrics: Sendable {
    /// Seconds from the first arrival to the last end.
    public var duration: Double
    /// Requests answered.
    public private(set) var completed = 0
    /// Requests that failed.
    public private(set) var failed = 0
    /// Requests that were cancelled; the other figures leave them out.
    public private(set) var cancelled = 0
    /// Requests that met the goal.
    public private(set) var good = 0
    /// Tokens of prompts and of answers.
    public private(set) var inputTokens = 0, outputTokens = 0
    /// Arrival to first token.
    public private(set) var firstToken = LatencyHistogram()
    /// Per token after the first, one value a request.
    public private(set) var perToken = LatencyHistogram()
    /// Between tokens, one value a gap.
    public private(set) var betweenTokens = LatencyHistogram()
    /// Arrival to end.
    public private(set) var total = LatencyHistogram()

    /// Sums up records.
    public init(_ records: [LoadRecord], duration: Double, goal: ServiceGoal = ServiceGoal()) {
        self.duration = duration
        for record in records {
            if record.hasFailed {
                failed += 1
                continue
            }
            if record.isCancelled {
                cancelled += 1
                continue
            }
            completed += 1
            good += goal.isMet(record) ? 1 : 0
            inputTokens += record.promptCount
            outputTokens += record.answerCount
            total.add(record.total)
            if record.answerCount > 0 { firstToken.add(record.firstToken) }
            if let value = record.perToken { perToken.add(value) }
            for gap in record.gaps { betweenTokens.add(gap) }
        }
    }

    private func rate(_ count: Int) -> Double { duration > 0 ? Double(count) / duration : 0 }

    /// Requests answered per second.
    public var requestRate: Double { rate(completed) }
    /// Answer tokens per second.
    public var outputRate: Double { rate(outputTokens) }
    /// Requests per second that met the goal.
    public var goodRate: Double { rate(good) }

    /// The metrics under the names of vLLM's `bench serve`, latencies in milliseconds.
    public func json(percentiles: [Double] = [50, 90, 99]) -> JSONObject {
        var members: [(String, JSONValue)] = [
            ("duration", .double(duration)), ("completed", .int(completed)),
            ("failed", .int(failed)), ("cancelled", .int(cancelled)),
            ("total_input_tokens", .int(inputTokens)),
            ("total_output_tokens", .int(outputTokens)),
            ("request_throughput", .double(requestRate)),
            ("request_goodput", .double(goodRate)), ("output_throughput", .double(outputRate)),
            ("total_token_throughput", .double(rate(inputTokens + outputTokens))),
        ]
        for (name, histogram) in [
            ("ttft", firstToken), ("tpot", perToken), ("itl", betweenTokens), ("e2el", total),
        ] {
            members.append(("mean_\(name)_ms", .double(histogram.mean * 1e3)))
            members.append(("median_\(name)_ms", .double(histogram.percentile(50) * 1e3)))
            members.append(("std_\(name)_ms", .double(histogram.deviation * 1e3)))
            for percent in percentiles {
                let whole = Int(exactly: percent).map(String.init) ?? "\(percent)"
                members.append(
                    ("p\(whole)_\(name)_ms", .double(histogram.percentile(percent) * 1e3)))
            }
        }
        return JSONObject(members)
    }
}
