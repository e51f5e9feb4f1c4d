// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletEngineFile
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A path holds a whole engine or what it held before, and nothing lies beside it.
@Suite(.serialized)
struct EngineFileWriterTests {
    @Test func nothingAppearsBeforeTheEnd() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("tiny.martlet")
        let writer = try EngineFileWriter(path: path)
        try Tiny.writeSections(to: writer)
        #expect(try folder.names().count == 1)
        #expect(try folder.names()[0].hasPrefix("tiny.martlet.partial-"))
        try writer.finish(Tiny.description)
        #expect(try folder.names() == ["tiny.martlet"])
        #expect(code { try writer.finish(Tiny.description) } == .internalError)
        #expect(code { try writer.addSection(SectionKey(.graph), ByteView()) } == .internalError)
        _ = try EngineFileReader.open(path)
    }

    @Test func aReleasedOrCancelledWriterLeavesNothing() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("tiny.martlet")
        do {
            let writer = try EngineFileWriter(path: path)
            try Tiny.writeSections(to: writer)
        }
        #expect(try folder.names().isEmpty)
        let writer = try EngineFileWriter(path: path)
        writer.cancel()
        #expect(try folder.names().isEmpty)
    }

    @Test func aFullDiskLeavesTheOldEngine() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("tiny.martlet")
        try Tiny.write(path)
        let old = try EngineFileReader.open(path)
        // High enough that tests running beside this one do not meet it.
        let size = 40 << 20
        var limit = rlimit()
        #expect(getrlimit(fileSizeResource, &limit) == 0)
        let before = limit
        limit.rlim_cur = rlim_t(size)
        #expect(setrlimit(fileSizeResource, &limit) == 0)
        defer {
            var restored = before
            _ = setrlimit(fileSizeResource, &restored)
        }
        let writer = try EngineFileWriter(path: path)
        do {
            try writer.addSection(SectionKey(.weights), ByteView(count: size) { _ in })
            Issue.record("wrote past the limit")
        } catch {
            let error = try #require(error as? MartletError)
            #expect(error.code == .io)
            #expect("\(error)".contains(path))
            #expect(error.mend != nil)
        }
        #expect(try folder.names() == ["tiny.martlet"])
        #expect(code { try writer.finish(Tiny.description) } == .internalError)
        #expect(try EngineFileReader.open(path).identity == old.identity)
    }

    @Test func leftoversOfDeadWritersAreSwept() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("tiny.martlet")
        // Above the largest process id that Linux gives.
        let dead = folder.file("tiny.martlet.partial-4194999-0")
        let living = folder.file("tiny.martlet.partial-\(getpid())-999999")
        let foreign = folder.file("other.martlet.partial-4194999-0")
        for file in [dead, living, foreign] { close(creat(file, 0o644)) }
        try Tiny.write(path)
        let names = Set(try folder.names())
        #expect(!names.contains("tiny.martlet.partial-4194999-0"))
        #expect(names.count == 3)
    }

    @Test func twoWritersOfOnePathDoNotMeet() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("tiny.martlet")
        let first = try EngineFileWriter(path: path)
        let second = try EngineFileWriter(path: path)
        try Tiny.writeSections(to: first, seed: 1)
        try Tiny.writeSections(to: second, seed: 2)
        try second.finish(Tiny.description)
        let open = try EngineFileReader.open(path)
        try first.finish(Tiny.description)
        // The mapping made before the second rename still shows what it showed.
        #expect(open.section(.tokenizer)?.hasSameBytes(as: Tiny.values(301, seed: 2)) == true)
        let now = try EngineFileReader.open(path)
        #expect(now.section(.tokenizer)?.hasSameBytes(as: Tiny.values(301, seed: 1)) == true)
        #expect(try folder.names() == ["tiny.martlet"])
    }

    @Test func unwritablePlacesAreNamed() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("absent/tiny.martlet")
        #expect(code { _ = try EngineFileWriter(path: path) } == .io)
    }

    @Test func progressCountsUp() throws {
        let folder = try TemporaryFolder()
        let seen = Mutex<[Int]>([])
        let writer = try EngineFileWriter(path: folder.file("tiny.martlet")) { count in
            seen.withLock { $0.append(count) }
        }
        try writer.addSection(SectionKey(.constants), ByteView(count: 5 << 20) { _ in })
        try writer.finish(Tiny.description)
        let counts = seen.withLock { $0 }
        #expect(counts.count >= 5)
        #expect(counts == counts.sorted())
        #expect(counts.last == (try MappedFile.map(folder.file("tiny.martlet"))).count)
    }

    @Test func wrongCallsAreRefused() throws {
        let folder = try TemporaryFolder()
        let writer = try EngineFileWriter(path: folder.file("tiny.martlet"))
        #expect(code { try writer.write(ByteView()) } == .internalError)
        #expect(
            code { try writer.writeParameter(Tiny.parameters[0], ByteView()) } == .internalError)
        try writer.beginSection(SectionKey(.constants))
        #expect(code { try writer.beginSection(SectionKey(.graph)) } == .internalError)
        #expect(code { try writer.finish(Tiny.description) } == .internalError)
        writer.endSection()
        #expect(code { try writer.beginSection(SectionKey(.constants)) } == .internalError)
        #expect(
            code { try writer.beginSection(SectionKey(.graph), alignment: 64) } == .internalError)
        var plan = Tiny.plan()
        plan.steps[0].operands[0] = .parameter(7)
        #expect(code { try writer.addPlan(plan) } == .corrupt)
    }
}

#if canImport(Glibc)
private let fileSizeResource = __rlimit_resource_t(RLIMIT_FSIZE.rawValue)
#else
private let fileSizeResource = RLIMIT_FSIZE
#endif
