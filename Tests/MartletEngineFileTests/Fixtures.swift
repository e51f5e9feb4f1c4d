// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore
import MartletEngineFile

/// A folder that is removed with its content when the test ends.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory
            .appendingPathComponent("martlet-engine-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }
    func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: path) }
}

/// The same numbers for the same seed, everywhere (splitmix64).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

enum Tiny {
    static let cpu = EngineTarget("cpu")

    static let description = EngineDescription(
        builderVersion: "0.1.0", modelName: "tiny", architecture: "llama",
        sizes: EngineSizes(
            hiddenSize: 8, intermediateSize: 16, layerCount: 2, headCount: 2, kvHeadCount: 1,
            headDim: 4, vocabularySize: 32, maxContext: 64, parameterCount: 1000),
        precision: EnginePrecision(
            dtype: "f32", weights: "int4.g32.min.f16", activations: "exact", kvDType: "f16"),
        sources: [SourceFingerprint(name: "tiny.gguf", byteCount: 12, hash: "sha256:00")],
        options: ["quantize": "int4"])

    static let parameters = [
        PlanParameter(name: "embedding", layout: "rows", format: "f32", shape: [32, 8]),
        PlanParameter(
            name: "layers.0.qkv", layout: "panel16.u4.g32", format: "int4.g32.min.f16",
            shape: [16, 8]),
    ]

    static func plan(_ entryPoint: String = "decode", target: String = "cpu") -> Plan {
        Plan(
            entryPoint: entryPoint, target: target,
            buffers: [
                PlanBuffer(rows: .T, columns: 8, format: "f32", rowBytes: 32, slot: 0),
                PlanBuffer(rows: .T, columns: 16, format: "f32", rowBytes: 64, slot: 1),
                PlanBuffer(rows: .O, columns: 32, format: "f32", rowBytes: 128, slot: 0),
            ],
            slotCount: 2, parameters: parameters,
            kvGroups: [
                KVGroup(
                    layerCount: 2, kvHeadCount: 1, headDim: 4, scheme: KVScheme(dtype: .f16))
            ],
            steps: [
                PlanStep(
                    op: "embedding", family: "embedding_f32",
                    variants: [PlanVariant(kernel: "embedding_f32_scalar")],
                    operands: [.parameter(0), .input("tokens")],
                    results: [.buffer(0, offset: 0, columns: 8)], attributes: [:], path: "embedding"
                ),
                PlanStep(
                    op: "linear", family: "linear_int4_f32",
                    variants: [
                        PlanVariant(kernel: "linear_int4_f32_gemv", maxRows: 4),
                        PlanVariant(kernel: "linear_int4_f32_panel"),
                    ],
                    operands: [.buffer(0, offset: 0, columns: 8), .parameter(1), .none],
                    results: [.buffer(1, offset: 0, columns: 16)],
                    attributes: [
                        "group": 0, "layer": 1, "scale": 0.1, "kind": "f:x",
                        "sizes": .ints([8, 4, 4]),
                    ],
                    path: "layers.0.qkv"),
            ],
            outputs: [PlanOutput(name: "logits", operand: .buffer(2, offset: 0, columns: 32))])
    }

    static func values(_ count: Int, seed: UInt64) -> ByteView {
        var generator = SeededGenerator(seed: seed)
        return ByteView((0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) })
    }

    static func text(_ text: String) -> ByteView { ByteView(Array(text.utf8)) }

    /// Writes everything but the end.
    static func writeSections(
        to writer: EngineFileWriter, seed: UInt64 = 1, plans: [Plan] = [plan(), plan("embed")],
        stored: [PlanParameter] = parameters
    ) throws {
        for plan in plans { try writer.addPlan(plan) }
        try writer.addSection(SectionKey(.graph, entryPoint: "decode"), text("graph decode {}"))
        try writer.addSection(SectionKey(.tokenizer), values(301, seed: seed))
        try writer.addSection(SectionKey(.chatTemplate), text("{{ messages }} \u{1F426}"))
        try writer.beginSection(SectionKey(.weights, target: cpu), alignment: 4096)
        for (index, parameter) in stored.enumerated() {
            try writer.writeParameter(
                parameter, values(1000 + index, seed: seed &+ UInt64(index)))
        }
        writer.endSection()
    }

    static func write(
        _ path: String, seed: UInt64 = 1, plans: [Plan] = [plan(), plan("embed")],
        stored: [PlanParameter] = parameters
    ) throws {
        let writer = try EngineFileWriter(path: path)
        try writeSections(to: writer, seed: seed, plans: plans, stored: stored)
        try writer.finish(description)
    }

    /// A small engine in memory.
    static func bytes() throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let path = folder.file("tiny.martlet")
        try write(path)
        return try MappedFile.map(path).array(of: UInt8.self)
    }
}

/// The code of the error that a body throws, or nil.
func code(_ body: () throws -> Void) -> MartletError.Code? {
    do {
        try body()
        return nil
    } catch { return (error as? MartletError)?.code ?? .internalError }
}
