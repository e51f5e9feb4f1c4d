// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Counts of values in 16 buckets, each twice as wide as the one before; fixed memory, no allocation.
public struct BucketHistogram: Sendable, Hashable {
    /// Where the first bucket ends; each further one ends at twice the value, the last never.
    public let firstBound: Double
    private var buckets = SIMD16<UInt64>.zero
    /// Values counted.
    public private(set) var count: UInt64 = 0
    /// Their sum.
    public private(set) var sum = 0.0

    /// An empty histogram.
    public init(firstBound: Double) { self.firstBound = firstBound }

    /// Counts a value; what is no number is left out.
    public mutating func add(_ value: Double) {
        guard value.isFinite else { return }
        var index = 0
        var bound = firstBound
        while index < 15, value > bound {
            bound *= 2
            index += 1
        }
        buckets[index] &+= 1
        count &+= 1
        sum += value
    }

    /// Upper ends of the buckets and how many values are at most as large; the last end is infinite.
    public var cumulative: [(bound: Double, count: UInt64)] {
        var (bound, seen) = (firstBound, UInt64(0))
        return (0..<16).map { index in
            seen &+= buckets[index]
            defer { bound *= 2 }
            return (index == 15 ? .infinity : bound, seen)
        }
    }
}

/// One figure of an engine under the name that monitoring knows it by.
public struct Metric: Sendable, Hashable {
    /// What the figure is.
    public enum Value: Sendable, Hashable {
        /// Only grows.
        case counter(Double)
        /// As it is now.
        case gauge(Double)
        /// Distribution since the start.
        case histogram(BucketHistogram)
    }

    /// Words of lower case with underscores, unit last; a counter's ends in `_total`.
    public let name: String
    /// One sentence.
    public let help: String
    /// The figure.
    public let value: Value
}

extension EngineStatistics {
    /// All figures under their names, in a fixed order: the one place that says what is exposed.
    public var metrics: [Metric] {
        func counter(_ name: String, _ value: Int, _ help: String) -> Metric {
            Metric(name: name, help: help, value: .counter(Double(value)))
        }
        func seconds(_ name: String, _ value: Double, _ help: String) -> Metric {
            Metric(name: name, help: help, value: .counter(value))
        }
        func gauge(_ name: String, _ value: Int, _ help: String) -> Metric {
            Metric(name: name, help: help, value: .gauge(Double(value)))
        }
        func histogram(_ name: String, _ value: BucketHistogram, _ help: String) -> Metric {
            Metric(name: name, help: help, value: .histogram(value))
        }
        return [
            gauge("martlet_requests_running", activeCount, "Requests that run."),
            gauge("martlet_requests_waiting", waitingCount, "Requests that wait."),
            gauge("martlet_kv_blocks", pageCount, "Blocks of the KV arena."),
            gauge(
                "martlet_kv_blocks_used", pageCount - freePageCount, "Blocks that requests hold."),
            gauge(
                "martlet_kv_blocks_cached", cachedPageCount,
                "Free blocks whose content may be used again."),
            gauge("martlet_step_requests_largest", largestBatch, "Most requests in a step so far."),
            counter("martlet_steps_total", stepCount, "Steps completed."),
            counter("martlet_kernels_total", kernelCount, "Kernels that ran; 0 on the CPU."),
            counter("martlet_launches_total", launchCount, "Calls that started them."),
            seconds(
                "martlet_device_seconds_total", deviceSeconds, "Time that the device worked."),
            seconds(
                "martlet_host_seconds_total", hostSeconds,
                "Time that the engine's thread worked between messages."),
            seconds(
                "martlet_critical_seconds_total", criticalSeconds,
                "Time from noticing steps' completion to submitting the next."),
            counter(
                "martlet_critical_steps_total", criticalStepCount,
                "Submissions that this time sums up."),
            counter("martlet_tokens_total", tokenCount, "Tokens computed."),
            counter(
                "martlet_decode_tokens_total", decodeTokenCount, "Answer tokens computed."),
            counter("martlet_prompt_tokens_total", prefillTokenCount, "Prompt tokens computed."),
            counter(
                "martlet_prefix_hit_tokens_total", reusedTokenCount,
                "Prompt tokens known from earlier requests."),
            counter("martlet_answer_tokens_total", generatedTokenCount, "Answer tokens given out."),
            counter(
                "martlet_discarded_rows_total", discardedRowCount,
                "Rows computed for requests that had ended."),
            counter(
                "martlet_preemptions_total", preemptionCount,
                "Times that a request gave up its blocks because they ran out."),
            counter(
                "martlet_set_aside_total", asideCount,
                "Times that a request whose reader was behind gave them to another."),
            counter(
                "martlet_swaps_total", swapCount, "Times that they were copied to the host."),
            counter("martlet_requests_finished_total", finishedRequestCount, "Requests answered."),
            counter(
                "martlet_requests_cancelled_total", cancelledRequestCount,
                "Requests that the caller ended."),
            counter("martlet_requests_failed_total", failedRequestCount, "Requests that failed."),
            histogram(
                "martlet_step_seconds", stepSeconds, "Time from one step's end to the next's."),
            histogram("martlet_step_requests", stepRequests, "Requests in a step."),
            histogram(
                "martlet_first_token_seconds", firstTokenSeconds,
                "Time from a request's arrival to its first token."),
        ]
    }
}
