// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCore
import MartletTestSupport
import Synchronization
import Testing

/// Pages of paused requests on their way to the host and back.
extension FakeDriverTests {
    private static let hostPages = 3

    private func swapping(
        _ model: FakeModel? = nil, bytes: Int? = nil,
        _ change: (inout CUDAOptions) -> Void = { _ in }
    ) throws -> CUDAExecutor {
        let model = try model ?? FakeModel()
        let pageBytes = model.pageBytes
        return try model.executor {
            $0.hostByteCount = bytes ?? Self.hostPages * pageBytes + pageBytes / 2
            change(&$0)
        }
    }

    private static func operation(
        _ kind: BlockOperation.Kind, _ source: Int32, _ destination: Int32
    ) -> BlockOperation {
        BlockOperation(kind: kind, group: 0, source: source, destination: destination)
    }

    /// Whole pages, in the order of the record, all before the step's first kernel.
    @Test(arguments: [false, true]) func pagesAreCopiedInTheirOrder(asGraph: Bool) async throws {
        FakeDriver.reset()
        let executor = try swapping()
        #expect(executor.hostPageCount == Self.hostPages)
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1, 2])])
        let before = FakeDriver.state.withLock { $0.calls.count }
        let operations = [
            Self.operation(.swapOut, 2, 1), Self.operation(.copy, 4, 2),
            Self.operation(.swapOut, 2, 0), Self.operation(.swapIn, 1, 7),
            Self.operation(.swapIn, 0, 4),
        ]
        // A request's second step has one token: a graph.
        let parts = asGraph ? [StepPart(0, [3])] : [StepPart(1, [3, 4])]
        _ = try await runner.run(parts, operations: operations)
        let state = FakeDriver.state.withLock { $0 }
        let bytes = executor.pageBytes
        let copies = state.copies.filter { $0.call >= before && $0.count == bytes }
        #expect(
            copies.map(\.name) == [
                "cuMemcpyDtoHAsync", "cuMemcpyDtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpyHtoDAsync",
                "cuMemcpyHtoDAsync",
            ])
        try #require(copies.count == operations.count)
        let device = copies[0].from - 2 * UInt(bytes)
        let host = copies[0].to - UInt(bytes)
        for (copy, operation) in zip(copies, operations) {
            let kind = try #require(BlockOperation.Kind(rawValue: operation.kind))
            let source = (kind == .swapIn ? host : device) + UInt(operation.source) * UInt(bytes)
            let target =
                (kind == .swapOut ? host : device) + UInt(operation.destination) * UInt(bytes)
            #expect(copy.from == source && copy.to == target, "\(operation)")
        }
        #expect(state.live[host] == "pinned memory")
        let launches = state.calls.indices.filter {
            $0 >= before && ["cuGraphLaunch", "cuLaunchKernelEx"].contains(state.calls[$0])
        }
        // The step, then the kernel that brings its logits.
        try #require(launches.count > 1)
        #expect(state.calls[launches[0]] == (asGraph ? "cuGraphLaunch" : "cuLaunchKernelEx"))
        #expect(copies.allSatisfy { $0.call < launches[0] })
    }

    /// What a page held is what comes back, wherever it is put.
    @Test func pagesComeBackAsTheyWere() async throws {
        FakeDriver.reset()
        let executor = try swapping()
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1])], operations: [Self.operation(.swapOut, 5, 0)])
        let bytes = executor.pageBytes
        let copies = FakeDriver.state.withLock {
            $0.copies.filter { $0.name == "cuMemcpyDtoHAsync" && $0.count == bytes }
        }
        let first = try #require(copies.first)
        let page = try #require(UnsafeMutablePointer<UInt8>(bitPattern: first.from))
        let other = page + bytes
        for index in 0..<bytes { page[index] = UInt8(truncatingIfNeeded: index * 7 + 1) }
        _ = try await runner.run([StepPart(0, [2])], operations: [Self.operation(.swapOut, 5, 2)])
        for index in 0..<bytes { page[index] = 0 }
        _ = try await runner.run([StepPart(0, [3])], operations: [Self.operation(.swapIn, 2, 6)])
        #expect((0..<bytes).allSatisfy { other[$0] == UInt8(truncatingIfNeeded: $0 * 7 + 1) })
        withExtendedLifetime(executor) {}
    }

    /// Pages beyond those of the host are refused before anything starts.
    @Test func pagesOutOfRangeAreRefused() async throws {
        FakeDriver.reset()
        let executor = try swapping()
        var runner = StepRunner(executor)
        for operation in [
            Self.operation(.swapOut, 0, 3), Self.operation(.swapIn, 3, 0),
            Self.operation(.swapOut, 8, 0), Self.operation(.swapIn, 0, -1),
        ] {
            let error = await #expect(throws: MartletError.self) {
                try await runner.run([StepPart(0, [1])], operations: [operation])
            }
            #expect(error?.message.contains("is outside 0 ..< ") == true)
        }
        let none = try FakeModel().executor()
        var other = StepRunner(none)
        #expect(none.hostPageCount == 0)
        await #expect(throws: MartletError.self) {
            try await other.run([StepPart(0, [1])], operations: [Self.operation(.swapOut, 0, 0)])
        }
    }

    /// Other pieces of page-locked memory are no whole pages.
    private func refusePages(_ model: FakeModel, above limit: Int) {
        let bytes = model.pageBytes
        FakeDriver.state.withLock {
            $0.refusesPinned = { $0 % bytes == 0 && $0 / bytes > limit }
        }
    }

    /// What the system does not lock is done without: half as many pages, and half of these, and none.
    @Test func fewerPagesAreLockedWhereTheSystemRefuses() throws {
        let model = try FakeModel()
        let all = 8 * model.pageBytes
        for (limit, count) in [(8, 8), (7, 4), (4, 4), (3, 2), (1, 1), (0, 0)] {
            FakeDriver.reset()
            refusePages(model, above: limit)
            let executor = try swapping(model, bytes: all * 100)
            #expect(executor.hostPageCount == count, "limit \(limit)")
        }
        FakeDriver.reset()
        refusePages(model, above: 0)
        let error = #expect(throws: MartletError.self) {
            try swapping(model, bytes: all) { $0.needsHostPages = true }
        }
        #expect(error?.code == .limitExceeded)
        #expect(error?.message.contains("\(model.pageBytes) bytes") == true)
        #expect(error?.mend?.contains("--preemption recompute") == true)
        #expect(FakeDriver.state.withLock { $0.live }.isEmpty)
    }

    /// Every call of a run that swaps is failed once: an error or fewer pages, and nothing left behind.
    @Test func everyCallOfASwapMayFail() async throws {
        let model = try FakeModel()
        func run() async throws -> Int {
            let executor = try swapping(model)
            var runner = StepRunner(executor)
            _ = try await runner.run([StepPart(0, [1, 2, 3])])
            _ = try await runner.run(
                [StepPart(0, [4])],
                operations: [Self.operation(.swapOut, 1, 2), Self.operation(.swapOut, 3, 0)])
            _ = try await runner.run(
                [StepPart(0, [5])],
                operations: [Self.operation(.swapIn, 2, 3), Self.operation(.swapIn, 0, 1)])
            return executor.hostPageCount
        }
        FakeDriver.reset()
        #expect(try await run() == Self.hostPages)
        let count = FakeDriver.state.withLock { $0.count }
        var fewer = 0
        for call in 1...count {
            FakeDriver.reset(failing: call)
            do {
                #expect(try await run() == Self.hostPages)
                // Releases have nobody to report to.
                #expect(FakeDriver.state.withLock { $0.failedCall } == "cuCtxSetCurrent")
            } catch let error as MartletError {
                let name = FakeDriver.state.withLock { $0.failedCall } ?? ""
                // With one page locked a copy to the third is refused.
                #expect(
                    error.message.contains(name)
                        || name == "cuMemAllocHost" && error.message.contains("is outside 0 ..< "),
                    "\(error)")
                fewer += error.message.contains("is outside") ? 1 : 0
            }
            let state = FakeDriver.state.withLock { $0 }
            #expect(state.live.isEmpty, "call \(call) leaves \(state.live.values.sorted())")
            #expect(state.orphans + state.contextCount == 0)
        }
        #expect(fewer == 1)
    }
}
