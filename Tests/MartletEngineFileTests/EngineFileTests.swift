// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletEngineFile
import Testing

struct EngineFileTests {
    @Test func everythingComesBack() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("tiny.martlet")
        try Tiny.write(path)
        let engine = try EngineFileReader.open(path)
        #expect(engine.path == path)
        #expect(engine.manifest.description == Tiny.description)
        #expect(engine.manifest.targets == ["cpu"])
        #expect(engine.manifest.entryPoints == ["decode", "embed"])
        #expect(try engine.plan(entryPoint: "decode", for: Tiny.cpu) == Tiny.plan())
        #expect(try engine.plan(entryPoint: "embed", for: Tiny.cpu) == Tiny.plan("embed"))
        #expect(try engine.text(.chatTemplate) == "{{ messages }} \u{1F426}")
        #expect(try engine.text(.graph, entryPoint: "decode") == "graph decode {}")
        #expect(try engine.text(.generationDefaults) == nil)
        let tokenizer = try #require(engine.section(.tokenizer))
        #expect(tokenizer.hasSameBytes(as: Tiny.values(301, seed: 1)))
        let weights = try engine.parameters(of: Tiny.plan(), for: Tiny.cpu)
        #expect(weights.count == 2)
        #expect(weights[0].hasSameBytes(as: Tiny.values(1000, seed: 1)))
        #expect(weights[1].hasSameBytes(as: Tiny.values(1001, seed: 2)))
        let entry = try #require(engine.entries(named: "layers.0.qkv").first)
        #expect(entry.offset == 1024 && engine.target(of: entry) == Tiny.cpu)
        #expect(engine.parameter(Tiny.parameters[1], for: EngineTarget("cuda")) == nil)
    }

    @Test func equalInputGivesEqualBytesAndIdentity() throws {
        let folder = try TemporaryFolder()
        try Tiny.write(folder.file("a"))
        try Tiny.write(folder.file("b"))
        try Tiny.write(folder.file("c"), seed: 9)
        let first = try MappedFile.map(folder.file("a"))
        #expect(first.hasSameBytes(as: try MappedFile.map(folder.file("b"))))
        let identities = try ["a", "b", "c"].map {
            try EngineFileReader.open(folder.file($0)).identity
        }
        #expect(identities[0] == identities[1])
        #expect(identities[0] != identities[2])
        #expect(identities[0].utf8.count == 32)
    }

    @Test func sectionsAreAlignedAndLargeOnesSpanChecksums() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("large")
        let writer = try EngineFileWriter(path: path)
        try writer.addPlan(Tiny.plan())
        let content = Tiny.values((2 << 20) + 77, seed: 3)
        try writer.beginSection(SectionKey(.weights, target: Tiny.cpu))
        for parameter in Tiny.parameters { try writer.writeParameter(parameter, content) }
        writer.endSection()
        try writer.addSection(SectionKey(.constants), ByteView())
        try writer.finish(Tiny.description)
        for threads in [1, 2, 7] {
            let engine = try EngineFileReader.open(path, threadCount: threads)
            let weights = engine.manifest.sections[1]
            #expect(weights.offset % (2 << 20) == 0)
            #expect(engine.manifest.sections.allSatisfy { $0.offset % 4096 == 0 })
            #expect(engine.section(.constants)?.count == 0)
            for bytes in try engine.parameters(of: Tiny.plan(), for: Tiny.cpu) {
                #expect(bytes.hasSameBytes(as: content))
            }
        }
    }

    @Test func theClosestSectionServesADevice() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("targets")
        let writer = try EngineFileWriter(path: path)
        let targets = [
            EngineTarget.any, EngineTarget("cuda"), EngineTarget("cuda", smCount: 132),
            EngineTarget("cuda", rank: 1),
        ]
        for (index, target) in targets.enumerated() {
            try writer.addSection(
                SectionKey(.constants, target: target), ByteView([UInt8(index)]))
        }
        try writer.finish(Tiny.description)
        let engine = try EngineFileReader.open(path)
        func found(_ target: EngineTarget) -> [UInt8]? {
            engine.section(.constants, for: target)?.array(of: UInt8.self)
        }
        #expect(found(.any) == [0])
        #expect(found(EngineTarget("cpu")) == [0])
        #expect(found(EngineTarget("cuda", smCount: 114)) == [1])
        #expect(found(EngineTarget("cuda", smCount: 132)) == [2])
        #expect(found(EngineTarget("cuda", smCount: 132, rank: 1)) == [3])
    }

    @Test func unknownSectionsAreSkippedIfOptionalAndRefusedIfRequired() throws {
        let folder = try TemporaryFolder()
        let key = SectionKey(SectionKind(rawValue: "hologram"))
        let optional = try EngineFileWriter(path: folder.file("optional"))
        try optional.addSection(key, isRequired: false, Tiny.text("?"))
        try optional.finish(Tiny.description)
        #expect(try EngineFileReader.open(folder.file("optional")).manifest.sections.count == 1)
        let required = try EngineFileWriter(path: folder.file("required"))
        try required.addSection(key, Tiny.text("?"))
        #expect(code { try required.finish(Tiny.description) } == .unsupported)
        #expect(try folder.names() == ["optional"])
    }

    @Test func plansMustFindTheirParameters() throws {
        let folder = try TemporaryFolder()
        try Tiny.write(folder.file("missing"), stored: [Tiny.parameters[0]])
        var wrong = Tiny.parameters
        wrong[1].shape = [8, 16]
        try Tiny.write(folder.file("wrong"), stored: wrong)
        let missing = try EngineFileReader.open(folder.file("missing"))
        let shaped = try EngineFileReader.open(folder.file("wrong"))
        #expect(code { _ = try missing.plan(entryPoint: "decode", for: Tiny.cpu) } == .corrupt)
        #expect(code { _ = try shaped.plan(entryPoint: "decode", for: Tiny.cpu) } == .shapeMismatch)
        #expect(code { _ = try shaped.plan(entryPoint: "draft", for: Tiny.cpu) } == .notFound)
        #expect(
            code { _ = try shaped.plan(entryPoint: "decode", for: EngineTarget("cuda-sm_90")) }
                == .unsupported)
    }

    @Test func filesThatAreNoEnginesAreNamed() throws {
        let folder = try TemporaryFolder()
        #expect(code { _ = try EngineFileReader.open(folder.file("none")) } == .notFound)
        #expect(code { _ = try EngineFileReader.open(folder.path) } == .io)
        do {
            _ = try EngineFileReader(Tiny.text("GGUF and more"), path: "x")
            Issue.record("opened")
        } catch { #expect("\(error)".contains("not an engine file")) }
    }
}
