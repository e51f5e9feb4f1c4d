// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension StepBuilder {
    /// Writes how each request of a step draws: parameters, history, biases and masks.
    func fillSampling(_ record: StepRecord, _ step: ScheduledStep, _ states: States) throws {
        let count = step.items.count
        let parameters = try record.add(
            .samplingParameters, SamplingParameters.self, count: count)
        let slots = try record.add(.stateSlot, count: count)
        let historyStarts = try record.add(.historyStart, count: count + 1)
        var biasCount = 0, historyCount = 0
        var masks = false
        for index in step.items.indices {
            let item = step.items[index]
            var values = states[item.slot].parameters
            values.outputPosition = UInt32(truncatingIfNeeded: item.outputIndex)
            if !states[item.slot].isPlain, item.samples, !item.isPadding {
                if states[item.slot].facts.decaysTopP {
                    values.topP = states[item.slot].request.settings.topP(
                        at: item.outputIndex,
                        answer: states[item.slot].tokens[states[item.slot].promptCount...])
                }
                let pairs = pairCount(item, states + item.slot)
                values.biasStart = Int32(truncatingIfNeeded: biasCount)
                values.biasCount = Int32(truncatingIfNeeded: pairs)
                biasCount += pairs
                masks = masks || needsMask(states + item.slot)
            }
            let slot = states[item.slot].stateSlot
            slots[index] = slot
            historyStarts[index] = Int32(truncatingIfNeeded: historyCount)
            if item.resetsState { values.flags |= SamplingParameters.resetState }
            if slot >= 0 {
                let prompt = states[item.slot].promptCount - item.historyStart
                values.promptHistoryCount = Int32(
                    truncatingIfNeeded: max(min(prompt, item.historyCount), 0))
                historyCount += item.historyCount
            }
            parameters[index] = values
        }
        historyStarts[count] = Int32(truncatingIfNeeded: historyCount)
        if historyCount > 0 { try fillHistory(record, step, states, count: historyCount) }
        if biasCount > 0 {
            let pairs = try record.add(.logitBias, LogitBias.self, count: biasCount)
            for (index, item) in step.items.enumerated() where parameters[index].biasCount > 0 {
                fillBias(pairs, from: Int(parameters[index].biasStart), item, states + item.slot)
            }
        }
        if masks { try fillMasks(record, step, states) }
    }

    private func fillHistory(
        _ record: StepRecord, _ step: ScheduledStep, _ states: States, count: Int
    ) throws {
        let history = try record.add(.history, count: count)
        var place = 0
        for item in step.items where states[item.slot].stateSlot >= 0 {
            for offset in 0..<item.historyCount {
                history[place] = states[item.slot].tokens[item.historyStart + offset]
                place += 1
            }
        }
    }

    /// Whether stop tokens are forbidden for now.
    private func forbidsStops(_ item: WorkItem, _ state: States) -> Bool {
        item.outputIndex < state.pointee.facts.minTokens
    }

    /// Whether more tokens are forbidden than biases can say.
    private func needsMask(_ state: States) -> Bool {
        !state.pointee.bans.isEmpty
            && state.pointee.bans.count + state.pointee.facts.biases.count
                + state.pointee.facts.stopTokens.count
                > LogitBias.maxPerRequest
    }

    private func pairCount(_ item: WorkItem, _ state: States) -> Int {
        state.pointee.facts.biases.count
            + (forbidsStops(item, state) ? state.pointee.facts.stopTokens.count : 0)
            + (needsMask(state) ? 0 : state.pointee.bans.count)
    }

    private func fillBias(
        _ pairs: UnsafeMutableBufferPointer<LogitBias>, from start: Int, _ item: WorkItem,
        _ state: States
    ) {
        var place = start
        for pair in state.pointee.facts.biases {
            pairs[place] = pair
            place += 1
        }
        if forbidsStops(item, state) {
            for token in state.pointee.facts.stopTokens {
                pairs[place] = LogitBias(token: token, bias: -.infinity)
                place += 1
            }
        }
        guard !needsMask(state) else { return }
        for token in state.pointee.bans {
            pairs[place] = LogitBias(token: token, bias: -.infinity)
            place += 1
        }
    }

    /// One mask per logit row, all ones where nothing is forbidden.
    private func fillMasks(_ record: StepRecord, _ step: ScheduledStep, _ states: States) throws {
        let words = (vocabularySize + 31) / 32
        guard words > 0 else {
            throw MartletError(.internalError, "tokens are masked without a vocabulary size")
        }
        let masks = try record.add(
            .logitMask, UInt32.self, count: step.logitRowCount * words)
        masks.update(repeating: .max)
        for item in step.items
        where item.samples && !item.isPadding && needsMask(states + item.slot) {
            let first = item.sampleRow * words
            for token in states[item.slot].bans where token >= 0 && Int(token) < vocabularySize {
                masks[first + Int(token) >> 5] &= ~(1 << UInt32(token & 31))
            }
        }
    }
}
