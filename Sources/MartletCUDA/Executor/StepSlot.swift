// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// Host memory and the event of one step under way.
///
/// `@unchecked Sendable`: one owner at a time, from submission to completion of its step.
final class StepSlot: @unchecked Sendable {
    /// What is read back besides results, and where it lies in host memory.
    private struct Part {
        let output: BoundPlan.Output
        let offset: Int
        let rows: Int
    }

    private final class Buffer {
        let memory: PinnedMemory
        init(_ memory: consuming PinnedMemory) { self.memory = memory }
    }

    let done: CUDAEvent
    /// Times of plan steps, while they are wanted.
    let marks: StepMarks
    private let staging: PinnedMemory
    private let results: ResultMemory
    private let resultStart: Int
    private let stampStart: Int
    /// Bytes of tokens and their states, which lie one behind the other.
    private let resultBytes: Int
    private var parts: [Part] = []
    /// Grows to what was asked for, then stays.
    private var readBack: Buffer?
    private var hasTop = false

    init(_ device: CUDADevice, inputs: StepInputs, results: ResultMemory) throws(MartletError) {
        done = try CUDAEvent(device, isTimed: false)
        marks = StepMarks(device)
        self.results = results
        resultStart = (inputs.byteCount + 63) / 64 * 64
        resultBytes = Int(inputs.base - results.tokens)
        stampStart =
            (resultStart + resultBytes + results.rows * 8 * ResultMemory.topLimit + 7) / 8 * 8
        staging = try PinnedMemory(device, byteCount: stampStart + 16)
    }

    /// When the step began and when its kernels had ended, in nanoseconds of the GPU's clock.
    var stamps: UnsafeMutablePointer<UInt64> {
        (staging.base + stampStart).assumingMemoryBound(to: UInt64.self)
    }
    /// Seconds from the one to the other, once the step is done; 0 where the clock tells nothing, which PTX does not promise.
    var deviceSeconds: Double {
        stamps[1] > stamps[0] ? Double(stamps[1] - stamps[0]) * 1e-9 : 0
    }
    /// Where inputs are written.
    var inputs: UnsafeMutableRawPointer { staging.base }
    private var resultBase: UnsafeMutableRawPointer { staging.base + resultStart }
    private var topBase: UnsafeMutableRawPointer { resultBase + resultBytes }

    /// Fills tokens, their states and log-probabilities with what no kernel writes.
    func poisonResults(on stream: borrowing CUDAStream) throws(MartletError) {
        try stream.fill(results.tokens, with: 0xff, count: resultBytes)
    }

    /// Names what every step returns: tokens and their states.
    func readBackResults(by copier: StepCopier) {
        copier.fetch(resultBytes, from: results.tokens, to: resultBase)
    }

    /// Names what else the step returns.
    func readBackMore(
        _ step: StepRecord, _ plan: BoundPlan, by copier: StepCopier, device: CUDADevice
    ) throws(MartletError) {
        parts.removeAll(keepingCapacity: true)
        hasTop = false
        let rows = step.logitRowCount
        if plan.samples {
            if let parameters = step.section(.samplingParameters, SamplingParameters.self) {
                hasTop = (0..<step.requestCount).contains {
                    parameters[$0].logProbabilityCount > 0
                }
            }
            if hasTop {
                let count = rows * ResultMemory.topLimit * 4
                copier.fetch(count, from: results.topTokens, to: topBase)
                copier.fetch(
                    count, from: results.topValues,
                    to: topBase + results.rows * ResultMemory.topLimit * 4)
            }
        }
        let uses = step.section(.rowUse, UInt32.self)
        let wantsLogits =
            uses.map { uses in
                (0..<rows).contains { RowUse(rawValue: uses[$0]).contains(.returnLogits) }
            } ?? false
        let values = Dimension.Values(
            tokens: step.tokenCount, requests: step.requestCount, logitRows: rows, context: 0)
        var size = 0
        for output in plan.outputs where output.name != "logits" || wantsLogits || !plan.samples {
            let count = output.view.rows.evaluate(values) ?? 0
            parts.append(Part(output: output, offset: size, rows: count))
            size += (count * output.view.stride * output.view.type.byteCount + 63) / 64 * 64
        }
        guard size > 0 else { return }
        if readBack?.memory.byteCount ?? 0 < size {
            readBack = nil
            // Taking memory waits for all steps under way: seldom, and never for a few rows more.
            var room = 1 << 16
            while room < size { room *= 2 }
            readBack = Buffer(try PinnedMemory(device, byteCount: room))
        }
        guard let buffer = readBack else { return }
        for part in parts where part.rows > 0 {
            // The last row may be the last of its memory: only its own columns are read.
            let view = part.output.view
            let count = (part.rows - 1) * view.stride + view.columns
            copier.fetch(
                count * view.type.byteCount, from: view.address,
                to: buffer.memory.base + part.offset)
        }
    }

    /// Turns what came back into outputs.
    func fill(_ outputs: StepOutputs, _ step: StepRecord, _ plan: BoundPlan) {
        outputs.tokens.removeAll(keepingCapacity: true)
        outputs.status.removeAll(keepingCapacity: true)
        outputs.logProbabilities.removeAll(keepingCapacity: true)
        outputs.topLogProbabilities.removeAll(keepingCapacity: true)
        outputs.acceptedCount.removeAll(keepingCapacity: true)
        outputs.logits.removeAll(keepingCapacity: true)
        outputs.named.removeAll(keepingCapacity: true)
        if plan.samples { fillSampled(outputs, rows: step.logitRowCount) }
        let uses = step.section(.rowUse, UInt32.self)
        for part in parts {
            let isLogits = part.output.name == "logits"
            if isLogits, let uses {
                for row in 0..<part.rows
                where RowUse(rawValue: uses[row]).contains(.returnLogits) {
                    outputs.logits.append(floats(part, row: row))
                }
            }
            if !isLogits || !plan.samples {
                outputs.named[part.output.name] = (0..<part.rows).map { floats(part, row: $0) }
            }
        }
    }

    private func fillSampled(_ outputs: StepOutputs, rows: Int) {
        let words = resultBase.assumingMemoryBound(to: Int32.self)
        let values = resultBase.assumingMemoryBound(to: Float.self)
        let limit = results.rows
        let topTokens = topBase.assumingMemoryBound(to: Int32.self)
        let topValues = topBase.assumingMemoryBound(to: Float.self) + limit * ResultMemory.topLimit
        for row in 0..<rows {
            outputs.tokens.append(words[row])
            outputs.status.append(RowStatus(rawValue: words[limit + row]) ?? .nonFinite)
            outputs.logProbabilities.append(values[2 * limit + row])
            var top: [TokenLogProbability] = []
            if hasTop {
                let count = min(max(Int(words[3 * limit + row]), 0), ResultMemory.topLimit)
                for index in 0..<count {
                    let at = row * ResultMemory.topLimit + index
                    top.append(
                        TokenLogProbability(token: topTokens[at], logProbability: topValues[at]))
                }
            }
            outputs.topLogProbabilities.append(top)
        }
    }

    private func floats(_ part: Part, row: Int) -> [Float] {
        guard let base = readBack?.memory.base else { return [] }
        let view = part.output.view
        let source = base + part.offset + row * view.stride * view.type.byteCount
        return [Float](unsafeUninitializedCapacity: view.columns) { buffer, count in
            for column in 0..<view.columns {
                let value: Float =
                    switch view.type {
                    case .f16:
                        Half.float(
                            bits: source.load(fromByteOffset: column * 2, as: UInt16.self))
                    case .bf16:
                        Float(
                            BFloat16(
                                bitPattern: source.load(
                                    fromByteOffset: column * 2, as: UInt16.self)))
                    case .i32: Float(source.load(fromByteOffset: column * 4, as: Int32.self))
                    default: source.load(fromByteOffset: column * 4, as: Float.self)
                    }
                buffer.initializeElement(at: column, to: value)
            }
            count = view.columns
        }
    }
}
