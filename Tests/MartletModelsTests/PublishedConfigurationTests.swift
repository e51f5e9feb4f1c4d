// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCPU
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletGraph
import MartletModels
import Testing

/// Configurations of published checkpoints: they parse, trace and plan; no weight is made.
@Suite struct PublishedConfigurationTests {
    /// Parameters as the models' makers count them.
    static let counts = [
        ("mistral-7b-v0.1", 7_241_732_096), ("mistral-7b-v0.3", 7_248_023_552),
        ("qwen2-0.5b", 494_032_768), ("qwen2-7b", 7_615_616_512),
        ("baichuan-7b", 7_000_559_616), ("baichuan-13b", 13_264_901_120),
        ("baichuan2-7b-base", 7_505_973_248), ("baichuan2-13b-base", 13_896_668_160),
    ]

    /// Knows how weights are stored, and has none.
    struct StorageOnly: WeightProvider {
        func storage(of name: String, shape: [Int]) -> ElementFormat { .plain(.bf16) }
        func weight(_ name: String, shape: [Int]) throws -> WeightValue {
            throw MartletError(.internalError, "\(name) was made")
        }
    }

    @Test(arguments: counts)
    func parseAndPlan(_ name: String, _ count: Int) throws {
        let architecture = try Fixture.architecture(
            Fixture.object("configurations/\(name).json"))
        let traced = try architecture.trace()
        let found = traced.nodes.filter { $0.op == "parameter" }.reduce(0) {
            $0 + ($1.results[0].fixedShape ?? []).reduce(1, *)
        }
        #expect(found == count)
        var options = Compiler.Options()
        let scheme = QuantizationScheme(bits: 4, group: .group(128), scaleType: .f16)
        options.recipe.weights = .scheme(name: "int4") { _ in scheme }
        options.recipe.activations = .int8g64
        let compiler = try Compiler(options: options)
        let optimized = try compiler.optimize(traced, weights: StorageOnly())
        let plan = try #require(Compiler.emit([optimized], for: CPUCatalog()).plans.first)
        try plan.validate()
        #expect(plan.kvGroups.reduce(0) { $0 + $1.layerCount } == architecture.summary.layerCount)
    }
}
