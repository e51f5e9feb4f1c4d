// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime

/// A scheduler with a fake model that runs each step as late as its completion is asked for.
struct SchedulerHarness {
    var scheduler: Scheduler
    var model: FakeModel
    let builder: StepBuilder
    private let records: [StepRecord]
    private let outputs: [StepOutputs]
    private var inFlight: [(step: ScheduledStep, place: Int)] = []
    private var submitted = 0
    private(set) var requests: [RequestID: GenerationRequest] = [:]
    private(set) var answers: [RequestID: [Int32]] = [:]
    private(set) var finished: [RequestID: FinishReason] = [:]
    private(set) var stepSizes: [(requests: Int, tokens: Int)] = []
    private(set) var sourceCount = 0

    init(
        limits: StepLimits, groups: [KVGroup], pageCount: Int, stateSlotCount: Int = 3,
        depth: Int = 2, policy: SchedulingPolicy = .guaranteedNoEvict, reusesPrefixes: Bool = true
    ) throws {
        scheduler = try Scheduler(
            limits: limits, groups: groups, pageCount: pageCount, stateSlotCount: stateSlotCount,
            stepsInFlight: depth, policy: policy, reusesPrefixes: reusesPrefixes)
        model = FakeModel(
            limits: limits, groups: groups, pageCount: pageCount, stateSlotCount: stateSlotCount)
        builder = StepBuilder(groups: groups)
        records = (0...depth).map { _ in StepRecord(limits: limits, groups: groups) }
        outputs = (0...depth).map { _ in StepOutputs() }
    }

    var inFlightCount: Int { inFlight.count }

    mutating func submit(_ id: Int, _ request: GenerationRequest) throws {
        try scheduler.submit(RequestID(UInt64(id)), request)
        requests[RequestID(UInt64(id))] = request
    }

    /// Schedules a step; false if there was none.
    ///
    /// Its record is written now and run later.
    mutating func schedule() throws -> Bool {
        var step = ScheduledStep()
        guard scheduler.schedule(into: &step) else { return false }
        let place = submitted % records.count
        submitted += 1
        try builder.fill(records[place], step, scheduler)
        sourceCount += step.items.filter { $0.sourceRow != nil }.count
        inFlight.append((step, place))
        stepSizes.append((step.items.count, step.tokenCount))
        return true
    }

    /// Runs and completes the oldest step.
    mutating func complete() throws {
        guard !inFlight.isEmpty else { return }
        let (step, place) = inFlight.removeFirst()
        model.execute(records[place], outputs: outputs[place])
        var events: [SchedulerEvent] = []
        try scheduler.complete(
            step, tokens: outputs[place].tokens, status: outputs[place].status, events: &events)
        for event in events {
            if let token = event.token { answers[event.request, default: []].append(token) }
            if let reason = event.finishReason { finished[event.request] = reason }
        }
    }

    mutating func cancel(_ id: RequestID) {
        if scheduler.finish(id) { finished[id] = .cancelled }
    }

    mutating func drain() throws {
        while !scheduler.isIdle {
            let any = try schedule()
            if !any, inFlight.isEmpty { return }
            if !any { try complete() }
        }
        while !inFlight.isEmpty { try complete() }
    }

    /// Describes pages of steps in flight that are free, or written by one request and named by
    /// another of the step; nil if none are.
    func checkPagesInFlight() -> String? {
        for (step, place) in inFlight {
            var users: [Int32: Int] = [:]
            var written: Set<Int32> = []
            for (group, value) in builder.groups.enumerated() {
                guard let table = records[place].section(.blockTable, group: group),
                    let slots = records[place].section(.slot, group: group)
                else { continue }
                for index in 0..<step.items.count * records[place].blockColumns(group: group)
                where table[index] >= 0 {
                    if scheduler.pool.referenceCount(table[index]) == 0 {
                        return "page \(table[index]) of step \(step.number) is free"
                    }
                    users[table[index], default: 0] += 1
                }
                for row in 0..<step.tokenCount {
                    written.insert(slots[row] / Int32(value.blockSize))
                }
            }
            if let page = written.first(where: { users[$0] != 1 }) {
                return "page \(page), written in step \(step.number), has \(users[page] ?? 0) users"
            }
        }
        return nil
    }
}
