// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Martlet
import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile
import MartletRuntime
import MartletTestSupport
import Testing

/// One engine serves both activation formats: its weights are packed once.
@Suite struct ActivationRetargetTests {
    /// The CPU's kernels, without a way to pack weights or to unpack them.
    private struct NoPacking: KernelCatalog {
        private let base = CPUCatalog()
        var target: String { base.target }
        var families: [KernelFamily] { base.families }
        var assumedBytesPerSecond: Double { base.assumedBytesPerSecond }
        var kvBlockSize: Int { base.kvBlockSize }
        var kvTypes: [DType] { base.kvTypes }
        var activationTypes: [DType] { base.activationTypes }
        var defaultActivations: ActivationFormat? { base.defaultActivations }

        func rowBytes(_ format: ElementFormat, columns: Int) -> Int? {
            base.rowBytes(format, columns: columns)
        }
        func pack(_ weight: WeightValue, layout: String) throws -> ByteView {
            throw MartletError(.internalError, "a weight is packed again")
        }
        func unpack(
            _ bytes: ByteView, layout: String, format: ElementFormat, shape: [Int]
        ) throws -> WeightValue {
            throw MartletError(.internalError, "a weight is unpacked")
        }
    }

    private func options(_ activations: String?, _ quantize: String = "keep") -> LoadOptions {
        var options = LoadOptions()
        options.activations = activations
        options.quantize = quantize
        options.maxLogitRows = 64
        return options
    }

    private func build(_ path: String, _ activations: String, _ quantize: String) throws {
        let builder = try EngineBuilder(
            architecture: TinyModels.llama(), weights: RandomWeights(seed: 51),
            options: options(activations, quantize))
        try builder.draft(EngineSource(name: "tiny")).write(to: path)
    }

    private func logits(_ model: LanguageModel) throws -> [[Float]] {
        var settings = SamplingSettings()
        settings.maxTokens = 0
        settings.returnContextLogits = true
        let prompt: [Int32] = (0..<40).map { $0 * 7 % 80 }
        return try model.generateBatch([GenerationRequest(prompt: prompt, settings: settings)])
            .flatMap(\.contextLogits)
    }

    @Test(arguments: ["int8", "int8:g32", "int4:g32:asym"], ["exact", "int8g64"])
    func otherActivationsRunOnTheSameWeights(_ quantize: String, _ wanted: String) throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("martlet-activations-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let other = wanted == "exact" ? "int8g64" : "exact"
        let (built, source) = ("\(folder)/built.martlet", "\(folder)/source.martlet")
        try build(built, wanted, quantize)
        try build(source, other, quantize)
        let expected = try logits(LanguageModel.load(built, options: options(nil)))
        let before = try logits(LanguageModel.load(source, options: options(nil)))
        #expect(before != expected)

        var packed = options(wanted)
        packed.catalogs = CatalogList(device: NoPacking())
        let model = try LanguageModel.load(source, options: packed)
        #expect(try logits(model) == expected)
        #expect(model.engine.description.precision.activations == wanted)
        // Asking for what is there changes nothing.
        let same = try LanguageModel.load(source, options: options(other))
        #expect(try logits(same) == before && same.engine.path == source)
        // A file of the result is the file that building it gives.
        let kept = "\(folder)/kept.martlet"
        try LanguageModel.draft(source, options: options(wanted)).write(to: kept)
        #expect(try logits(LanguageModel.load(kept, options: options(nil))) == expected)
    }

    @Test func formatsOfOtherDevicesAreRefused() throws {
        let path = FileManager.default.temporaryDirectory
            .appendingPathComponent("martlet-activations-\(UUID().uuidString).martlet").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try build(path, "exact", "int8")
        let error = #expect(throws: MartletError.self) {
            try LanguageModel.load(path, options: options("fp8"))
        }
        #expect(error?.code == .invalidArgument && error?.mend?.contains("int8g64") == true)
    }
}
