// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Testing

struct StepBuilderTests {
    private static let limits = StepLimits(
        maxTokens: 16, maxRequests: 6, maxLogitRows: 6, maxContext: 64)

    private static func request(_ index: Int) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = 12 + 5 * index
        settings.temperature = Float(index)
        settings.seed = UInt64(index)
        if index == 2 { settings.presencePenalty = 0.5 }
        return GenerationRequest(
            prompt: (0..<3 + index).map { Int32($0) }, settings: settings)
    }

    /// Rows that lay there before are left as they are; what they say must be as if written anew.
    @Test(arguments: [1, 2]) func keptRecordsEqualNewOnes(depth: Int) throws {
        let streams = RequestStreams(groups: [
            FakeModel.group(blockSize: 4), FakeModel.group(window: 6, blockSize: 2),
        ])
        var options = SchedulerOptions()
        options.stepsInFlight = depth
        var scheduler = try Scheduler(
            limits: Self.limits, streams: streams, pageCount: 200, stateSlotCount: 3,
            options: options)
        let builder = StepBuilder(streams: streams, positionPlanes: 2)
        func record() -> StepRecord {
            StepRecord(limits: Self.limits, groups: streams.groups, positionPlanes: 2)
        }
        let records = (0...depth).map { _ in record() }
        var inFlight: [ScheduledStep] = []
        var layouts: [Int] = []
        for index in 0..<4 { try scheduler.submit(RequestID(UInt64(index)), Self.request(index)) }
        while true {
            if layouts.count == 15 { try scheduler.submit(RequestID(9), Self.request(1)) }
            var step = ScheduledStep()
            while inFlight.count < depth, scheduler.schedule(into: &step) {
                let kept = records[step.number % records.count]
                try builder.fill(kept, step, scheduler)
                let new = record()
                try builder.fill(new, step, scheduler)
                #expect(kept.bytes.elementsEqual(new.bytes), "step \(step.number)")
                layouts.append(step.layout)
                inFlight.append(step)
            }
            guard !inFlight.isEmpty else { break }
            let done = inFlight.removeFirst()
            var events: [SchedulerEvent] = []
            try scheduler.complete(
                done,
                tokens: (0..<done.logitRowCount).map { Int32(($0 + done.number) % 40) },
                status: [RowStatus](repeating: .ok, count: done.logitRowCount), events: &events)
        }
        #expect(layouts.first == 0)
        #expect(zip(layouts, layouts.dropFirst()).count { $0 != 0 && $0 == $1 } > 10)
        #expect(Set(layouts).count > 4)
    }

    @Test func stampsTellPagesApart() {
        var table = BlockTable()
        table.append(3)
        let first = table.stamp
        var other = table
        table.append(4)
        other.append(5)
        #expect(table.stampBefore == first && other.stampBefore == first)
        #expect(Set([first, table.stamp, other.stamp]).count == 3)
        table.pages[0] = 9
        #expect(table.stampBefore == 0)
    }
}
