// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletConformance
import MartletCore
import MartletEngineFile
import Testing

@Suite struct CPUConformanceTests {
    static let ops = [
        "activation", "add", "addNorm", "attention", "cachedAttention", "cast", "concat",
        "dequantize", "embedding", "gatedActivation", "gatherRows", "l2Normalize", "linear",
        "meanPool", "mul", "norm", "normalizeRows", "quantize", "reshape", "rotary", "sample",
        "scale", "slice", "softCap", "softmax",
    ]

    static func suite(
        _ instructionSet: CPUInstructionSet, threadCount: Int = 2
    ) -> ConformanceSuite {
        ConformanceSuite(catalog: CPUCatalog()) { plan, parameters, limits in
            var options = CPUOptions(limits: limits, pageCount: 64, threadCount: threadCount)
            options.instructionSet = instructionSet
            options.poisonsBuffers = true
            return try CPUExecutor(plans: [plan], parameters: parameters, options: options)
        }
    }

    /// Every op on every instruction set of this machine.
    @Test(arguments: CPUInstructionSet.available, ops)
    func opEqualsTheReference(_ instructionSet: CPUInstructionSet, op: String) async throws {
        let report = await Self.suite(instructionSet).run { $0.op == op }
        #expect(report.failures.isEmpty, "\(instructionSet.rawValue): \(report)")
        #expect(report.passedCount > 0)
        #expect(report.refusals.isEmpty, "\(report.refusals)")
    }

    /// The suite notices an executor whose numbers are slightly off.
    @Test(arguments: ["linear", "norm", "cachedAttention", "gatherRows"])
    func skewedNumbersFail(op: String) async throws {
        let exact = Self.suite(.best)
        let suite = ConformanceSuite(catalog: CPUCatalog()) { plan, parameters, limits in
            let options = CPUOptions(limits: limits, pageCount: 64, threadCount: 1)
            return SkewedExecutor(
                try CPUExecutor(plans: [plan], parameters: parameters, options: options))
        }
        let chosen = exact.cases.filter {
            $0.op == op && $0.detail.hasPrefix("f32") && !$0.detail.contains("int8g64")
        }.prefix(3)
        let report = await suite.run { item in chosen.contains { $0.name == item.name } }
        #expect(report.entries.count >= 3)
        #expect(report.passedCount == 0, "\(report.entries)")
    }

    @Test(arguments: ["norm", "cachedAttention"])
    func casesAtOnceGiveTheSameReport(op: String) async {
        let suite = Self.suite(.scalar, threadCount: 1)
        var done: [Int] = []
        let together = await suite.run(width: 3, where: { $0.op == op }) { done.append($0) }
        let alone = await suite.run { $0.op == op }
        #expect(together.entries.map(\.description) == alone.entries.map(\.description))
        #expect(done == Array(1...suite.cases.count { $0.op == op }))
    }

    @Test func tableNamesEveryOpOfTheSuite() {
        let suite = Self.suite(.scalar)
        #expect(Set(suite.cases.map(\.op)) == Set(Self.ops))
        #expect(Set(suite.cases.map(\.name)).count == suite.cases.count)
    }
}

/// Multiplies the first number of each output row by 1.002.
final class SkewedExecutor: PlanExecutor {
    private let base: CPUExecutor
    init(_ base: CPUExecutor) { self.base = base }
    var limits: StepLimits { base.limits }
    var kvGroups: [KVGroup] { base.kvGroups }
    var groupUses: [[KVGroupUse]] { base.groupUses }
    var pageCount: Int { base.pageCount }
    var hostPageCount: Int { base.hostPageCount }
    var entryPoints: [String] { base.entryPoints }
    var vocabularySize: Int { base.vocabularySize }
    var stateSlotCount: Int { base.stateSlotCount }
    var maxStepsInFlight: Int { base.maxStepsInFlight }

    func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws {
        try base.submit(step, outputs: outputs) { error in
            for (name, rows) in outputs.named {
                outputs.named[name] = rows.map { [$0[0] * 1.002] + $0.dropFirst() }
            }
            completion(error)
        }
    }
}
