// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// The results of a load, for people and for programs.
struct LoadReport {
    let name: String
    let flags: LoadFlags
    let seed: UInt64
    let goal: ServiceGoal?
    let results: [LoadResult]
    /// Whether requests were cancelled because the user ended the load.
    let isInterrupted: Bool

    /// One object a policy under the names of vLLM's `bench serve`, the engine's own counts behind.
    var fields: Table {
        let rows = results.map { result -> [(String, JSONValue)] in
            var row: [(String, JSONValue)] = [
                ("policy", .string(result.policy.rawValue)), ("model_id", .string(name)),
                ("num_prompts", .int(result.records.count)),
                ("request_rate", flags.requestRate.map { .double($0) } ?? .string("inf")),
                ("max_concurrency", flags.concurrency.map { .int($0) } ?? .null),
                ("seed", .int(Int(clamping: seed))),
            ]
            row += result.metrics.json().members.filter {
                goal != nil || $0.key != "request_goodput"
            }
            .map { ($0.key, $0.value) }
            row += [
                ("steps", .int(result.growth(\.stepCount))),
                ("mean_batch_size", .double(result.meanBatch)),
                ("prompt_tokens_computed", .int(result.growth(\.prefillTokenCount))),
                ("prefix_hit_tokens", .int(result.growth(\.reusedTokenCount))),
                ("preemptions", .int(result.growth(\.preemptionCount))),
                ("swaps", .int(result.growth(\.swapCount))),
                (
                    "device_seconds",
                    .double(
                        result.after.deviceSeconds - result.before.deviceSeconds)
                ),
            ]
            row += Self.counts(result).map { ($0, .int($1)) }
            return row
        }
        var table = Table(rows.first?.map(\.0) ?? [])
        for row in rows { table.add(row.map(\.1)) }
        return table
    }

    /// A line a figure and a column a policy; beside two, the second over the first.
    var table: Table {
        let names = results.map(\.policy.rawValue)
        var table = Table([""] + names + (results.count == 2 ? ["ratio"] : []))
        func add(_ name: String, _ places: Int, _ value: (LoadResult) -> Double) {
            let values = results.map(value)
            var row: [JSONValue] = [.string(name)]
            row += values.map { Self.number($0, places) }
            if values.count == 2 {
                row.append(values[0] > 0 ? Self.number(values[1] / values[0], 2) : .null)
            }
            table.add(row)
        }
        add("requests answered", 0) { Double($0.metrics.completed) }
        if results.contains(where: { $0.metrics.failed > 0 }) {
            add("requests failed", 0) { Double($0.metrics.failed) }
        }
        add("duration s", 2) { $0.metrics.duration }
        add("requests/s", 2) { $0.metrics.requestRate }
        if goal != nil { add("good requests/s", 2) { $0.metrics.goodRate } }
        add("prompt tokens", 0) { Double($0.metrics.inputTokens) }
        add("answer tokens", 0) { Double($0.metrics.outputTokens) }
        add("answer tokens/s", 1) { $0.metrics.outputRate }
        let histograms: [(String, (LoadMetrics) -> LatencyHistogram)] = [
            ("first token ms", \.firstToken), ("per token ms", \.perToken),
            ("between tokens ms", \.betweenTokens), ("end to end ms", \.total),
        ]
        for (name, histogram) in histograms {
            add(name + ", mean", 2) { histogram($0.metrics).mean * 1e3 }
            for percent in [50.0, 90, 99] {
                add(name + ", p\(Int(percent))", 2) {
                    histogram($0.metrics).percentile(percent) * 1e3
                }
            }
            add(name + ", largest", 2) { histogram($0.metrics).longest * 1e3 }
        }
        add("steps", 0) { Double($0.growth(\.stepCount)) }
        add("batch, mean", 2) { $0.meanBatch }
        add("prompt tokens computed", 0) { Double($0.growth(\.prefillTokenCount)) }
        add("prompt tokens known", 0) { Double($0.growth(\.reusedTokenCount)) }
        add("pauses", 0) { Double($0.growth(\.preemptionCount)) }
        add("swaps", 0) { Double($0.growth(\.swapCount)) }
        if flags.cancelShare != nil || isInterrupted {
            add("requests cancelled", 0) { Double($0.metrics.cancelled) }
        }
        for (index, count) in (results.first.map(Self.counts) ?? []).enumerated() {
            add(count.name.replacing("_", with: " "), 0) { Double(Self.counts($0)[index].value) }
        }
        return table
    }

    /// What was left of requests, where that was looked at: under every policy or none.
    private static func counts(_ result: LoadResult) -> [(name: String, value: Int)] {
        guard let rest = result.aftermath else { return [] }
        return [
            ("blocks", rest.pageCount), ("free_blocks", rest.freePageCount),
            ("resident_bytes_before", rest.before.residentBytes),
            ("resident_bytes_after", rest.after.residentBytes),
            ("descriptors_before", rest.before.descriptorCount),
            ("descriptors_after", rest.after.descriptorCount),
            ("repeated_alone", rest.repeatedCount), ("unlike_alone", rest.unlikeCount),
        ]
    }

    private static func number(_ value: Double, _ places: Int) -> JSONValue {
        .string(Format.decimal(value, places))
    }
}
