// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletBackend
import MartletEngineFile

/// llama-bench's two tests, its columns and its JSON fields.
struct LlamaBench {
    let bench: Bench
    let name: String
    let path: String

    /// One test's repetitions.
    struct Test {
        let promptTokens: Int
        let generatedTokens: Int
        let seconds: [Double]

        var name: String { promptTokens > 0 ? "pp\(promptTokens)" : "tg\(generatedTokens)" }
        var rates: [Double] { seconds.map { Double(promptTokens + generatedTokens) / $0 } }

        static func mean(_ values: [Double]) -> Double {
            values.reduce(0, +) / Double(max(values.count, 1))
        }

        static func deviation(_ values: [Double]) -> Double {
            let mean = mean(values)
            let sum = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            return (sum / Double(max(values.count - 1, 1))).squareRoot()
        }
    }

    /// Measures prompt processing and generation.
    func run(prompt: Int, generated: Int, repetitions: Int) throws -> LlamaBenchResult {
        var tests: [Test] = []
        if prompt > 0 {
            let item = BenchCase(batchSize: 1, inputLength: prompt, outputLength: 1)
            tests.append(
                Test(
                    promptTokens: prompt, generatedTokens: 0,
                    seconds: try seconds(item, repetitions)))
        }
        if generated > 0 {
            // One token of prompt, whose own step yields the first generated token.
            let item = BenchCase(batchSize: 1, inputLength: 1, outputLength: generated)
            tests.append(
                Test(
                    promptTokens: 0, generatedTokens: generated,
                    seconds: try seconds(item, repetitions)))
        }
        return LlamaBenchResult(bench: self, tests: tests)
    }

    private func seconds(_ item: BenchCase, _ repetitions: Int) throws -> [Double] {
        let clock = ContinuousClock()
        var seconds: [Double] = []
        for index in 0...max(1, repetitions) {
            let requests = bench.requests(item, seed: UInt64(index + 1))
            let start = clock.now
            let outputs = try bench.model.generateBatch(requests)
            if let failure = outputs.compactMap(\.failure).first { throw failure }
            // The first run only warms up.
            if index > 0 { seconds.append((clock.now - start).seconds) }
        }
        return seconds
    }
}

/// What llama-bench's tests measured, in its two forms.
struct LlamaBenchResult {
    let bench: LlamaBench
    let tests: [LlamaBench.Test]

    private var model: LanguageModel { bench.bench.model }
    private var modelType: String {
        "\(bench.name) \(model.engine.description.precision.weights)"
    }

    /// Its columns.
    var table: Table {
        var table = Table(["model", "size", "params", "backend", "threads", "test", "t/s"])
        let parameters = Double(model.engine.description.sizes.parameterCount)
        for test in tests {
            let rates = test.rates
            let mean = Format.decimal(LlamaBench.Test.mean(rates), 2)
            let deviation = Format.decimal(LlamaBench.Test.deviation(rates), 2)
            table.add([
                .string(modelType),
                .string("\(Format.decimal(Double(model.weightBytes) / 1_048_576, 2)) MiB"),
                .string("\(Format.decimal(parameters / 1e6, 2)) M"),
                .string("martlet-\(model.deviceName)"), .int(model.threadCount),
                .string(test.name), .string("\(mean) ± \(deviation)"),
            ])
        }
        return table
    }

    /// Its JSON, with those of its fields that mean something here.
    var json: JSONValue {
        let description = model.engine.description
        let isGPU = model.deviceMemoryBytes != nil
        return .array(
            tests.map { test in
                let nanoseconds = test.seconds.map { ($0 * 1e9).rounded() }
                func number(_ value: Double) -> JSONValue { .int(Int(value.rounded())) }
                return .object(
                    JSONObject([
                        ("build_commit", .string(description.builderVersion)),
                        ("build_number", .int(0)),
                        ("cpu_info", .string(isGPU ? "" : model.deviceName)),
                        ("gpu_info", .string(isGPU ? model.deviceName : "")),
                        ("backends", .string("martlet")),
                        ("model_filename", .string(bench.path)),
                        ("model_type", .string(modelType)), ("model_size", .int(model.weightBytes)),
                        ("model_n_params", .int(description.sizes.parameterCount)),
                        ("n_batch", .int(model.maxTokensPerStep)),
                        ("n_ubatch", .int(model.maxTokensPerStep)),
                        ("n_gpu_layers", .int(isGPU ? description.sizes.layerCount : 0)),
                        ("flash_attn", .bool(true)), ("use_mmap", .bool(true)),
                        ("n_threads", .int(model.threadCount)),
                        ("type_k", .string(description.precision.kvDType)),
                        ("type_v", .string(description.precision.kvDType)),
                        ("n_prompt", .int(test.promptTokens)),
                        ("n_gen", .int(test.generatedTokens)), ("n_depth", .int(0)),
                        ("avg_ns", number(LlamaBench.Test.mean(nanoseconds))),
                        ("stddev_ns", number(LlamaBench.Test.deviation(nanoseconds))),
                        ("avg_ts", .double(LlamaBench.Test.mean(test.rates))),
                        ("stddev_ts", .double(LlamaBench.Test.deviation(test.rates))),
                        ("samples_ns", .array(nanoseconds.map(number))),
                        ("samples_ts", .array(test.rates.map { .double($0) })),
                    ]))
            })
    }
}

/// Time, bytes and operations by plan step, alike steps of all layers together.
enum ProfileTable {
    static func table(_ model: LanguageModel) -> Table {
        var table = Table([
            "step", "family", "count", "us", "share %", "MB", "GB/s", "Mop", "Gop/s",
        ])
        var order: [String] = []
        var groups: [String: (family: String, count: Int, ns: Int, bytes: Int, operations: Int)] =
            [:]
        for step in model.profile(entryPoint: 0) {
            let key =
                step.op + " "
                + step.path.split(separator: ".").map {
                    $0.allSatisfy(\.isNumber) ? "*" : String($0)
                }.joined(separator: ".")
            if groups[key] == nil { order.append(key) }
            var group = groups[key] ?? (step.family, 0, 0, 0, 0)
            group.count += 1
            group.ns += step.nanoseconds
            group.bytes += step.bytes ?? 0
            group.operations += step.operations ?? 0
            groups[key] = group
        }
        let total = max(groups.values.reduce(0) { $0 + $1.ns }, 1)
        for key in order {
            guard let group = groups[key] else { continue }
            let seconds = Double(max(group.ns, 1)) * 1e-9
            func tenths(_ value: Double) -> JSONValue { .double((value * 10).rounded() / 10) }
            table.add([
                .string(key), .string(group.family), .int(group.count), .int(group.ns / 1000),
                tenths(Double(group.ns) / Double(total) * 100), tenths(Double(group.bytes) / 1e6),
                tenths(Double(group.bytes) / seconds / 1e9), tenths(Double(group.operations) / 1e6),
                tenths(Double(group.operations) / seconds / 1e9),
            ])
        }
        return table
    }
}
