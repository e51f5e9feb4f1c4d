// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Martlet
import MartletCPU
import MartletCore
import MartletEngineFile
import MartletRuntime
import MartletTestSupport
import Synchronization
import Testing

/// Engines built for one target and used on another.
@Suite struct RetargetTests {
    private static let known = CatalogList(device: CPUCatalog(), others: [RowsCatalog()])

    /// Which model, and how its numbers are stored.
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        var quantize = "keep"
        var embedding = "keep"
        var head: String?
        var activations: String?
        var model: @Sendable () throws -> any ModelArchitecture = { try TinyModels.llama() }
        var testDescription: String { name }
    }

    static let cases = [
        Case(name: "f32"),
        Case(name: "int8, coded activations", quantize: "int8", embedding: "int8:g32"),
        Case(name: "int4, exact", quantize: "int4:g32:asym", activations: "exact"),
        Case(name: "two windows") { AlternatingWindows() },
        Case(name: "two entry points") { DecoderAndEmbedder() },
        Case(name: "tied head", embedding: "int8:g32") { try TinyModels.llama(tied: true) },
        Case(name: "untied head", head: "int8:g32") { try TinyModels.llama(tied: true) },
    ]

    private func options(_ item: Case = cases[0], targets: [String] = []) -> LoadOptions {
        var options = LoadOptions()
        options.catalogs = Self.known
        options.targets = targets
        options.quantize = item.quantize
        options.quantizeEmbedding = item.embedding
        options.quantizeHead = item.head
        options.activations = item.activations
        options.maxLogitRows = 64
        return options
    }

    private func build(_ item: Case, _ targets: [String], _ path: String) throws {
        let builder = try EngineBuilder(
            architecture: item.model(), weights: RandomWeights(seed: 4),
            options: options(item, targets: targets))
        try builder.draft(EngineSource(name: "tiny")).write(to: path)
    }

    private func retarget(_ path: String, _ targets: [String], _ result: String) throws {
        try LanguageModel.draft(path, options: options(targets: targets)).write(to: result)
    }

    /// Logits of every row of two prompts.
    private func logits(_ model: LanguageModel) throws -> [[Float]] {
        var settings = SamplingSettings()
        settings.maxTokens = 0
        settings.returnContextLogits = true
        let prompts: [[Int32]] = [(0..<40).map { $0 * 7 % 80 }, [3, 1, 4, 1, 5]]
        return try model.generateBatch(
            prompts.map { GenerationRequest(prompt: $0, settings: settings) }
        ).flatMap(\.contextLogits)
    }

    /// Re-targeting there and back gives, byte for byte, what building from the checkpoint gives.
    @Test(arguments: cases)
    func filesEqualThoseOfTheCheckpoint(_ item: Case) throws {
        let folder = Folder()
        let (cpu, rows, both) = (folder.file("cpu"), folder.file("rows"), folder.file("both"))
        try build(item, ["cpu"], cpu)
        try build(item, ["test-rows"], rows)
        try build(item, ["test-rows", "cpu"], both)
        #expect(!folder.isEqual(cpu, rows))
        for (source, targets, expected) in [
            (rows, ["cpu"], cpu), (cpu, ["test-rows"], rows), (both, ["cpu"], cpu),
            (both, ["test-rows"], rows), (cpu, ["test-rows", "cpu"], both), (cpu, [], cpu),
        ] {
            let result = folder.file("result")
            try retarget(source, targets, result)
            #expect(folder.isEqual(result, expected), "\(targets) from \(source)")
        }
        #expect(try EngineFileReader.open(both).manifest.targets == ["cpu", "test-rows"])
    }

    @Test(arguments: cases)
    func logitsAreThoseOfAnEngineForTheDevice(_ item: Case) throws {
        let folder = Folder()
        try build(item, ["cpu"], folder.file("cpu"))
        try build(item, ["test-rows"], folder.file("rows"))
        let expected = try logits(LanguageModel.load(folder.file("cpu"), options: options()))
        #expect(expected.count == 45 && expected[0].contains { $0 != 0 })
        let notices = Mutex<[String]>([])
        var options = options()
        options.onWarning = { text in notices.withLock { $0.append(text) } }
        let model = try LanguageModel.load(folder.file("rows"), options: options)
        #expect(try logits(model) == expected)
        let said = notices.withLock { $0 }
        #expect(said.count == 1)
        #expect(said.first?.contains("built for test-rows, not for cpu: re-targeting") == true)
        #expect(said.first?.contains("martlet build \(folder.file("rows")) --target cpu") == true)
    }

    @Test func neverStopsWithTheCommand() throws {
        let folder = Folder()
        let path = folder.file("rows")
        try build(Self.cases[0], ["test-rows"], path)
        var options = options()
        options.retarget = .never
        let error = #expect(throws: MartletError.self) {
            try LanguageModel.load(path, options: options)
        }
        #expect(error?.code == .unsupported)
        #expect(error?.mend?.contains("martlet build \(path) --target cpu --output") == true)
    }

    @Test func unknownTargetsAreNamed() throws {
        for targets in [["gpu"], ["cpu", "cpu"]] {
            let error = #expect(throws: MartletError.self) {
                try build(Self.cases[0], targets, "/nowhere")
            }
            #expect(error?.code == .invalidArgument)
            #expect(error?.message.contains("'\(targets[0])'") == true)
        }
    }

    // Engines that contradict themselves.

    /// One change of a sound engine, and what opening it for another target must say.
    struct Damage: Sendable, CustomTestStringConvertible {
        let name: String
        let code: MartletError.Code
        let says: String
        var text: @Sendable (String) -> String? = { $0 }
        var keepsConstants = true
        var parameter: @Sendable (PlanParameter) -> PlanParameter? = { $0 }
        var target = "test-rows"
        var testDescription: String { name }
    }

    private static let qkv = "layers.0.attention.qkv.weight"

    static let damages = [
        Damage(name: "no graph", code: .unsupported, says: "keeps no graph of 'decode'") { _ in nil
        },
        Damage(name: "half a graph", code: .corrupt, says: "graph text") {
            String($0.prefix($0.count / 2))
        },
        Damage(name: "no text at all", code: .corrupt, says: "graph text") { _ in "" },
        Damage(name: "another graph", code: .corrupt, says: "is named 'encode'") {
            "graph encode" + $0.dropFirst("graph decode".count)
        },
        Damage(
            name: "no constants", code: .corrupt, says: "'rotary.inverseFrequencies'",
            keepsConstants: false),
        Damage(name: "a shape in the graph", code: .shapeMismatch, says: "is implied") {
            $0.replacing("f32[96, 64]", with: "f32[96, 65]")
        },
        Damage(
            name: "a weight of another format", code: .shapeMismatch,
            says: "'head.weight' f32 [96, 64]"
        ) {
            $0.replacing(
                "{name=\"head.weight\"} : f32[96, 64]",
                with: "{name=\"head.weight\"} : bf16[96, 64]")
        },
        Damage(
            name: "a weight of another shape", code: .shapeMismatch, says: "[192, 64]",
            parameter: { changed($0, qkv) { $0.shape = [192, 64] } }),
        Damage(
            name: "an unknown layout", code: .corrupt, says: "panel17.f32",
            parameter: { changed($0, qkv) { $0.layout = "panel17.f32" } }),
        Damage(
            name: "a missing weight", code: .corrupt, says: "lacks weight '\(qkv)'",
            parameter: { $0.name == qkv ? nil : $0 }),
        Damage(
            name: "an unknown packer", code: .unsupported, says: "is packed for abacus",
            target: "abacus"),
    ]

    @Test(arguments: damages)
    func contradictionsAreErrors(_ damage: Damage) throws {
        let folder = Folder()
        let (whole, broken) = (folder.file("whole"), folder.file("broken"))
        try build(Self.cases[0], ["cpu"], whole)
        try Self.write(broken, from: whole, damage)
        var options = options()
        options.catalogs = CatalogList(device: RowsCatalog(), others: [CPUCatalog()])
        let error = #expect(throws: MartletError.self) {
            _ = try LoadedEngine.open(broken, options: options)
        }
        #expect(error?.code == damage.code, "\(String(describing: error))")
        let text = error.map { "\($0)" } ?? ""
        #expect(text.contains(damage.says), "\(text)")
        #expect(text.contains(broken), "\(text)")
        try Self.write(broken, from: whole, Damage(name: "none", code: .io, says: ""))
        #expect(try !LoadedEngine.open(broken, options: options).parameters.isEmpty)
    }

    private static func changed(
        _ parameter: PlanParameter, _ name: String, _ change: (inout PlanParameter) -> Void
    ) -> PlanParameter {
        var copy = parameter
        if parameter.name == name { change(&copy) }
        return copy
    }

    /// Writes an engine of one cpu target again, damaged; plans go to a target of their own.
    private static func write(_ path: String, from source: String, _ damage: Damage) throws {
        let file = try EngineFileReader.open(source)
        let name = damage.target == "abacus" ? "abacus" : "cpu"
        let writer = try EngineFileWriter(path: path)
        for entryPoint in file.manifest.entryPoints {
            var plan = try file.plan(entryPoint: entryPoint, for: EngineTarget("cpu"))
            plan.target = name
            try writer.addPlan(plan)
        }
        for section in file.manifest.sections {
            let index = file.manifest.sections.firstIndex(of: section)
            switch section.key.kind {
            case .plan: continue
            case .graph:
                let text = try file.text(.graph, entryPoint: section.key.entryPoint) ?? ""
                if let text = damage.text(text) {
                    try writer.addSection(
                        section.key, isRequired: false, ByteView(Array(text.utf8)))
                }
            case .constants where !damage.keepsConstants: continue
            case .constants, .weights:
                var key = section.key
                if key.kind == .weights { key.target = EngineTarget(name) }
                try writer.beginSection(key, alignment: 4096)
                for entry in file.manifest.parameters where entry.section == index {
                    guard let bytes = file.bytes(of: entry),
                        let parameter = damage.parameter(entry.identity)
                    else { continue }
                    try writer.writeParameter(parameter, bytes)
                }
                writer.endSection()
            default:
                guard let bytes = file.view(section) else { continue }
                try writer.addSection(section.key, bytes)
            }
        }
        try writer.finish(file.manifest.description)
    }
}

/// A folder that is removed with its content.
private final class Folder: Sendable {
    private let path: String

    init() {
        let url = FileManager.default.temporaryDirectory
            .appendingPathComponent("martlet-retarget-\(UUID().uuidString)")
        try? FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name).martlet" }

    func isEqual(_ a: String, _ b: String) -> Bool {
        guard let first = try? MappedFile.map(a), let second = try? MappedFile.map(b) else {
            return false
        }
        return first.hasSameBytes(as: second)
    }
}
