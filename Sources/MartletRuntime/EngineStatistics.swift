// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Counts of an engine since its start.
public struct EngineStatistics: Sendable, Hashable {
    /// Steps completed.
    public var stepCount = 0
    /// Tokens computed.
    public var tokenCount = 0
    /// Tokens computed that were part of prompts.
    public var prefillTokenCount = 0
    /// Tokens computed that were part of answers.
    public var decodeTokenCount = 0
    /// Prompt tokens that were not computed, because they were known from earlier requests.
    public var reusedTokenCount = 0
    /// Times that a request gave up its pages, to be computed again later.
    public var preemptionCount = 0
    /// Times that a request whose reader was behind gave them to one that waited.
    public var asideCount = 0
    /// Those of both whose pages were copied to the host instead.
    public var swapCount = 0
    /// Answer tokens given out.
    public var generatedTokenCount = 0
    /// Rows computed for requests that had ended meanwhile.
    public var discardedRowCount = 0
    /// Requests that ended by a stop or their length.
    public var finishedRequestCount = 0
    /// Requests that the caller ended.
    public var cancelledRequestCount = 0
    /// Requests that failed.
    public var failedRequestCount = 0
    /// Most requests in a step so far.
    public var largestBatch = 0
    /// Seconds that the device worked, as it reports.
    public var deviceSeconds = 0.0
    /// Kernels that ran on the device; 0 on the CPU.
    public var kernelCount = 0
    /// Calls that started them: a graph of many kernels is one.
    public var launchCount = 0
    /// Seconds that the engine's thread spent between messages: scheduling, records, text.
    public var hostSeconds = 0.0
    /// Seconds from noticing a step's completion to submitting the next, without the submission.
    public var criticalSeconds = 0.0
    /// Submissions that `criticalSeconds` sums up.
    public var criticalStepCount = 0
    /// Requests that wait, at the last step.
    public var waitingCount = 0
    /// Requests that run, at the last step.
    public var activeCount = 0
    /// Pages of the KV arena.
    public var pageCount = 0
    /// Pages free, at the last step.
    public var freePageCount = 0
    /// Those of them whose content may be used again.
    public var cachedPageCount = 0
    /// Seconds from a step's submission, or the end of the step before it, to its end.
    public var stepSeconds = BucketHistogram(firstBound: 0.000_5)
    /// Requests in a step.
    public var stepRequests = BucketHistogram(firstBound: 1)
    /// Seconds from a request's arrival to its first token.
    public var firstTokenSeconds = BucketHistogram(firstBound: 0.005)

    /// All zero.
    public init() {}
}
