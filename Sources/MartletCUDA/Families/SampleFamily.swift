// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// `sample(logits)`: masks, bias, penalties, filters and draw, with the ids of `MartletBackend.Sampler`.
    static let sample = CUDAFamily(
        "sample_plain", op: "sample",
        decide: { query in
            let logits = try query.operand(0)
            let cost = KernelCost(
                bytes: logits.rows * (try query.rowBytes(logits)), operations: 0,
                operationsPerSecond: CUDACatalog.plainRate)
            return (cost, [nil])
        },
        bind: { binder in
            let logits = try binder.rows(0)
            try binder.require(logits.rows == .O, "logits are no rows of O")
            let result = try binder.sampledTokens(0)
            let sampling = try binder.sampling(vocabularySize: logits.columns)
            let results = binder.memory.results
            var arguments = binder.arguments()
            for field in [
                StepField.queryStart, .logitRows, .rowUse, .logitMask, .samplingParameters,
                .logitBias, .stateSlot, .historyStart, .history,
            ] { arguments.add(binder.step(field)) }
            arguments.add(sampling.marks)
            arguments.add(sampling.adjusted)
            arguments.add(sampling.alive)
            arguments.add(logits)
            arguments.add(results.tokens)
            arguments.add(results.status)
            arguments.add(results.logProbabilities)
            arguments.add(results.topTokens)
            arguments.add(results.topValues)
            arguments.add(results.topCounts)
            arguments.add(result)
            arguments.add(int: logits.columns)
            arguments.add(int: sampling.slotCount)
            return [
                KernelLaunch(
                    module: KernelModule(
                        "plain/sample.cu", ["ACTIVATION": DeviceType.define(logits.type)]),
                    kernel: "sample_plain", arguments: arguments, block: 512
                ) { ($0.requests, 1, 1) }
            ]
        })
}
