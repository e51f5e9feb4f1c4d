// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Sections of a step record, in file order; the raw value is the index in the offset table.
///
/// All elements are 4 bytes, little-endian. T tokens, B requests, O logit rows, P position planes.
/// An empty section has offset 0. Per KV group g come the sections of `StepGroupField`.
package enum StepField: Int, CaseIterable, Sendable {
    /// `[T]` i32: an id >= 0, or `-1 - k` for the token that logit row k (`0 ..< O`) of the step
    /// submitted before this one sampled,
    /// or `Int32.min` where the row comes from `embeddings`.
    case tokenSource
    /// `[P][T]` i32: absolute positions.
    case positions
    /// `[T]` i32: request of the row, `0 ..< B`, non-decreasing.
    case requestIndex
    /// `[B + 1]` i32: first row of each request; the last entry is T.
    case queryStart
    /// `[O]` i32: rows that need logits, ascending.
    case logitRows
    /// `[O]` u32: what the logits are for, bits of `RowUse`.
    case rowUse
    /// `[O][V/32]` u32: allowed tokens (bit set = allowed); empty if nothing is masked.
    case logitMask
    /// `[B]` of `SamplingParameters`.
    case samplingParameters
    /// `[.]` of `LogitBias` (i32 id, f32 bias) that sampling parameters point into.
    case logitBias
    /// `[B]` i32: slot of the device's sampling state (history counts); -1 for none.
    case stateSlot
    /// `[B + 1]` i32: range of `history` each request adds to its state before it samples.
    case historyStart
    /// `[.]` i32: token ids for the state; the device itself adds the tokens it samples.
    case history
    /// `[B]` i32: adapter slot, -1 for none; empty if no request has one.
    case adapter
    /// `[.]` f32: rows given as embeddings, in row order; empty if all rows are ids.
    case embeddings
    /// `[B + 1]` i32: draft tokens to verify per request; empty without speculation.
    case draftStart
    /// `[.]` block operations, `BlockOperation` each, done before the first kernel.
    case blockOperations
}

/// Sections that repeat for each KV group.
package enum StepGroupField: Int, CaseIterable, Sendable {
    /// `[B]` i32: absolute position of the first token that the block table covers.
    case kvStart
    /// `[B]` i32: tokens visible after this step, counted from position 0.
    ///
    /// In a group of kind `crossAttention` these are the encoder's, whatever the rows' positions.
    case kvLength
    /// `[B][n]` i32: block ids, the first holding position `kvStart`; -1 beyond.
    case blockTable
    /// `[T]` i32: where the row's key and value go: `block * blockSize + offset`; -1 for nowhere.
    ///
    /// Empty where the entry point only reads the group.
    case slot
}

/// What the logits of a row are for; bits.
package struct RowUse: OptionSet, Sendable {
    /// The bits.
    package let rawValue: UInt32
    /// Takes bits as they are; `StepValidator` refuses unknown ones.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// A token is sampled from them.
    package static let sample = RowUse(rawValue: 1)
    /// They are returned to the host.
    package static let returnLogits = RowUse(rawValue: 2)
    /// A draft token is verified against them.
    package static let verify = RowUse(rawValue: 4)
}

/// A copy of whole KV blocks.
package struct BlockOperation: Sendable, Hashable, BitwiseCopyable {
    /// Direction of a block copy.
    package enum Kind: Int32, Sendable {
        /// Device to device (copy on write).
        case copy = 0
        /// Device to host.
        case swapOut = 1
        /// Host to device.
        case swapIn = 2
    }
    /// Direction, a `Kind` raw value.
    package var kind: Int32
    /// KV group.
    package var group: Int32
    /// Block read.
    package var source: Int32
    /// Block written.
    package var destination: Int32

    /// Describes a copy.
    package init(kind: Kind, group: Int, source: Int32, destination: Int32) {
        self.kind = kind.rawValue
        self.group = Int32(group)
        self.source = source
        self.destination = destination
    }
}

/// How the next token of a request is drawn; one fixed-size record per request.
///
/// Order of work: mask and bias, repetition then presence and frequency penalties, temperature,
/// top-k, top-p, min-p, typical-p, draw by Philox(seed, position).
package struct SamplingParameters: Sendable, Hashable, BitwiseCopyable {
    /// 0 means greedy.
    package var temperature: Float = 0
    /// Keep the k most likely; 0 for all.
    package var topK: Int32 = 0
    /// Keep the smallest set with this mass; 1 for all.
    package var topP: Float = 1
    /// Keep tokens at least this fraction as likely as the best; 0 for all.
    package var minP: Float = 0
    /// Typical sampling mass; 1 for off.
    package var typicalP: Float = 1
    /// Divides positive and multiplies negative logits of seen tokens; 1 for off.
    package var repetitionPenalty: Float = 1
    /// Subtracted once from logits of generated tokens that occurred.
    package var presencePenalty: Float = 0
    /// Subtracted per occurrence in the generated tokens.
    package var frequencyPenalty: Float = 0
    /// Low and high word of the request's seed.
    package var seedLow: UInt32 = 0
    /// High word of the seed.
    package var seedHigh: UInt32 = 0
    /// Index of the token being drawn in the request's output: the Philox counter.
    package var outputPosition: UInt32 = 0
    /// Log-probabilities to return besides the sampled token's: 0 ..< 256; -1 for none at all.
    package var logProbabilityCount: Int32 = -1
    /// First pair in `logitBias`.
    package var biasStart: Int32 = 0
    /// Pairs in `logitBias`.
    package var biasCount: Int32 = 0
    /// Prompt tokens at the head of this step's history range, which count only for repetition.
    package var promptHistoryCount: Int32 = 0
    /// Bit 0: forget the state slot's content before adding history.
    package var flags: UInt32 = 0

    /// Greedy, no penalties.
    package init() {}

    /// Forget the state slot's content first.
    package static let resetState: UInt32 = 1
}
