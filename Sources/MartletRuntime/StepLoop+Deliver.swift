// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension StepLoop {
    /// Tells readers what became of their requests in a completed step.
    mutating func deliver(_ place: Int) {
        let (items, results) = (steps[place].items, outputs[place])
        let returned = results.logits.count
        var logits = 0
        var next = 0
        for (index, item) in items.enumerated() {
            let rows = logits..<min(logits + item.returnedRowCount, returned)
            logits = rows.upperBound
            let hasEvent = next < events.count && events[next].item == index
            let event = hasEvent ? events[next] : nil
            next += hasEvent ? 1 : 0
            deliver(event, item, results, logits: rows)
        }
        for slot in endedSearches { giveAnswers(slot) }
        endedSearches.removeAll(keepingCapacity: true)
        hostFailures.removeAll(keepingCapacity: true)
    }

    private mutating func deliver(
        _ event: SchedulerEvent?, _ item: WorkItem, _ results: StepOutputs, logits: Range<Int>
    ) {
        let slot = item.slot
        if let event, event.finishReason == .error {
            let first = RequestID(event.request.rawValue)
            guard let slot = live.firstIndex(where: { $0?.id == first }) else { return }
            return fail(slot, hostFailures[event.item] ?? rowError(event, item))
        }
        guard let event, live.indices.contains(slot), let request = live[slot],
            request.id == event.request
        else {
            if item.samples, item.request.beam == 0 { statistics.discardedRowCount += 1 }
            return
        }
        var news = GenerationEvent()
        if item.returnedRowCount > 0 || request.returnsNamedOutputs {
            addRows(&news, request, item, results, results.logits[logits])
        }
        guard !request.isSearch else {
            // What beams found is told at the end.
            if !news.isEmpty, !request.sink.receive(news) { scheduler.pause(request.id) }
            return
        }
        var finish = event.finishReason
        if let token = event.token {
            news.index = item.outputIndex
            news.token = token
            news.text = request.text.append(token, index: item.outputIndex, finish: &finish)
            if request.reportsLogProbabilities, item.sampleRow < results.logProbabilities.count {
                news.logProbability = results.logProbabilities[item.sampleRow]
                if item.sampleRow < results.topLogProbabilities.count {
                    news.topLogProbabilities = results.topLogProbabilities[item.sampleRow]
                }
            }
            statistics.generatedTokenCount += 1
            if item.outputIndex == 0 {
                statistics.firstTokenSeconds.add((ContinuousClock.now - request.arrival).seconds)
            }
        }
        news.finishReason = finish
        guard finish != nil else {
            // A reader that is behind pauses its request.
            if !request.sink.receive(news) { scheduler.pause(request.id) }
            return
        }
        if event.finishReason == nil { scheduler.stop(event.request) }
        live[slot] = nil
        statistics.finishedRequestCount += 1
        publish()  // Before the caller learns of the end, so that it finds it counted.
        _ = request.sink.receive(news)
    }

    /// Ends requests that ask for rows of which one is no numbers: those are not told as if they were.
    ///
    /// Rows that tokens are drawn from are the sampler's to look at.
    mutating func failNonFinite(_ place: Int) {
        let results = outputs[place]
        guard !(results.logits.isEmpty && results.named.isEmpty) else { return }
        var next = 0
        for (index, item) in steps[place].items.enumerated() {
            let rows = next..<min(next + item.contextLogitCount, results.logits.count)
            next = min(next + item.returnedRowCount, results.logits.count)
            guard !rows.isEmpty || !results.named.isEmpty else { continue }
            let first = RequestID(item.request.rawValue)
            guard live.indices.contains(item.slot), let request = live[item.slot],
                request.id == first
            else { continue }
            let named = request.returnsNamedOutputs ? Array(results.named.values) : []
            let returned = results.logits[rows].allSatisfy(\.isFinite)
            if returned, named.allSatisfy({ $0.allSatisfy(\.isFinite) }) { continue }
            if item.samples {
                // Arrays of their own: the executor may hold these for the step behind.
                var (tokens, status) = (results.tokens, results.status)
                tokens[item.sampleRow] = -1
                status[item.sampleRow] = .nonFinite
                (results.tokens, results.status) = (tokens, status)
                hostFailures[index] = nonFinite("position \(item.range.upperBound - 1) or before")
                continue
            }
            // A part of a prompt has no event to fail by.
            scheduler.fail(first)
            fail(item.slot, nonFinite("positions \(item.range)"))
        }
    }

    private mutating func fail(_ slot: Int, _ error: MartletError) {
        let sink = live[slot]?.sink
        live[slot] = nil
        statistics.failedRequestCount += 1
        publish()
        sink?.fail(error)
    }

    /// Adds logits, log-probabilities of the prompt, and named outputs.
    private mutating func addRows(
        _ news: inout GenerationEvent, _ request: LiveRequest, _ item: WorkItem,
        _ results: StepOutputs, _ logits: ArraySlice<[Float]>
    ) {
        let known = max(request.toldPositions - item.range.lowerBound, 0)
        let prompt = logits.prefix(item.contextLogitCount).dropFirst(known)
        request.toldPositions = max(
            request.toldPositions, item.range.lowerBound + item.contextLogitCount)
        if request.settings.returnContextLogits { news.contextLogits = Array(prompt) }
        if let count = request.settings.promptLogProbabilities {
            let tokens = request.prompt
            for (position, row) in zip(item.range.dropFirst(known), prompt)
            where position + 1 < tokens.count {
                let value = hostSampler.rank(row, of: tokens[position + 1], count: count)
                if let value { news.promptLogProbabilities.append(value) }
            }
        }
        if item.samples, !request.isSearch, request.settings.returnGenerationLogits {
            news.generationLogits = logits.last
        }
        if request.returnsNamedOutputs { news.namedOutputs = results.named }
    }

    private func rowError(_ event: SchedulerEvent, _ item: WorkItem) -> MartletError {
        let place =
            "token \(item.outputIndex) of the answer (position \(item.range.upperBound - 1))"
        if event.status == .noCandidate {
            return MartletError(
                .invalidArgument, "logit bias and mask forbid every token at \(place)",
                mend: "Forbid fewer tokens")
        }
        return nonFinite(place)
    }

    private func nonFinite(_ place: String) -> MartletError {
        let mend = executor.nonFiniteMend
        return MartletError(
            mend == nil ? .device : .limitExceeded, "the logits for \(place) are not finite",
            mend: (mend ?? "Use a wider --dtype")
                + "; under f32 look for the fault in the checkpoint's weights or sizes")
    }
}

extension [Float] {
    /// Whether all are finite numbers.
    fileprivate var isFinite: Bool {
        reduce(0) { Swift.max($0, $1.magnitude.bitPattern) } < Float.infinity.bitPattern
    }
}

extension GenerationEvent {
    /// Whether nothing of note is in it.
    fileprivate var isEmpty: Bool {
        contextLogits.isEmpty && promptLogProbabilities.isEmpty && namedOutputs.isEmpty
    }
}
