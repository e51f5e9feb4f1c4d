// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Synchronization

/// Events between the engine's thread and one reader, at most so many that the reader is not far
/// behind: then the request pauses until half of them are read.
final class StreamBuffer: GenerationSink {
    private enum End {
        case finished
        case failed(MartletError)
    }
    private struct State {
        /// Events from `head` on are unread.
        var events: [GenerationEvent] = []
        var head = 0
        var end: End?
        var isPaused = false
        /// Answers that have not ended.
        var openAnswers: Int
        var reader: CheckedContinuation<GenerationEvent?, any Error>?
        var unread: Int { events.count - head }
    }
    private let state: Mutex<State>
    private let capacity: Int
    private let ids: [RequestID]
    private let mailbox: Mailbox<EngineMessage>

    /// - Parameters:
    ///   - ids: What the mailbox's owner calls the request: one name per answer drawn.
    ///   - answerCount: Answers that the request gives.
    ///   - capacity: Events after which the request pauses, at least 1.
    init(
        _ ids: [RequestID], answerCount: Int, capacity: Int, mailbox: Mailbox<EngineMessage>
    ) {
        state = Mutex(State(openAnswers: answerCount))
        self.ids = ids
        self.capacity = max(capacity, 1)
        self.mailbox = mailbox
    }

    // MARK: The engine's side

    func receive(_ event: GenerationEvent) -> Bool {
        let (reader, goesOn) = state.withLock { state in
            if event.finishReason != nil {
                state.openAnswers -= 1
                if state.openAnswers <= 0 { state.end = .finished }
            }
            if let reader = state.reader {
                state.reader = nil
                return (Optional(reader), true)
            }
            state.events.append(event)
            // Only the reader ends a pause, and says so: events of steps in flight come behind its begin.
            if state.unread >= capacity, state.end == nil { state.isPaused = true }
            return (nil, !state.isPaused)
        }
        reader?.resume(returning: event)
        return goesOn
    }

    func fail(_ error: MartletError) {
        let reader = state.withLock { state in
            if state.end == nil { state.end = .failed(error) }
            defer { state.reader = nil }
            return state.reader
        }
        reader?.resume(throwing: error)
    }

    // MARK: The reader's side

    func next() async throws -> GenerationEvent? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let (result, resumes) = state.withLock { state in take(&state, continuation) }
                if resumes { for id in ids { mailbox.send(.resume(id)) } }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            abandon()
        }
    }

    /// What the reader gets; nil if it waits.
    private func take(
        _ state: inout State, _ continuation: CheckedContinuation<GenerationEvent?, any Error>
    ) -> (Result<GenerationEvent?, any Error>?, resumes: Bool) {
        guard state.unread > 0 else {
            switch state.end {
            case .finished: return (.success(nil), false)
            case .failed(let error): return (.failure(error), false)
            case nil: state.reader = continuation
            }
            return (nil, false)
        }
        let event = state.events[state.head]
        state.head += 1
        if state.head == state.events.count {
            state.events.removeAll(keepingCapacity: true)
            state.head = 0
        } else if state.head > 64, state.head * 2 > state.events.count {
            state.events.removeFirst(state.head)
            state.head = 0
        }
        let resumes = state.isPaused && state.unread <= capacity / 2
        if resumes { state.isPaused = false }
        return (.success(event), resumes)
    }

    /// Nobody reads any more.
    func abandon() {
        let (reader, wasOpen) = state.withLock { state in
            let wasOpen = state.end == nil
            if wasOpen { state.end = .finished }
            state.events.removeAll()
            state.head = 0
            defer { state.reader = nil }
            return (state.reader, wasOpen)
        }
        reader?.resume(returning: nil)
        if wasOpen { for id in ids { mailbox.send(.cancel(id)) } }
    }
}
