// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// Several answers to one prompt, each a request of its own with its own seed; the prompt is
/// computed once, and its blocks are shared.
///
/// `@unchecked Sendable`: only the engine's thread calls it.
final class AnswerGroup: @unchecked Sendable {
    private let request: GenerationRequest
    private let ids: [RequestID]
    private let sink: any GenerationSink
    private let mailbox: Mailbox<EngineMessage>
    private var isOver = false
    /// Events of each answer, held back where the best are chosen at the end.
    private var held: [[GenerationEvent]]
    private var openCount: Int

    init(
        _ request: GenerationRequest, ids: [RequestID], sink: any GenerationSink,
        mailbox: Mailbox<EngineMessage>
    ) {
        self.request = request
        self.ids = ids
        self.sink = sink
        self.mailbox = mailbox
        held = [[GenerationEvent]](repeating: [], count: ids.count)
        openCount = ids.count
    }

    /// One of the answers as the engine sees it.
    struct Member: GenerationSink {
        let group: AnswerGroup
        let index: Int

        func receive(_ event: GenerationEvent) -> Bool { group.receive(event, index) }
        func fail(_ error: MartletError) { group.fail(error) }
    }

    /// Answers that are drawn for a request.
    static func size(_ settings: SamplingSettings) -> Int {
        settings.beamCount > 1 ? 1 : settings.bestOf ?? settings.answerCount
    }

    /// The request behind one of the answers.
    static func member(_ request: GenerationRequest, _ index: Int) -> GenerationRequest {
        var member = request
        member.settings.answerCount = 1
        member.settings.bestOf = nil
        // Odd, so that no two of the answers share a seed; the first draws as one alone would.
        member.settings.seed &+= UInt64(index) &* 0x9e37_79b9_7f4a_7c15
        if ranks(request.settings) {
            member.settings.logProbabilities = request.settings.logProbabilities ?? 0
        }
        if index > 0 {
            member.settings.returnContextLogits = false
            member.settings.promptLogProbabilities = nil
        }
        return member
    }

    private static func ranks(_ settings: SamplingSettings) -> Bool {
        size(settings) > settings.answerCount
    }

    private func receive(_ event: GenerationEvent, _ index: Int) -> Bool {
        guard !isOver else { return true }
        if event.finishReason != nil { openCount -= 1 }
        guard Self.ranks(request.settings) else {
            var event = event
            event.choice = index
            return sink.receive(event)
        }
        held[index].append(event)
        if openCount == 0 { giveBest() }
        return true
    }

    private func fail(_ error: MartletError) {
        guard !isOver else { return }
        isOver = true
        sink.fail(error)
        for id in ids { mailbox.send(.cancel(id)) }
    }

    /// Gives out the answers whose tokens are likeliest on average.
    private func giveBest() {
        isOver = true
        let scores = held.map { events in
            let values = events.compactMap(\.logProbability)
            return values.reduce(0) { $0 + Double($1) } / Double(max(values.count, 1))
        }
        let order = held.indices.sorted {
            scores[$0] == scores[$1] ? $0 < $1 : scores[$0] > scores[$1]
        }
        // What is known of the prompt came with the first answer drawn, and goes with the best.
        let prompt = held[0].map { ($0.contextLogits, $0.promptLogProbabilities) }
        for (choice, index) in order.prefix(request.settings.answerCount).enumerated() {
            for (place, event) in held[index].enumerated() {
                var event = event
                event.choice = choice
                event.contextLogits = []
                event.promptLogProbabilities = []
                if choice == 0, place == 0 {
                    event.contextLogits = prompt.flatMap(\.0)
                    event.promptLogProbabilities = prompt.flatMap(\.1)
                }
                if request.settings.logProbabilities == nil { event.logProbability = nil }
                _ = sink.receive(event)
            }
        }
        held = []
    }
}
