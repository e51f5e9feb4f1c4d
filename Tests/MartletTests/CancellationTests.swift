// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Martlet
import MartletBackend
import MartletRuntime
import MartletTestSupport
import Testing

/// Of many requests half are cancelled at random moments; nothing of them stays, and the others do not notice.
///
/// `MARTLET_SOAK_MODEL=FILE MARTLET_SOAK_REQUESTS=1000` takes another model than a tiny one and more
/// requests, and then, for this suite alone, also compares the program's memory and descriptors.
@Suite(.serialized, .timeLimit(.minutes(30))) struct CancellationTests {
    private static let environment = ProcessInfo.processInfo.environment

    /// What the system holds for this process.
    private struct Holdings {
        let residentBytes: Int
        let descriptorCount: Int

        init() throws {
            let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
            let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") })
            residentBytes = (try #require(Int(line.filter(\.isNumber)))) * 1024
            descriptorCount = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
                .count
        }
    }

    private func load() throws -> LanguageModel {
        let fixtures = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Fixtures")
        var options = LoadOptions()
        options.engineCache = nil
        options.maxContext = MixedRequests.maxContext
        options.maxBatchSize = 16
        return try LanguageModel.load(
            Self.environment["MARTLET_SOAK_MODEL"] ?? fixtures.appending(path: "llama-gqa").path,
            options: options)
    }

    /// Reads an answer, or so many events of it and drops the rest.
    private static func read(_ stream: GenerationEvents, limit: Int?) async throws -> [[Int32]] {
        if limit == 0 { return [] }
        var answers: [[Int32]] = []
        var count = 0
        for try await event in stream {
            if let token = event.token {
                while answers.count <= event.choice { answers.append([]) }
                answers[event.choice].append(token)
            }
            count += 1
            if count == limit { break }
        }
        return answers
    }

    /// Runs all, a few dozen at a time; the answers of those that were not cancelled, by index.
    private func run(
        _ model: LanguageModel, _ requests: [GenerationRequest], limits: [Int?]
    ) async throws -> [Int: [[Int32]]] {
        try await withThrowingTaskGroup(of: (Int, [[Int32]]).self) { group in
            var answers: [Int: [[Int32]]] = [:]
            for index in requests.indices {
                if index >= 48, let (done, answer) = try await group.next(), limits[done] == nil {
                    answers[done] = answer
                }
                let stream = try model.inference.generate(requests[index])
                group.addTask { (index, try await Self.read(stream, limit: limits[index])) }
            }
            for try await (done, answer) in group where limits[done] == nil {
                answers[done] = answer
            }
            return answers
        }
    }

    /// Waits until the engine has seen all cancellations.
    private func settle(_ model: LanguageModel) async throws {
        // A minute at most: other tests may keep every core busy.
        for _ in 0..<30_000
        where model.inference.statistics.freePageCount
            < model.inference.statistics.pageCount
        { try await Task.sleep(for: .milliseconds(2)) }
    }

    @Test func nothingStaysOfCancelledRequests() async throws {
        let count = Self.environment["MARTLET_SOAK_REQUESTS"].flatMap(Int.init) ?? 150
        let model = try load()
        var mixed = MixedRequests(seed: 11, vocabularySize: model.executor.vocabularySize)
        let requests = mixed.next(count)
        var random = SeededRandom(seed: 12)
        let limits = (0..<count).map { index -> Int? in
            index % 2 == 0 ? nil : Int.random(in: 0...40, using: &random)
        }
        // The first requests make tables and stacks grow to their sizes.
        _ = try await run(model, Array(requests.prefix(64)), limits: Array(limits.prefix(64)))
        try await settle(model)
        let before = try Holdings()
        let survivors = try await run(model, requests, limits: limits)
        try await settle(model)
        let after = try Holdings()

        let statistics = model.inference.statistics
        #expect(statistics.freePageCount == statistics.pageCount)
        #expect(statistics.activeCount == 0 && statistics.waitingCount == 0)
        #expect(survivors.count == (count + 1) / 2)
        for (index, answer) in survivors.sorted(by: { $0.key < $1.key }) {
            var request = requests[index]
            request.cacheSalt = "alone \(index)"  // not on blocks that the others have computed
            let reused = model.inference.statistics.reusedTokenCount
            let alone = try model.generateBatch([request])[0]
            if request.settings.answerCount == 1, request.settings.bestOf ?? 1 <= 1 {
                #expect(model.inference.statistics.reusedTokenCount == reused)
            }
            #expect(
                ([alone] + alone.alternatives).map(\.tokens) == answer, "request \(index)")
        }
        guard Self.environment["MARTLET_SOAK_REQUESTS"] != nil else { return }
        // Beside other tests readers may come so late that most requests have ended.
        #expect(statistics.cancelledRequestCount > count / 8)
        #expect(after.descriptorCount == before.descriptorCount)
        #expect(Double(after.residentBytes) <= 1.02 * Double(before.residentBytes))
        print(
            "cancelled \(statistics.cancelledRequestCount), resident \(before.residentBytes) then "
                + "\(after.residentBytes) bytes, \(after.descriptorCount) descriptors")
    }
}
