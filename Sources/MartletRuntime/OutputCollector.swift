// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Gathers the answers to one request of a batch and posts them when complete.
///
/// `@unchecked Sendable`: only the engine's thread calls it, until it posts the output.
final class OutputCollector: GenerationSink, @unchecked Sendable {
    private let index: Int
    private let mailbox: Mailbox<(Int, GenerationOutput)>
    private let start = ContinuousClock.now
    private var outputs: [GenerationOutput]
    private var openCount: Int

    init(index: Int, answerCount: Int, mailbox: Mailbox<(Int, GenerationOutput)>) {
        self.index = index
        self.mailbox = mailbox
        outputs = [GenerationOutput](repeating: GenerationOutput(), count: max(answerCount, 1))
        openCount = outputs.count
    }

    func receive(_ event: GenerationEvent) -> Bool {
        guard openCount > 0, outputs.indices.contains(event.choice) else { return true }
        if event.token != nil { outputs[event.choice].tokenSeconds.append(seconds) }
        outputs[event.choice].append(event)
        if event.finishReason != nil {
            outputs[event.choice].totalSeconds = seconds
            openCount -= 1
            if event.finishReason == .cancelled { openCount = 0 }
            if openCount == 0 { post() }
        }
        return true
    }

    func fail(_ error: MartletError) {
        guard openCount > 0 else { return }
        openCount = 0
        outputs[0].failure = error
        outputs[0].finishReason = error.code == .cancelled ? .cancelled : .error
        outputs[0].totalSeconds = seconds
        post()
    }

    private var seconds: Double { (ContinuousClock.now - start).seconds }

    private func post() {
        var output = outputs[0]
        output.alternatives = Array(outputs.dropFirst())
        mailbox.send((index, output))
    }
}
