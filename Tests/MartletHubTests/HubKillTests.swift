// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import NIOHTTP1
import Synchronization
import Testing

/// Stops of a pull at random moments; the cache must never show a part.
@Suite struct HubKillTests {
    private let folder = TemporaryFolder()

    @Test(.timeLimit(.minutes(10))) func resumesAfterTwentyStops() async throws {
        let sound = FakeHub(content: randomBytes(4_000_000, seed: 4))
        // While stops are tried the server falls silent before the end, however slow the machine is.
        let isStopping = Flag()
        isStopping.set()
        let server = try await LoopbackServer { request, _ in
            var reply = sound.answer(request)
            if request.method == .GET, isStopping.isSet { reply.holdAfter = 190_000 }
            return reply
        }
        let hub = folder.hub(server.endpoint)
        var generator = SeededGenerator(state: 5)
        var highest = 0
        for _ in 0..<20 {
            let stop = Int.random(in: 0...150_000, using: &generator)
            await pull(hub, stoppingAfter: stop)
            #expect(hub.list().isEmpty)
            #expect(try hub.lookup(FakeHub.reference) == nil)
            let partial = Disk.entry("\(folder.blobs)/\(sound.name).incomplete")?.byteCount ?? 0
            #expect(partial >= highest)
            #expect(partial < sound.content.count)
            highest = partial
        }
        isStopping.clear()
        let model = try await hub.pull(FakeHub.reference)
        try expectSound(folder, sound, model)
        #expect(model.sha256 == sound.sha256)
        // Each byte is fetched once, but for what was under way at a stop.
        let starts = server.requests.compactMap { $0.headers.first(name: "Range") }
        #expect(starts.count >= 10)
        await server.stop()
    }

    /// Pulls until so many new bytes have arrived, then cancels as a signal would.
    private func pull(_ hub: Hub, stoppingAfter count: Int) async {
        let path = "\(folder.blobs)/"
        let before = partialByteCount(path)
        let isDone = Flag()
        let work = Task {
            _ = try? await hub.pull(FakeHub.reference)
            isDone.set()
        }
        while partialByteCount(path) - before < count, !isDone.isSet {
            try? await Task.sleep(for: .microseconds(200))
        }
        work.cancel()
        await work.value
    }

    private func partialByteCount(_ folder: String) -> Int {
        Disk.names(in: folder).filter { $0.hasSuffix(".incomplete") }
            .compactMap { Disk.entry(folder + $0)?.byteCount }.reduce(0, +)
    }
}

/// A truth that one task tells another.
final class Flag: Sendable {
    private let value = Mutex(false)
    var isSet: Bool { value.withLock { $0 } }
    func set() { value.withLock { $0 = true } }
    func clear() { value.withLock { $0 = false } }
}

/// A small seeded generator (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }
}
