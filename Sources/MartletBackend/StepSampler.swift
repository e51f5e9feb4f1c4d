// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Samples all rows of a step on the host: state slots, bias, masks and results by the step ABI.
///
/// Owned by the thread that runs the steps.
package struct StepSampler: Sendable {
    private var sampler: Sampler
    private var states: [SamplerState]
    private var top: [TokenLogProbability] = []

    /// Reserves scratch memory and state slots.
    package init(vocabularySize: Int, stateSlotCount: Int) {
        sampler = Sampler(vocabularySize: vocabularySize)
        states = (0..<max(stateSlotCount, 0)).map { _ in
            SamplerState(vocabularySize: vocabularySize)
        }
    }

    /// Updates histories, draws tokens where `rowUse` asks for it, and fills the per-row outputs.
    ///
    /// - Parameters:
    ///   - step: The step.
    ///   - logits: `[O][V]` f32.
    ///   - outputs: `tokens`, `status`, log-probabilities and `logits` are replaced.
    package mutating func run(
        _ step: StepRecord, logits: UnsafePointer<Float>, outputs: StepOutputs
    ) {
        outputs.tokens.removeAll(keepingCapacity: true)
        outputs.status.removeAll(keepingCapacity: true)
        outputs.logProbabilities.removeAll(keepingCapacity: true)
        outputs.topLogProbabilities.removeAll(keepingCapacity: true)
        outputs.logits.removeAll(keepingCapacity: true)
        updateStates(step)
        let vocabulary = sampler.vocabularySize
        guard let rows = step.section(.logitRows), let uses = step.section(.rowUse, UInt32.self),
            let requests = step.section(.requestIndex)
        else { return }
        for row in 0..<step.logitRowCount {
            let values = UnsafeBufferPointer(start: logits + row * vocabulary, count: vocabulary)
            let use = RowUse(rawValue: uses[row])
            if use.contains(.returnLogits) { outputs.logits.append(Array(values)) }
            top.removeAll(keepingCapacity: true)
            var result = SampledToken(token: -1, status: .notSampled, logProbability: 0)
            if use.contains(.sample) {
                let request = Int(requests[Int(rows[row])])
                result = draw(step, row: row, request: request, values)
                remember(result.token, step, request: request)
            }
            outputs.tokens.append(result.token)
            outputs.status.append(result.status)
            outputs.logProbabilities.append(result.logProbability)
            outputs.topLogProbabilities.append(top)
        }
    }

    private mutating func updateStates(_ step: StepRecord) {
        guard let slots = step.section(.stateSlot),
            let parameters = step.section(.samplingParameters, SamplingParameters.self)
        else { return }
        let starts = step.section(.historyStart)
        let history = step.section(.history)
        for request in 0..<step.requestCount {
            let slot = Int(slots[request])
            guard slot >= 0, slot < states.count else { continue }
            if parameters[request].flags & SamplingParameters.resetState != 0 {
                states[slot].reset()
            }
            guard let starts, let history else { continue }
            let first = Int(starts[request])
            let promptEnd = first + Int(parameters[request].promptHistoryCount)
            for index in first..<max(first, Int(starts[request + 1])) {
                if index < promptEnd {
                    states[slot].addPrompt(history[index])
                } else {
                    states[slot].addGenerated(history[index])
                }
            }
        }
    }

    private mutating func draw(
        _ step: StepRecord, row: Int, request: Int, _ values: UnsafeBufferPointer<Float>
    ) -> SampledToken {
        guard let all = step.section(.samplingParameters, SamplingParameters.self) else {
            return SampledToken(token: -1, status: .notSampled, logProbability: 0)
        }
        let parameters = all[request]
        var bias = UnsafeBufferPointer<LogitBias>(start: nil, count: 0)
        if parameters.biasCount > 0, let pairs = step.section(.logitBias, LogitBias.self) {
            bias = UnsafeBufferPointer(
                start: pairs + Int(parameters.biasStart), count: Int(parameters.biasCount))
        }
        let maskWords = (sampler.vocabularySize + 31) / 32
        let mask = step.section(.logitMask, UInt32.self).map { $0 + row * maskWords }
        let slot = step.section(.stateSlot).map { Int($0[request]) } ?? -1
        let state = slot >= 0 && slot < states.count ? states[slot] : nil
        return sampler.sample(
            values, parameters: parameters, bias: bias, mask: mask, state: state, top: &top)
    }

    private mutating func remember(_ token: Int32, _ step: StepRecord, request: Int) {
        guard token >= 0, let slot = step.section(.stateSlot).map({ Int($0[request]) }),
            slot >= 0, slot < states.count
        else { return }
        states[slot].addGenerated(token)
    }
}
