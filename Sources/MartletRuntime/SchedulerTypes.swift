// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend

/// Name of a request within one engine.
package struct RequestID: Sendable, Hashable, CustomStringConvertible {
    /// Serial number.
    package var rawValue: UInt64
    /// Names a request.
    package init(_ rawValue: UInt64) { self.rawValue = rawValue }
    /// The serial number.
    package var description: String { "request \(rawValue)" }
}

/// Which waiting requests may start.
package enum SchedulingPolicy: String, Sendable, Hashable, CaseIterable {
    /// One whose pages, prompt and whole answer, are there beside those of the running ones: none
    /// is ever paused.
    case guaranteedNoEvict
    /// As many as fit now; the newest is paused when pages run out, and computed again later.
    case maxUtilization
    /// A batch as `guaranteedNoEvict` would form it, but only when the batch before has ended.
    case `static`
}

/// A range of a request's tokens to compute in one step.
package struct WorkItem: Sendable, Hashable {
    /// Request.
    package var request: RequestID
    /// Where the scheduler keeps the request's state.
    package var slot: Int
    /// Positions computed.
    package var range: Range<Int>
    /// Prompt positions in the range whose logits are wanted, from its start on.
    package var contextLogitCount: Int
    /// Whether the last row draws a token.
    package var samples: Bool
    /// Position in the answer of the token drawn.
    package var outputIndex: Int
    /// First logit row of the item in the step.
    package var firstLogitRow: Int
    /// Logit row of the step before that holds the token at the range's start; nil if it is known.
    package var sourceRow: Int?
    /// First position whose token the device's sampling state is told.
    package var historyStart: Int
    /// Positions whose tokens the device's sampling state is told.
    package var historyCount: Int
    /// Whether the device must forget its sampling state of the slot's earlier user.
    package var resetsState: Bool

    /// Logit rows of the item.
    package var logitRowCount: Int {
        contextLogitCount + (samples && contextLogitCount < range.count ? 1 : 0)
    }
    /// Logit row that draws the token.
    package var sampleRow: Int { firstLogitRow + logitRowCount - 1 }
}

/// What one step computes.
package struct ScheduledStep: Sendable {
    /// Serial number, counted from 0 without gaps.
    package var number = 0
    /// Requests in order of their rows.
    package var items: [WorkItem] = []
    /// Block copies before the first kernel.
    package var blockOperations: [BlockOperation] = []
    /// T.
    package var tokenCount = 0
    /// O.
    package var logitRowCount = 0
    /// Tokens that sampling states are told.
    package var historyCount = 0

    /// An empty step; memory is kept when it is scheduled anew.
    package init() {}
}

/// What became of a request in a completed step.
package struct SchedulerEvent: Sendable, Hashable {
    /// Request.
    package var request: RequestID
    /// Index of the work item in the step.
    package var item: Int
    /// Token drawn, nil if the row failed or none was asked for.
    package var token: Int32?
    /// State of the row.
    package var status: RowStatus
    /// Set if the request ended with this step.
    package var finishReason: FinishReason?
}

/// Counts of the scheduler at one moment.
package struct SchedulerCounts: Sendable, Hashable {
    /// Requests that have not started.
    package var waiting: Int
    /// Requests that run.
    package var active: Int
    /// Requests that ended but are named by a step in flight.
    package var draining: Int
    /// Pages of the KV arena that are free.
    package var freePages: Int
}
