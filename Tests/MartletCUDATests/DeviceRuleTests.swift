// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCUDA
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletModels
import MartletTestSupport
import Testing

/// Rules of a device: part of the pipeline, with names of their own.
@Suite struct DeviceRuleTests {
    private static let own = Pipeline.knownRules(for: [CUDACatalog()]).filter {
        !Pipeline.ruleNames.contains($0)
    }

    private func ops(without disabled: Set<String> = []) throws -> Set<String> {
        var options = Compiler.Options()
        options.recipe = PrecisionRecipe(dtype: .bf16, kvType: .bf16)
        options.disabledRules = disabled
        let model = try CompiledModel(
            TinyModels.llama(), weights: RandomWeights(seed: 3), options: options,
            catalog: CUDACatalog())
        return Set(model.plans[0].steps.map(\.op))
    }

    @Test func onlyDevicesWithTheirKernelsHaveThem() throws {
        #expect(Self.own == ["linear-add-norm", "linear-add", "norm-linear", "norm-gated-linear"])
        #expect(Pipeline.knownRules(for: [CPUCatalog()]) == Pipeline.ruleNames)
        var options = Compiler.Options()
        options.disabledRules = ["norm-linear"]
        _ = try Compiler(options: options, for: [CPUCatalog(), CUDACatalog()])
        let error = #expect(throws: MartletError.self) {
            try Compiler(options: options, for: [CPUCatalog()])
        }
        #expect(error?.code == .invalidArgument)
        #expect(error?.mend?.contains("add-norm") == true)
        #expect(error?.mend?.contains("norm-linear") == false)
    }

    @Test(
        arguments: [
            ("linear-add-norm", "linearAdd"), ("norm-linear", "normLinear"),
            ("norm-gated-linear", "normGatedLinear"),
        ])
    func disabledRulesAreLeftOut(rule: String, op: String) throws {
        #expect(try ops().contains(op))
        let disabled: Set = rule == "linear-add-norm" ? [rule, "linear-add"] : [rule]
        #expect(try !ops(without: disabled).contains(op))
    }

    /// Without `add-norm` there are sums to fuse into linears.
    @Test func linearAddIsLeftOut() throws {
        #expect(try ops(without: ["add-norm"]).contains("linearAdd"))
        #expect(try !ops(without: ["add-norm", "linear-add"]).contains("linearAdd"))
    }
}
