// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension CPUOp {
    /// `sample(logits)`: bias, masks, penalties and draw, by the sampler that all backends share.
    static let sample = CPUOp(
        "sample",
        families: [
            KernelFamily("sample", op: "sample") { query in
                let logits = try query.operand(0)
                _ = try query.rows(logits)
                return (try query.rowCost([logits], [], work: 2), [nil])
            }
        ],
        bind: SampleKernel.init(binder:))
}

/// The sampler of an executor, made when a plan asks for it.
///
/// `@unchecked Sendable`: used by the dispatcher thread only, once loading is over.
final class SamplerBox: @unchecked Sendable {
    private let stateSlotCount: Int
    private(set) var vocabularySize: Int?
    private var sampler: StepSampler?

    init(stateSlotCount: Int) { self.stateSlotCount = stateSlotCount }

    /// - Throws: `Refusal` if plans disagree about V.
    func use(vocabularySize: Int) throws {
        if let known = self.vocabularySize, known != vocabularySize {
            throw Refusal("one plan samples from \(known) logits, another from \(vocabularySize)")
        }
        guard sampler == nil else { return }
        self.vocabularySize = vocabularySize
        sampler = StepSampler(vocabularySize: vocabularySize, stateSlotCount: stateSlotCount)
    }

    func run(_ record: StepRecord, logits: UnsafePointer<Float>, outputs: StepOutputs) {
        sampler?.run(record, logits: logits, outputs: outputs)
    }
}

/// Draws the tokens of a step, on the dispatcher's thread.
final class SampleKernel: BoundKernel, @unchecked Sendable {
    private let box: SamplerBox
    private let logits: RowView
    /// Where rows are gathered if they do not lie close together.
    private let compact: RowView?
    private let tokens: RowView?

    init(binder: Binder) throws {
        logits = try binder.input(0)
        try binder.requireRows(logits, .O)
        compact =
            logits.floatStride == logits.columns
            ? nil : try binder.scratchRows(columns: logits.columns, rows: logits.rows)
        box = try binder.samplerBox(vocabularySize: logits.columns)
        tokens = try binder.rawOutput(0)
        if let tokens {
            try binder.require(
                tokens.format == .plain(.i32), "tokens are i32, not \(tokens.format)")
            try binder.requireRows(tokens, .O)
        }
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        // Without logits too: the histories of the step's requests are still added to.
        guard worker.index == 0, let record = step.record, let outputs = step.outputs else {
            return
        }
        var values = logits
        if let compact {
            for row in 0..<step.logitRowCount {
                compact.row(row).update(from: logits.row(row), count: logits.columns)
            }
            values = compact
        }
        box.run(record, logits: values.floats, outputs: outputs)
        guard let tokens else { return }
        for (row, token) in outputs.tokens.enumerated() where row < step.logitRowCount {
            tokens.raw(row).storeBytes(of: token, as: Int32.self)
        }
    }
}
