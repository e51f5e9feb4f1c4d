// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletCPU
import MartletEngineFile

/// One measured shape.
struct BenchCase {
    let batchSize: Int
    let inputLength: Int
    let outputLength: Int

    /// Every batch size with every pair of lengths.
    static func parse(batches: String, lengths: String) throws -> [BenchCase] {
        func number(_ text: Substring, _ flag: String) throws -> Int {
            guard let value = Int(text.filter { $0 != " " }), 1...(1 << 20) ~= value else {
                throw MartletError(
                    .invalidArgument, "'\(text)' in \(flag) is not a count of at least 1")
            }
            return value
        }
        let pairs = try lengths.split(separator: ";").map { pair in
            let parts = pair.split(separator: ",")
            guard parts.count == 2 else {
                throw MartletError(
                    .invalidArgument, "'\(pair)' in --input-output-len is not IN,OUT",
                    mend: "Such as \"32,50;128,50\"")
            }
            return (
                try number(parts[0], "--input-output-len"),
                try number(parts[1], "--input-output-len")
            )
        }
        let cases = try batches.split(separator: ";").flatMap { batch in
            let size = try number(batch, "--batch-size")
            return pairs.map { BenchCase(batchSize: size, inputLength: $0.0, outputLength: $0.1) }
        }
        guard !cases.isEmpty else {
            let flag =
                pairs.isEmpty ? "--input-output-len '\(lengths)'" : "--batch-size '\(batches)'"
            throw MartletError(
                .invalidArgument, "\(flag) names no case",
                mend: "Such as --batch-size \"1;8\" --input-output-len \"32,50;128,50\"")
        }
        return cases
    }
}

/// Runs shapes on a loaded model.
struct Bench {
    let model: LanguageModel
    /// How tokens are drawn.
    let settings: SamplingSettings
    /// Bytes per second of copies within the GPU's memory; nil on the CPU.
    let copyCeiling: Double?

    /// Random prompts of a shape, as the classic benchmark draws them: ids below 100.
    func requests(_ item: BenchCase, seed: UInt64) -> [GenerationRequest] {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        return (0..<item.batchSize).map { _ in
            let prompt = (0..<item.inputLength).map { _ -> Int32 in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int32((state >> 33) % UInt64(min(100, model.vocabularySize)))
            }
            var settings = settings
            settings.maxTokens = item.outputLength
            return GenerationRequest(prompt: prompt, settings: settings)
        }
    }

    /// Runs one shape: warm-up runs, then counted ones until both minima are reached.
    func run(_ item: BenchCase, warmUp: Int, runs: Int, seconds: Double) throws -> BenchResult {
        let clock = ContinuousClock()
        var latencies: [Double] = [], firstTokens: [Double] = []
        var decode = DecodeTime()
        func once(_ seed: UInt64) throws -> (total: Double, outputs: [GenerationOutput]) {
            let start = clock.now
            let outputs = try model.generateBatch(requests(item, seed: seed))
            let total = (clock.now - start).seconds
            if let failure = outputs.compactMap(\.failure).first { throw failure }
            return (total, outputs)
        }
        let before = try copyCeiling ?? model.readCeiling()
        let peaks = try model.computePeaks()
        // What the probe and the build took is no memory of the runs.
        ProcessMemory.resetPeak()
        for index in 0..<max(0, warmUp) { _ = try once(UInt64(index)) }
        let begin = clock.now
        let statistics = model.statistics
        var index: UInt64 = 1000
        while latencies.count < runs || (clock.now - begin).seconds < seconds {
            let (total, outputs) = try once(index)
            latencies.append(total)
            firstTokens.append(outputs.compactMap(\.firstTokenSeconds).max() ?? total)
            decode.add(outputs)
            index += 1
        }
        let peakBytes = model.deviceMemoryBytes ?? ProcessMemory.peakBytes
        let now = model.statistics
        let stepCount = Double(max(now.stepCount - statistics.stepCount, 1))
        let after = try copyCeiling ?? model.readCeiling()
        return BenchResult(
            item: item, latencies: latencies, firstTokens: firstTokens,
            decodeRate: settings.beamCount == 1 ? decode.rate : nil,
            bytesPerStep: model.bytesPerStep(
                batchSize: item.batchSize * settings.beamCount,
                context: item.inputLength + item.outputLength / 2),
            ceiling: max(before, after),
            promptWork: model.promptWork(batchSize: item.batchSize, length: item.inputLength),
            peaks: peaks, peakBytes: peakBytes,
            deviceSecondsPerStep: (now.deviceSeconds - statistics.deviceSeconds) / stepCount,
            wallSecondsPerStep: latencies.reduce(0, +) / stepCount,
            hostSecondsPerStep: (now.hostSeconds - statistics.hostSeconds) / stepCount,
            launchesPerStep: Double(now.launchCount - statistics.launchCount) / stepCount,
            kernelsPerStep: Double(now.kernelCount - statistics.kernelCount) / stepCount,
            model: model)
    }
}

/// The time in which all requests of a batch draw tokens: from the last first token to the first end.
///
/// Where prompts of a large batch take several steps, some requests have their first tokens long before others.
struct DecodeTime {
    private var tokens = 0
    private var seconds = 0.0

    mutating func add(_ outputs: [GenerationOutput]) {
        let times = outputs.map(\.tokenSeconds)
        guard let start = times.compactMap(\.first).max(), let end = times.compactMap(\.last).min(),
            start < end
        else { return }
        tokens += times.reduce(0) { $0 + $1.count { $0 > start && $0 <= end } }
        seconds += end - start
    }

    /// Tokens a second; 0 if there was no such time.
    var rate: Double { seconds > 0 ? Double(tokens) / seconds : 0 }
}

/// What one shape measured.
struct BenchResult {
    let item: BenchCase
    let latencies: [Double]
    /// Seconds until each request had its first token.
    let firstTokens: [Double]
    /// Answer tokens a second behind the first ones; nil with beams, where these come with the last.
    let decodeRate: Double?
    let bytesPerStep: Int
    /// Bytes per second that memory traffic is compared with: reads of the CPU, copies of a GPU.
    let ceiling: Double
    /// Operations of the prompts, and the rates of the densest loops; nil on a GPU, whose are not measured.
    let promptWork: PromptWork
    let peaks: ComputePeaks?
    /// Largest resident size during the runs, mapped pages included; on a GPU its memory taken.
    let peakBytes: Int
    /// What the device worked, what passed and what the engine's thread worked for each step, prompts included.
    let deviceSecondsPerStep: Double
    let wallSecondsPerStep: Double
    let hostSecondsPerStep: Double
    /// 0 on the CPU.
    let launchesPerStep: Double
    let kernelsPerStep: Double
    let model: LanguageModel

    private func mean(_ values: [Double]) -> Double {
        values.reduce(0, +) / Double(max(values.count, 1))
    }

    private func percentile(_ fraction: Double) -> Double {
        let sorted = latencies.sorted()
        return sorted[min(Int(Double(sorted.count) * fraction), sorted.count - 1)]
    }

    private var generatedTokens: Int { (item.outputLength - 1) * item.batchSize }

    /// TensorRT-LLM's line: its fields in its order, by its formulas.
    func benchmarkLine(name: String, buildSeconds: Double) -> String {
        let sizes = model.engine.description.sizes
        let latency = mean(latencies)
        let generationSeconds = decodeRate.map { _ in latency - mean(firstTokens) }
        let generationRate = generationSeconds.map { $0 > 0 ? Double(generatedTokens) / $0 : 0 }
        let fields: [(String, String)] = [
            ("model_name", name), ("world_size", "1"), ("num_heads", "\(sizes.headCount)"),
            ("num_kv_heads", "\(sizes.kvHeadCount)"), ("num_layers", "\(sizes.layerCount)"),
            ("hidden_size", "\(sizes.hiddenSize)"), ("vocab_size", "\(sizes.vocabularySize)"),
            ("precision", model.engine.description.precision.dtype),
            ("batch_size", "\(item.batchSize)"), ("input_length", "\(item.inputLength)"),
            ("output_length", "\(item.outputLength)"),
            (
                "gpu_peak_mem(gb)",
                Format.decimal(Double(peakBytes) / 1_073_741_824, 3)
            ),
            ("build_time(s)", Format.decimal(buildSeconds, 2)),
            (
                "tokens_per_sec",
                Format.decimal(Double(item.batchSize * item.outputLength) / latency, 2)
            ),
            ("percentile95(ms)", Format.decimal(percentile(0.95) * 1000, 3)),
            ("percentile99(ms)", Format.decimal(percentile(0.99) * 1000, 3)),
            ("latency(ms)", Format.decimal(latency * 1000, 3)),
            ("compute_cap", model.deviceName),
            (
                "generation_time(ms)",
                generationSeconds.map { Format.decimal($0 * 1000, 3) } ?? "null"
            ),
            ("total_generated_tokens", Format.decimal(Double(generatedTokens), 1)),
            (
                "generation_tokens_per_second",
                generationRate.map { Format.decimal($0, 3) } ?? "null"
            ),
        ]
        return "[BENCHMARK] " + fields.map { "\($0.0) \($0.1)" }.joined(separator: " ")
    }

    /// Columns of the table; for programs those of the precision too, which people read below it.
    static func columns(_ model: LanguageModel, forPrograms: Bool) -> [String] {
        [
            "batch", "in", "out", "max context", "latency ms", "p95 ms", "first token ms",
            "tokens/s", "decode tokens/s", "peak MB", "MB/step", "GB/s",
            "\(model.ceilingKind) GB/s", "share %", "prompt Gop/s", "peak Gop/s", "peak share %",
        ]
            + (forPrograms
                ? [
                    "device ms/step", "wall ms/step", "host ms/step", "launches/step",
                    "kernels/step", "weights", "activations", "KV",
                ] : [])
    }

    /// The row of the table.
    func row(forPrograms: Bool) -> [JSONValue] {
        func number(_ value: Double, _ places: Int) -> JSONValue {
            .double(Double(Format.decimal(value, places)) ?? value)
        }
        func optional(_ value: Double?, _ places: Int) -> JSONValue {
            value.map { number($0, places) } ?? .null
        }
        let rate = decodeRate.map { $0 / Double(item.batchSize) * Double(bytesPerStep) }
        let promptRate = decodeRate.map { _ in promptWork.all / mean(firstTokens) }
        let peakRate = peaks.map { promptWork.all / promptWork.seconds(at: $0) }
        let precision = model.engine.description.precision
        var row: [JSONValue] = [
            .int(item.batchSize), .int(item.inputLength), .int(item.outputLength),
            .int(model.maxContext), number(mean(latencies) * 1000, 2),
            number(percentile(0.95) * 1000, 2), number(mean(firstTokens) * 1000, 2),
            number(Double(item.batchSize * item.outputLength) / mean(latencies), 1),
            optional(decodeRate, 1), number(Double(peakBytes) / 1e6, 1),
            number(Double(bytesPerStep) / 1e6, 1), optional(rate.map { $0 / 1e9 }, 2),
            number(ceiling / 1e9, 2), optional(rate.map { 100 * $0 / ceiling }, 1),
            optional(promptRate.map { $0 / 1e9 }, 1), optional(peakRate.map { $0 / 1e9 }, 1),
            optional(peakRate.flatMap { peak in promptRate.map { 100 * $0 / peak } }, 1),
        ]
        guard forPrograms else { return row }
        row += [deviceSecondsPerStep, wallSecondsPerStep, hostSecondsPerStep].map {
            number($0 * 1000, 4)
        }
        row += [launchesPerStep, kernelsPerStep].map { $0 > 0 ? number($0, 1) : .null }
        row += [precision.weights, precision.activations, precision.kvDType].map {
            JSONValue.string($0)
        }
        return row
    }
}
