// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCompiler
import MartletCore
import MartletFormats
import MartletModels
import MartletQuantization
import MartletTestSupport
import Testing

/// Compiled plans against Hugging Face transformers: values made by scripts/make-golden.py.
@Suite struct GoldenTests {
    static let layouts = ["llama-mha", "llama-gqa", "llama-mqa"]
    static let files = ["model.safetensors", "model.gguf"]

    /// f32 sums in another order than PyTorch's, over two layers: logits of size one to ten.
    static let tolerance = 1e-4

    static func folder(_ name: String) -> String {
        let source = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        return source.dropLast(2).joined(separator: "/") + "/Fixtures/" + name
    }

    /// The tensors of a model's golden file.
    struct Golden {
        let file: SafetensorsFile

        init(_ name: String) throws {
            file = try SafetensorsFile(path: GoldenTests.folder(name) + "/golden.safetensors")
        }

        func ids(_ name: String) throws -> [Int32] {
            guard case .plain(let tensor) = try file.weight(name) else { return [] }
            return try tensor.floats().map { Int32($0) }
        }

        func rows(_ name: String) throws -> [[Float]] {
            guard case .plain(let tensor) = try file.weight(name) else { return [] }
            let values = try tensor.floats()
            let columns = tensor.shape[1]
            return stride(from: 0, to: values.count, by: columns).map {
                Array(values[$0..<$0 + columns])
            }
        }
    }

    static func compile(
        _ model: String, _ file: String, options: Compiler.Options = Compiler.Options()
    ) throws -> CompiledModel {
        let source = try ModelSource.open(folder(model) + "/" + file)
        let architecture = try ModelRegistry.builtIn.architecture(
            named: source.architectures, source.configuration)
        return try CompiledModel(
            architecture,
            weights: CheckpointWeights(source.checkpoint, map: architecture.weightMap),
            options: options)
    }

    private func gap(_ a: [[Float]], _ b: [[Float]]) -> Double {
        Tolerance.difference(a.flatMap { $0 }, b.flatMap { $0 })
    }

    @Test(arguments: layouts, files)
    func logitsEqualTransformers(_ model: String, _ file: String) async throws {
        let golden = try Golden(model)
        let executor = try Self.compile(model, file).executor()
        var runner = StepRunner(executor)
        let long = try golden.ids("long.input_ids")
        // A whole prompt, and beside it the short one.
        let first = try await runner.run([
            StepPart(0, long), StepPart(1, try golden.ids("short.input_ids")),
        ])
        let expected = try golden.rows("long.logits") + golden.rows("short.logits")
        #expect(expected.count == 45)
        let prefill = gap(first.logits, expected)
        #expect(prefill < Self.tolerance)
        // Given tokens, one at a time.
        var forced: [[Float]] = []
        for token in try golden.ids("forced.ids") {
            forced += try await runner.run([StepPart(0, [token])]).logits
        }
        let decode = gap(forced, try golden.rows("forced.logits"))
        #expect(decode < Self.tolerance)
    }

    @Test(arguments: layouts, files)
    func greedyTokensEqualTransformers(_ model: String, _ file: String) async throws {
        let golden = try Golden(model)
        var runner = StepRunner(try Self.compile(model, file).executor())
        // The prompt in unequal chunks.
        let prompt = try golden.ids("long.input_ids")
        _ = try await runner.run([StepPart(0, Array(prompt[..<17]))])
        var outputs = try await runner.run([StepPart(0, Array(prompt[17...]))])
        let wanted = try golden.ids("greedy.ids")
        let rows = try golden.rows("greedy.logits")
        for (index, token) in wanted.enumerated() {
            #expect(gap([try #require(outputs.logits.last)], [rows[index]]) < Self.tolerance)
            #expect(outputs.tokens.last == token, "token \(index)")
            outputs = try await runner.run([StepPart(0, [token])])
        }
    }

    /// Root of the mean squared error over that of the expected rows.
    private func relativeError(_ a: [[Float]], _ b: [[Float]]) -> Double {
        var error = 0.0, power = 0.0
        for (x, y) in zip(a.joined(), b.joined()) {
            error += Double(x - y) * Double(x - y)
            power += Double(y) * Double(y)
        }
        return a.count == b.count ? (error / power).squareRoot() : .infinity
    }

    @Test(arguments: [("int8:g32", 0.06), ("int4:g32", 0.5)])
    func codedWeightsStayNear(_ scheme: String, _ limit: Double) async throws {
        let golden = try Golden("llama-gqa")
        let choice = try SchemeRegistry.choice(scheme)
        for activations in [nil, ActivationFormat.int8g64] {
            var options = Compiler.Options()
            options.recipe.weights = .scheme(name: choice.name, choice.scheme)
            options.recipe.activations = activations
            let model = try Self.compile("llama-gqa", "model.safetensors", options: options)
            var runner = StepRunner(try model.executor())
            let found = try await runner.run([StepPart(0, try golden.ids("long.input_ids"))])
            let error = relativeError(found.logits, try golden.rows("long.logits"))
            // Random weights make attention sharp, so errors grow over layers; that the plan does
            // what its graph says is CodedWeightTests' matter. No error would mean no coding.
            #expect(error < limit && error > 1e-4)
        }
    }
}
