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
            return launches(binder, logits.type, arguments)
        })

    /// Requests up to which a cluster of blocks shares each: more of them fill the GPU by themselves.
    private static let sharedRequests = 16

    private static func launches(
        _ binder: CUDABinder, _ type: DType, _ arguments: ArgumentBytes
    ) -> [KernelLaunch] {
        func launch(cluster: Int) -> KernelLaunch {
            KernelLaunch(
                module: KernelModule(
                    "plain/sample.cu",
                    ["ACTIVATION": DeviceType.define(type), "CLUSTER": "\(cluster)"]),
                kernel: "sample_plain", arguments: arguments, block: 512
            ) { (cluster * $0.requests, 1, 1) }
        }
        let alone = launch(cluster: 1)
        guard binder.memory.target.capability >= 90 else { return [alone] }
        // Sums over the vocabulary are added in another order.
        guard !binder.memory.isDeterministic else { return [launch(cluster: 8)] }
        return [
            launch(cluster: 8).limited { $0.requests <= sharedRequests },
            alone.limited { $0.requests > sharedRequests },
        ]
    }
}
