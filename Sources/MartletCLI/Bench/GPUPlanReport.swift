// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletCUDA
import MartletCore
import MartletEngineFile

/// What `plan` prints for a GPU: the engine's budget by purpose, and what bounds batch and context.
struct GPUPlanReport {
    private let estimate: GPUEstimate
    private let options: LoadOptions
    private let precision: String

    /// Compiles the model.
    ///
    /// - Parameter gpu: A chip's name; nil for the GPU of this machine.
    /// - Throws: What the compiler throws, and `MartletError` `.device` where there is no GPU and none is named.
    init(
        _ builder: EngineBuilder, _ source: EngineSource, options: LoadOptions, gpu: String?
    ) throws {
        let programs = try builder.programs()
        estimate = try GPUEstimate(builder, programs, chip: Self.chip(gpu))
        precision = try builder.describe(
            source, programs.map(\.graph), programs.flatMap(\.emitted.parameters)
        ).precision.line
        self.options = options
    }

    private static func chip(_ name: String?) throws -> GPUChip {
        if let name { return try GPUChip.named(name) }
        do {
            return try GPUChip(CUDADriver.required())
        } catch let error as MartletError {
            throw MartletError(
                error.code, error.message,
                mend: "Name the GPU to plan for, such as --gpu h100, or: " + (error.mend ?? ""),
                context: error.context)
        }
    }

    private static func megabytes(_ bytes: Int) -> JSONValue {
        .double(Double(Format.decimal(Double(bytes) / 1e6, 1)) ?? 0)
    }

    private var context: Int { options.maxContext ?? estimate.contextOfModel }

    /// The budget, purpose by purpose.
    var memoryTable: Table {
        var table = Table(["part", "MB", "note"])
        let memory = estimate.memory
        var cache = "\(memory.pageCount) pages of \(Format.bytes(memory.pageBytes))"
        if let group = memory.groups.first, memory.groups.count == 1 {
            cache += ", \(memory.pageCount * group.blockSize) tokens"
        }
        let notes = [
            "weights": precision, "KV cache": cache,
            "activations": "steps of \(options.maxTokensPerStep) tokens",
        ]
        var sums: [(purpose: String, bytes: Int)] = []
        for entry in memory.budget.entries {
            if let index = sums.firstIndex(where: { $0.purpose == entry.purpose }) {
                sums[index].bytes += entry.byteCount
            } else {
                sums.append((entry.purpose, entry.byteCount))
            }
        }
        for (purpose, bytes) in sums {
            table.add([
                .string(purpose), Self.megabytes(bytes), .string(notes[purpose] ?? ""),
            ])
        }
        table.add([
            .string("driver"), Self.megabytes(GPUChip.driverByteCount),
            .string(
                "about: context, kernels, \(memory.graphs.count) graphs with "
                    + "\(memory.graphs.kernels) kernels"),
        ])
        table.add([
            .string("all"), Self.megabytes(memory.budget.total + GPUChip.driverByteCount),
            .string(
                "of \(Format.bytes(estimate.chip.byteCount)) of \(estimate.chip.name), "
                    + "\(Format.bytes(estimate.chip.freeByteCount)) free for an engine"),
        ])
        return table
    }

    /// How many requests, and how long, and what bounds them.
    var boundTable: Table {
        var table = Table(["bound", "value", "by"])
        let memory = estimate.memory
        let requests = estimate.requests(context: context, pages: memory.pageCount)
        let batch = options.maxBatchSize
        table.add([
            .string("requests of \(context) tokens at once"), .int(min(requests, batch)),
            .string(requests < batch ? "the KV cache" : "--max-batch-size"),
        ])
        table.add([
            .string("as many if all memory is given to them"),
            .int(estimate.requests(context: context, pages: memory.pageRoom)),
            .string("memory: raise --max-batch-size up to it"),
        ])
        let longest = estimate.context(requests: batch, pages: memory.pageRoom)
        let isModel = longest >= estimate.contextOfModel
        table.add([
            .string("longest context of \(batch) requests"), .int(longest),
            .string(isModel ? "the model" : "memory: lower --max-batch-size for more"),
        ])
        return table
    }

    /// What to do where the batch asked for does not fit.
    var warning: String? {
        let requests = estimate.requests(
            context: context, pages: estimate.memory.pageCount)
        guard requests < options.maxBatchSize else { return nil }
        return
            "the KV cache holds \(requests) requests of \(context) tokens, not "
            + "\(options.maxBatchSize): use --quantize int4, --kv-dtype bf16, or a lower --max-context"
    }
}
