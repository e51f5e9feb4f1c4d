// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend

/// Name of a request, or of one beam of its search, within one engine.
package struct RequestID: Sendable, Hashable, CustomStringConvertible {
    /// Serial number.
    package var rawValue: UInt64
    /// Which beam of the request, 0 for the first or only one.
    package var beam: Int32
    /// Names a request.
    package init(_ rawValue: UInt64, beam: Int32 = 0) {
        self.rawValue = rawValue
        self.beam = beam
    }
    /// The serial number, and the beam's if it is not the first.
    package var description: String {
        beam == 0 ? "request \(rawValue)" : "beam \(beam) of request \(rawValue)"
    }
}

/// A range of a request's tokens to compute in one step; 64 bytes.
package struct WorkItem: Sendable, Hashable {
    /// Request.
    package var request: RequestID
    /// Where the scheduler keeps the request's state.
    @Compact package var slot: Int
    /// Positions computed.
    package var range: Range<Int>
    /// Logit row of the step before that holds the token at the range's start; nil if it is known.
    package var sourceRow: Int32?
    /// Which of its tokens.
    package var stream = StreamRole.generating
    /// Whether the last row draws a token.
    package var samples: Bool
    /// Whether the device must forget its sampling state of the slot's earlier user.
    package var resetsState: Bool
    /// Whether the request has finished and its row is computed for nothing, as static batches do.
    package var isPadding = false
    /// Whether the host draws the token.
    package var drawsOnHost = false
    /// Prompt positions in the range whose logits are wanted, from its start on.
    @Compact package var contextLogitCount: Int
    /// Position in the answer of the token drawn.
    @Compact package var outputIndex: Int
    /// First logit row of the item in the step.
    @Compact package var firstLogitRow: Int
    /// Positions whose tokens the device's sampling state is told.
    @Compact package var historyCount: Int
    /// Logit rows of the item that come to the host.
    @Compact package var returnedRowCount = 0

    /// First position whose token the device's sampling state is told.
    package var historyStart: Int { resetsState ? 0 : range.lowerBound }
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
    /// Which entry point runs: all items are of one stream.
    package var stream = StreamRole.generating
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
    /// Whether rows are drawn from on the host, or belong to beams.
    package var needsHost = false
    /// Steps with the same layout, if it is not 0, draw one token each for the same requests in the same
    /// order, by unchanging parameters, and do nothing else.
    package var layout = 0

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
    /// Pages of the host's arena that are free.
    package var freeHostPages: Int
}
