// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime

extension LanguageModel {
    /// Values of all named outputs for one prompt, computed in one step.
    ///
    /// - Parameter prompt: Token ids, at most a step's tokens.
    /// - Returns: Rows by output name, f32.
    /// - Throws: `MartletError` `.limitExceeded` for a longer prompt, or what the device says.
    package func namedOutputs(_ prompt: [Int32]) throws -> [String: [[Float]]] {
        let limits = executor.limits
        guard !prompt.isEmpty, prompt.count <= limits.maxTokens, prompt.count <= limits.maxContext
        else {
            throw MartletError(
                .limitExceeded,
                "a prompt of \(prompt.count) tokens does not fit a step of \(limits.maxTokens)",
                mend: "Raise --max-num-tokens")
        }
        // One request in one step of a scheduler of its own: the device is idle.
        var scheduler = try Scheduler(
            limits: limits, groups: executor.kvGroups, pageCount: executor.pageCount,
            stateSlotCount: executor.stateSlotCount, stepsInFlight: 1, reusesPrefixes: false)
        var settings = SamplingSettings()
        settings.maxTokens = 1
        try scheduler.submit(RequestID(1), GenerationRequest(prompt: prompt, settings: settings))
        var step = ScheduledStep()
        guard scheduler.schedule(into: &step), step.tokenCount == prompt.count else {
            throw MartletError(
                .limitExceeded, "the KV cache does not hold \(prompt.count) tokens",
                mend: "Raise --kv-cache-memory")
        }
        let record = StepRecord(limits: limits, groups: executor.kvGroups)
        try StepBuilder(groups: executor.kvGroups).fill(record, step, scheduler)
        let outputs = StepOutputs()
        let done = Completion()
        try executor.submit(record, outputs: outputs) { done.finish($0) }
        if let error = done.wait() { throw error }
        return outputs.named
    }
}
