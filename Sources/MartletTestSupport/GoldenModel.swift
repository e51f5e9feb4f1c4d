// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCompiler
import MartletCore
import MartletFormats
package import MartletModels
import MartletReference

/// A tiny model under `Tests/Fixtures` with values that another implementation computed from it.
///
/// `golden.safetensors` holds: `long.input_ids` and `long.logits`, a prompt; `short.*`, another one;
/// `forced.*`, tokens that follow the long prompt one at a time; `greedy.*`, tokens chosen so. Made by
/// the scripts that are named in the tests.
package struct GoldenModel {
    private let folder: String
    private let values: SafetensorsFile

    /// Opens a folder of fixtures.
    ///
    /// - Throws: `MartletError` if there is no such golden.
    package init(_ folder: String) throws {
        self.folder = folder
        values = try SafetensorsFile(path: folder + "/golden.safetensors")
    }

    /// Token ids.
    ///
    /// - Throws: `MartletError` `.notFound` if there are none of that name.
    package func ids(_ name: String) throws -> [Int32] {
        try values.tensor(name).floats().map { Int32($0) }
    }

    /// Rows of logits.
    ///
    /// - Throws: `MartletError` `.notFound` if there are none of that name.
    package func rows(_ name: String) throws -> [[Float]] {
        let tensor = try values.tensor(name)
        let numbers = try tensor.floats()
        let columns = max(tensor.shape.last ?? 1, 1)
        return stride(from: 0, to: numbers.count, by: columns).map {
            Array(numbers[$0..<$0 + columns])
        }
    }

    /// The model's architecture, its weights checked against it.
    ///
    /// - Parameter file: Weights within the folder; nil for the folder itself.
    /// - Throws: `MartletError` if the model is refused.
    package func model(
        _ file: String? = nil
    ) throws -> (architecture: any ModelArchitecture, weights: CheckpointWeights) {
        let source = try ModelSource.open(file.map { folder + "/" + $0 } ?? folder)
        let architecture = try ModelRegistry.builtIn.architecture(
            named: source.architectures, source.configuration)
        let weights = CheckpointWeights(source.checkpoint, map: architecture.weightMap)
        try weights.check(architecture)
        return (architecture, weights)
    }

    /// The model compiled for the CPU.
    ///
    /// - Throws: What the compiler throws.
    package func compile(
        _ file: String? = nil, options: Compiler.Options = Compiler.Options()
    ) throws -> CompiledModel {
        let (architecture, weights) = try model(file)
        return try CompiledModel(architecture, weights: weights, options: options)
    }

    /// The largest difference of logits in prefill: the long prompt and beside it the short one.
    ///
    /// - Throws: What the executor throws.
    package func prefillGap(_ model: CompiledModel) async throws -> Double {
        var runner = StepRunner(try model.executor())
        let found = try await runner.run([
            StepPart(0, try ids("long.input_ids")), StepPart(1, try ids("short.input_ids")),
        ])
        return gap(found.logits, try rows("long.logits") + rows("short.logits"))
    }

    /// The largest difference of logits in decoding: given tokens one at a time after the prompt.
    ///
    /// - Throws: What the executor throws.
    package func decodeGap(_ model: CompiledModel) async throws -> Double {
        var runner = StepRunner(try model.executor())
        // The prompt in unequal chunks.
        let prompt = try ids("long.input_ids")
        _ = try await runner.run([StepPart(0, Array(prompt[..<17]))])
        _ = try await runner.run([StepPart(0, Array(prompt[17...]))])
        var found: [[Float]] = []
        for token in try ids("forced.ids") {
            found += try await runner.run([StepPart(0, [token])]).logits
        }
        return gap(found, try rows("forced.logits"))
    }

    /// The same differences through the reference interpreter, prefill and decoding together.
    ///
    /// - Throws: What the interpreter throws.
    package func referenceGap(_ file: String? = nil) throws -> Double {
        let (architecture, weights) = try model(file)
        var runner = try ReferenceRunner(try architecture.trace(), weights: weights)
        var found = try runner.run([StepPart(0, try ids("long.input_ids"))]).floats("logits")
        for token in try ids("forced.ids") {
            found += try runner.run([StepPart(0, [token])]).floats("logits")
        }
        return gap([found], try rows("long.logits") + rows("forced.logits"))
    }

    private func gap(_ a: [[Float]], _ b: [[Float]]) -> Double {
        a.isEmpty ? .infinity : Tolerance.difference(a.flatMap { $0 }, b.flatMap { $0 })
    }
}
