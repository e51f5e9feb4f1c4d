// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletCore
import MartletEngineFile

/// What `plan` prints: memory by part, cases as `bench` will measure them, the machine's ceilings.
struct PlanReport {
    private let memory: MemoryEstimate
    private let speed: SpeedEstimate
    private let ceilings: MachineCeilings
    private let cases: [BenchCase]
    private let options: LoadOptions
    private let textBytes: Int
    private let programBytes: Int
    private let precision: String

    /// Compiles the model and measures the machine.
    ///
    /// - Parameter programBytes: Resident size of this program before it did anything.
    /// - Throws: What the compiler throws.
    init(
        _ builder: EngineBuilder, _ source: EngineSource, cases: [BenchCase],
        options: LoadOptions, programBytes: Int
    ) throws {
        let programs = try builder.programs()
        guard let decoder = programs.first else {
            throw MartletError(.unsupported, "the model has no entry point")
        }
        memory = try MemoryEstimate(builder, programs)
        ceilings = try MachineCeilings.measure(
            workingSet: SpeedEstimate.weightBytes(decoder), options: options)
        let trial = try KernelTrial(
            builder, decoder, batchSizes: cases.map(\.batchSize),
            promptLengths: cases.map {
                min($0.batchSize * $0.inputLength, options.maxTokensPerStep)
            })
        speed = SpeedEstimate(builder, decoder, ceilings: ceilings, trial: trial)
        precision = try builder.describe(
            source, programs.map(\.graph), programs.flatMap(\.emitted.parameters)
        ).precision.line
        textBytes = source.tokenizerBytes
        self.cases = cases
        self.options = options
        self.programBytes = programBytes + MemoryEstimate.runtime + source.engineBytes
    }

    /// Peak of a case: everything at once.
    ///
    /// The whole KV arena counts: the pages that were free for longest are taken first, so a few
    /// requests touch them all.
    private func peak(_ item: BenchCase) -> Int {
        common
            + memory.activations(
                tokens: item.batchSize * item.inputLength, requests: item.batchSize)
    }

    /// What does not depend on the step.
    private var common: Int { memory.weights + memory.kvArena + textBytes + programBytes }

    private static func megabytes(_ bytes: Int) -> JSONValue {
        .double(Double(Format.decimal(Double(bytes) / 1e6, 1)) ?? 0)
    }

    /// Parts that do not depend on the case.
    var memoryTable: Table {
        var table = Table(["part", "MB", "note"])
        let (context, batch) = (options.maxContext ?? 0, options.maxBatchSize)
        let activations = memory.activations(
            tokens: options.maxTokensPerStep, requests: options.maxBatchSize)
        for (part, bytes, note) in [
            ("weights", memory.weights, precision),
            (
                "KV cache", memory.kvArena,
                "\(Format.bytes(memory.kvPerToken)) a token, \(batch) x \(context) tokens"
            ),
            ("activations", activations, "steps of \(options.maxTokensPerStep) tokens"),
            ("text", textBytes, "tokenizer"),
            ("program", programBytes, "code, threads, heap"),
            (
                "all", common + activations,
                "of \(Format.bytes(MachineMemory.byteCount)) in this machine"
            ),
        ] { table.add([.string(part), Self.megabytes(bytes), .string(note)]) }
        return table
    }

    /// A row per case.
    var caseTable: Table {
        var table = Table([
            "batch", "in", "out", "max context", "latency ms", "first token ms", "tokens/s",
            "decode tokens/s", "peak MB",
        ])
        func number(_ value: Double, _ places: Int) -> JSONValue {
            .double(Double(Format.decimal(value, places)) ?? value)
        }
        for item in cases {
            let first = speed.promptSeconds(requests: item.batchSize, length: item.inputLength)
            let rest = speed.generationSeconds(
                requests: item.batchSize, input: item.inputLength, output: item.outputLength)
            table.add([
                .int(item.batchSize), .int(item.inputLength), .int(item.outputLength),
                .int(options.maxContext ?? 0), number((first + rest) * 1000, 2),
                number(first * 1000, 2),
                number(Double(item.batchSize * item.outputLength) / (first + rest), 1),
                number(
                    rest > 0 ? Double(item.batchSize * (item.outputLength - 1)) / rest : 0, 1),
                Self.megabytes(peak(item)),
            ])
        }
        return table
    }

    /// What the time was reckoned from.
    var machineTable: Table {
        var table = Table(["ceiling", "rate", "unit"])
        for (name, rate, unit) in [
            ("read", ceilings.bytesPerSecond, "GB/s"), ("int8", ceilings.int8PerSecond, "Gop/s"),
            ("f32", ceilings.floatPerSecond, "Gop/s"),
        ] {
            table.add([
                .string(name), .double(Double(Format.decimal(rate / 1e9, 1)) ?? 0), .string(unit),
            ])
        }
        return table
    }

    /// What to do where it will not fit.
    var warning: String? {
        let needed = cases.map(peak).max() ?? 0
        guard needed > MachineMemory.byteCount else { return nil }
        return
            "\(Format.bytes(needed)) will not fit the \(Format.bytes(MachineMemory.byteCount)) of "
            + "this machine: use --quantize int4, or a lower --max-context or --max-batch-size"
    }
}
