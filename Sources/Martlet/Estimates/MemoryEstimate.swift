// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile
import MartletTokenizer

/// Memory that a model will take, from its plans alone: nothing is loaded for it.
package struct MemoryEstimate: Sendable {
    /// Packed weights and constants.
    package let weights: Int
    /// Keys and values of one token.
    package let kvPerToken: Int
    /// The KV arena.
    package let kvArena: Int
    /// Bytes of one page of the arena.
    package let kvPage: Int
    private let plans: [Plan]
    private let limits: StepLimits

    /// Adds up what the plans name.
    ///
    /// - Parameters:
    ///   - builder: The model with its options.
    ///   - programs: What the builder compiled.
    /// - Throws: `MartletError` `.unsupported` for a layout whose size is not known, `.corrupt` for KV groups
    ///   that contradict each other.
    package init(_ builder: EngineBuilder, _ programs: [EngineBuilder.Program]) throws {
        var weights = 0
        for request in Set(programs.flatMap(\.emitted.parameters)) {
            guard
                let bytes = builder.catalog.packedByteCount(
                    layout: request.layout, format: request.format, shape: request.shape)
            else {
                throw MartletError(
                    .unsupported, "the size of layout '\(request.layout)' is not known")
            }
            weights += (bytes + 63) / 64 * 64
        }
        self.weights = weights
        plans = programs.map(\.emitted.plan)
        let options = builder.options
        let groups = try EngineKVGroups(plans)
        limits = options.stepLimits(
            maxContext: options.maxContext ?? builder.architecture.summary.maxContext)
        kvPerToken = plans.first?.kvGroups.reduce(0) { $0 + $1.bytesPerToken } ?? 0
        kvPage = groups.groups.map(\.bytesPerBlock).max() ?? 0
        let bytes = options.cacheSize(wanted: LanguageModel.kvBytes(groups, limits))
        kvArena = kvPage > 0 ? bytes / kvPage * kvPage : 0
    }

    /// Intermediate values and scratch of steps of so many tokens, as far as steps touch them.
    ///
    /// - Parameters:
    ///   - tokens: T of the largest step.
    ///   - requests: B.
    package func activations(tokens: Int, requests: Int) -> Int {
        let rows = min(requests, limits.maxLogitRows)
        let values = Dimension.Values(
            tokens: min(tokens, limits.maxTokens), requests: requests, logitRows: rows,
            context: limits.maxContext)
        return plans.map { plan in
            var slots = [Int](repeating: 0, count: plan.slotCount)
            for buffer in plan.buffers where slots.indices.contains(buffer.slot) {
                let bytes = (buffer.rows.evaluate(values) ?? 0) * buffer.rowBytes
                slots[buffer.slot] = max(slots[buffer.slot], bytes)
            }
            return slots.reduce(0, +) + scratch(plan, values)
        }.max() ?? 0
    }

    /// Rotated queries, rotated keys as far apart as the values they lie beside, and the plain result
    /// of attention: areas of f32 rows that all layers share.
    private func scratch(_ plan: Plan, _ values: Dimension.Values) -> Int {
        let columns =
            plan.steps.compactMap { step -> Int? in
                guard step.op == "cachedAttention", step.operands.count > 1,
                    case .buffer(_, _, let queries) = step.operands[0],
                    case .buffer(let keys, _, _) = step.operands[1],
                    plan.buffers.indices.contains(keys)
                else { return nil }
                return 2 * queries + plan.buffers[keys].columns
            }.max() ?? 0
        return values.tokens * columns * 4
    }

    /// What a running engine takes beside its parts: threads, step records, the heap.
    ///
    /// Measured: 5 to 6 MB for SmolLM2-135M and the 1.1B shape.
    package static let runtime = 6_000_000
}

extension EngineSource {
    /// Memory of the tokenizer that a loaded model has: about three times its serialized form.
    package var tokenizerBytes: Int { 3 * (text.tokenizer?.serialized().count ?? 0) }

    /// What an engine read from its file takes beside weights: its other sections, and reading the plan.
    ///
    /// Measured with SmolLM2-135M: 1.4 MB of sections, most of it the tokenizer, and 2.3 MB more.
    package var engineBytes: Int { text.tokenizer.map { $0.serialized().count + 2_600_000 } ?? 0 }
}
