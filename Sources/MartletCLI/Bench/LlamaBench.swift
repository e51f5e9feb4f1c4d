// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletCPU
import MartletEngineFile

/// llama-bench's two tests and its columns.
struct LlamaBench {
    let bench: Bench
    let name: String

    /// Measures prompt processing and generation.
    func run(prompt: Int, generated: Int, repetitions: Int) throws -> Table {
        var table = Table(["model", "size", "params", "backend", "threads", "test", "t/s"])
        let model = bench.model
        let sizes = model.engine.description.sizes
        func add(_ test: String, _ rates: [Double]) {
            let mean = rates.reduce(0, +) / Double(rates.count)
            let variance = rates.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            let deviation = (variance / Double(max(rates.count - 1, 1))).squareRoot()
            table.add([
                .string("\(name) \(model.engine.description.precision.weights)"),
                .string("\(Format.decimal(Double(model.weightBytes) / 1_048_576, 2)) MiB"),
                .string("\(Format.decimal(Double(sizes.parameterCount) / 1e6, 2)) M"),
                .string("martlet-\(model.deviceName)"), .int(model.threadCount), .string(test),
                .string("\(Format.decimal(mean, 2)) ± \(Format.decimal(deviation, 2))"),
            ])
        }
        if prompt > 0 {
            add("pp\(prompt)", try rates(repetitions, tokens: prompt) {
                BenchCase(batchSize: 1, inputLength: prompt, outputLength: 0)
            })
        }
        if generated > 0 {
            // One token of prompt, whose own step yields the first generated token.
            add("tg\(generated)", try rates(repetitions, tokens: generated) {
                BenchCase(batchSize: 1, inputLength: 1, outputLength: generated)
            })
        }
        return table
    }

    private func rates(
        _ repetitions: Int, tokens: Int, _ item: () -> BenchCase
    ) throws -> [Double] {
        let clock = ContinuousClock()
        var rates: [Double] = []
        for index in 0...max(1, repetitions) {
            let requests = bench.requests(item(), seed: UInt64(index + 1))
            let start = clock.now
            let outputs = try bench.model.generateBatch(requests)
            if let failure = outputs.compactMap(\.failure).first { throw failure }
            // The first run only warms up.
            if index > 0 { rates.append(Double(tokens) / (clock.now - start).seconds) }
        }
        return rates
    }
}

/// Time, bytes and operations by plan step, alike steps of all layers together.
enum ProfileTable {
    static func table(_ model: LanguageModel) -> Table {
        var table = Table(["step", "family", "count", "us", "share %", "GB/s", "Gop/s"])
        var order: [String] = []
        var groups: [String: (family: String, count: Int, ns: Int, bytes: Int, operations: Int)] = [:]
        for step in model.executor.profile(entryPoint: 0) {
            let key = step.op + " " + step.path.split(separator: ".").map {
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
            table.add([
                .string(key), .string(group.family), .int(group.count), .int(group.ns / 1000),
                .double((Double(group.ns) / Double(total) * 1000).rounded() / 10),
                .double((Double(group.bytes) / seconds / 1e8).rounded() / 10),
                .double((Double(group.operations) / seconds / 1e8).rounded() / 10),
            ])
        }
        return table
    }
}
