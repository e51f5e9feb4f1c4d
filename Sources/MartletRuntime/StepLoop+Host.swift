// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension StepLoop {
    /// Draws on the host for requests whose logits came back, and notes what beams may go on with.
    mutating func drawOnHost(_ place: Int) {
        let results = outputs[place]
        var logits = 0
        for (index, item) in steps[place].items.enumerated() {
            let end = min(logits + item.returnedRowCount, results.logits.count)
            let row = end > logits ? results.logits[end - 1] : []
            logits = end
            guard item.samples, !item.isPadding, item.sampleRow < results.tokens.count else {
                continue
            }
            let state = scheduler.states[item.slot]
            // A request that has ended may have left its slot to another.
            guard state.id == item.request, state.phase == .active else { continue }
            let isBeam = state.facts.rowCount > 1
            guard item.drawsOnHost || isBeam else { continue }
            do {
                let draw = HostSampler.Draw(facts: state.facts, tokens: state.tokens)
                if isBeam {
                    try noteBeam(item, row, draw, results)
                } else {
                    try drawToken(item, row, draw, results)
                }
            } catch {
                hostFailures[index] =
                    error as? MartletError
                    ?? MartletError(.internalError, "drawing on the host failed", cause: error)
                results.tokens[item.sampleRow] = -1
                results.status[item.sampleRow] = .noCandidate
            }
        }
    }

    private mutating func drawToken(
        _ item: WorkItem, _ row: [Float], _ draw: HostSampler.Draw, _ results: StepOutputs
    ) throws {
        var top: [TokenLogProbability] = []
        let result = try hostSampler.draw(row, draw, top: &top)
        results.tokens[item.sampleRow] = result.token
        results.status[item.sampleRow] = result.status
        if item.sampleRow < results.logProbabilities.count {
            results.logProbabilities[item.sampleRow] = result.logProbability
        }
        if item.sampleRow < results.topLogProbabilities.count {
            results.topLogProbabilities[item.sampleRow] = top
        }
    }

    private mutating func noteBeam(
        _ item: WorkItem, _ row: [Float], _ draw: HostSampler.Draw, _ results: StepOutputs
    ) throws {
        let first = RequestID(item.request.rawValue)
        guard let slot = scheduler.slot(of: first), live.indices.contains(slot),
            let request = live[slot], request.id == first, let width = request.search?.width
        else { return }
        var found: [TokenLogProbability] = []
        if item.drawsOnHost {
            guard let continuations = try hostSampler.continuations(row, draw) else {
                results.status[item.sampleRow] = .nonFinite
                return
            }
            found = continuations
            // A beam in a dead end has no continuations; the others go on.
            results.status[item.sampleRow] = .ok
            results.tokens[item.sampleRow] = found.first?.token ?? 0
        } else if item.sampleRow < results.topLogProbabilities.count {
            found = results.topLogProbabilities[item.sampleRow]
        }
        if request.rows.isEmpty { request.rows = Array(repeating: nil, count: width) }
        let beam = Int(item.request.beam)
        guard beam >= 0, beam < width else { return }
        let isKept = request.settings.returnGenerationLogits
        request.rows[beam] = BeamSearch.Row(likeliest: found, logits: isKept ? row : [])
        if found.isEmpty, isLost(request, rowCount(of: slot, width)) {
            results.status[item.sampleRow] = .noCandidate
        }
    }

    /// Whether all beams are in dead ends and no answer has ended before.
    private func isLost(_ request: LiveRequest, _ count: Int) -> Bool {
        request.rows.prefix(count).allSatisfy { $0?.likeliest.isEmpty ?? false }
            && request.search?.answers(1).isEmpty ?? true
    }

    /// Rows that a search compares next: the first step computes the prompt, of which there is one.
    private func rowCount(of slot: Int, _ width: Int) -> Int {
        scheduler.states[slot].awaitedRows > 0 ? 1 : width
    }

    /// Compares beams that have all been computed, and lets the best go on.
    mutating func advanceSearches(_ place: Int) {
        for item in steps[place].items where item.samples {
            let first = RequestID(item.request.rawValue)
            if let slot = scheduler.slot(of: first), live.indices.contains(slot),
                live[slot]?.id == first, scheduler.states[slot].phase == .active
            {
                advanceSearch(slot)
            }
        }
    }

    private mutating func advanceSearch(_ slot: Int) {
        guard let request = live[slot], var search = request.search, !request.rows.isEmpty
        else { return }
        let isFirst = scheduler.states[slot].awaitedRows > 0
        let count = rowCount(of: slot, search.width)
        let known = request.rows.prefix(count).compactMap { $0 }
        guard known.count == count else { return }
        request.rows = []
        let step = search.advance(known)
        request.search = search
        if let step {
            if isFirst { scheduler.forkBeams(request.id) }
            scheduler.reorderBeams(request.id, parents: step.parents, tokens: step.tokens)
        } else {
            scheduler.finish(request.id)
            endedSearches.append(slot)
        }
    }

    /// Tells the reader what a search has found.
    mutating func giveAnswers(_ slot: Int) {
        guard let request = live[slot] else { return }
        let count = request.settings.answerCount
        let answers = request.search?.answers(count) ?? []
        live[slot] = nil
        statistics.finishedRequestCount += 1
        statistics.generatedTokenCount += answers.reduce(0) { $0 + $1.tokens.count }
        publish()  // Before the caller learns of the end, so that it finds it counted.
        for (choice, answer) in answers.enumerated() { give(answer, choice, to: request) }
        for choice in answers.count..<max(count, answers.count) {
            var end = GenerationEvent()
            end.choice = choice
            end.finishReason = .length
            _ = request.sink.receive(end)
        }
    }

    /// Tells the reader of an answer token by token, as if they had been drawn.
    private func give(_ answer: BeamSearch.Answer, _ choice: Int, to request: LiveRequest) {
        var text = request.text
        for (index, token) in answer.tokens.enumerated() {
            let isLast = index == answer.tokens.count - 1
            let isStop = request.settings.stopTokens.contains(token)
            var event = GenerationEvent()
            event.choice = choice
            event.index = index
            event.token = token
            event.finishReason = isStop ? .stopToken : isLast ? .length : nil
            event.text = text.append(token, index: index, finish: &event.finishReason)
            if request.reportsLogProbabilities {
                event.logProbability = answer.logProbabilities[index]
                event.topLogProbabilities = answer.topLogProbabilities[index]
            }
            if request.settings.returnGenerationLogits {
                event.generationLogits = answer.logits[index]
            }
            let hasEnded = event.finishReason != nil
            if hasEnded { event.score = answer.score }
            _ = request.sink.receive(event)
            if hasEnded { return }
        }
    }
}
