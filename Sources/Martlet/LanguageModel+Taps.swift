// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore

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
        let record = StepRecord(limits: limits, groups: executor.kvGroups)
        record.setCounts(tokens: prompt.count, requests: 1, logitRows: 1)
        func fill(_ field: StepField, _ values: [Int32]) throws {
            let target = try record.add(field, Int32.self, count: values.count)
            for (index, value) in values.enumerated() { target[index] = value }
        }
        let count = Int32(prompt.count)
        try fill(.tokenSource, prompt)
        try fill(.positions, Array(0..<count))
        try fill(.requestIndex, [Int32](repeating: 0, count: prompt.count))
        try fill(.queryStart, [0, count])
        try fill(.logitRows, [count - 1])
        try fill(.rowUse, [Int32(bitPattern: RowUse.sample.rawValue)])
        try fill(.stateSlot, [-1])
        let parameters = try record.add(.samplingParameters, SamplingParameters.self, count: 1)
        parameters[0] = SamplingParameters()
        for (index, group) in executor.kvGroups.enumerated() {
            let blocks = (prompt.count + group.blockSize - 1) / group.blockSize
            let first = index * blocks
            guard first + blocks <= executor.pageCount else {
                throw MartletError(
                    .limitExceeded, "the KV cache is too small", mend: "Raise --kv-cache-memory")
            }
            record.setBlockColumns(blocks, group: index)
            func fill(_ field: StepGroupField, _ values: [Int32]) throws {
                let target = try record.add(field, group: index, count: values.count)
                for (position, value) in values.enumerated() { target[position] = value }
            }
            try fill(.kvStart, [0])
            try fill(.kvLength, [count])
            try fill(.blockTable, (0..<blocks).map { Int32(first + $0) })
            try fill(.slot, (0..<prompt.count).map { Int32(first * group.blockSize + $0) })
        }
        let outputs = StepOutputs()
        let done = Completion()
        try executor.submit(record, outputs: outputs) { done.finish($0) }
        if let error = done.wait() { throw error }
        return outputs.named
    }
}
