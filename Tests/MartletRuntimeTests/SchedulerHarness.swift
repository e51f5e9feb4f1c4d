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
    private(set) var finishOrder: [RequestID] = []
    private(set) var stepSizes: [(requests: Int, tokens: Int)] = []
    /// Rows of finished requests that were computed on.
    private(set) var paddingCount = 0
    private(set) var sourceCount = 0
    /// What beams drew against the rules.
    private(set) var beamViolations: [String] = []
    private(set) var beamSteps: [RequestID: Int] = [:]
    private var beamTokens: [RequestID: [Int32: Int32]] = [:]
    private var beamRandom = TestRandom(5)
    private var wantPromptLogits = false
    private var wantNamedOutputs = false
    private var ages: [RequestID: Int] = [:]
    /// The same, with the time that a request had no row.
    private var absences: [RequestID: Int] = [:]
    private var priorities: Set<Int> = []
    /// The first row that saw what is not its request's.
    private(set) var wrongToken: String?
    /// The first request that waited longer than the scheduler's bound.
    private(set) var tooLate: String?
    private(set) var longestWait = 0
    private(set) var longestAbsence = 0

    init(
        limits: StepLimits, streams: RequestStreams, pageCount: Int, stateSlotCount: Int = 3,
        options: SchedulerOptions
    ) throws {
        scheduler = try Scheduler(
            limits: limits, streams: streams, pageCount: pageCount, stateSlotCount: stateSlotCount,
            options: options)
        model = FakeModel(
            limits: limits, streams: streams, pageCount: pageCount, stateSlotCount: stateSlotCount,
            hostPageCount: options.hostPageCount)
        builder = StepBuilder(streams: streams, vocabularySize: model.vocabularySize)
        let vocabularySize = model.vocabularySize
        records = (0...options.stepsInFlight).map { _ in
            StepRecord(limits: limits, groups: streams.groups, vocabularySize: vocabularySize)
        }
        outputs = (0...options.stepsInFlight).map { _ in StepOutputs() }
    }

    init(
        limits: StepLimits, groups: [KVGroup], pageCount: Int, stateSlotCount: Int = 3,
        depth: Int = 2, policy: SchedulingPolicy = .guaranteedNoEvict, reusesPrefixes: Bool = true
    ) throws {
        var options = SchedulerOptions()
        options.stepsInFlight = depth
        options.policy = policy
        options.reusesPrefixes = reusesPrefixes
        try self.init(
            limits: limits, streams: RequestStreams(groups: groups), pageCount: pageCount,
            stateSlotCount: stateSlotCount, options: options)
    }

    var inFlightCount: Int { inFlight.count }

    mutating func submit(_ id: Int, _ request: GenerationRequest) throws {
        try scheduler.submit(RequestID(UInt64(id)), request)
        requests[RequestID(UInt64(id))] = request
        wantNamedOutputs = wantNamedOutputs || request.returnsNamedOutputs
        wantPromptLogits = wantPromptLogits || request.settings.returnContextLogits
        priorities.insert(request.priority)
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
        paddingCount += step.items.count { $0.isPadding }
        inFlight.append((step, place))
        stepSizes.append((step.items.count, step.tokenCount))
        countSteps()
        return true
    }

    /// Runs and completes the oldest step.
    ///
    /// - Parameter brokenRow: Which of the rows drawn is no numbers.
    mutating func complete(brokenRow: Int? = nil) throws {
        guard !inFlight.isEmpty else { return }
        let (step, place) = inFlight.removeFirst()
        model.execute(records[place], outputs: outputs[place])
        checkSeen(step, records[place])
        if let brokenRow, brokenRow < outputs[place].tokens.count {
            outputs[place].tokens[brokenRow] = -1
            outputs[place].status[brokenRow] = .nonFinite
        }
        var events: [SchedulerEvent] = []
        try scheduler.complete(
            step, tokens: outputs[place].tokens, status: outputs[place].status, events: &events)
        for event in events {
            ages[event.request] = nil
            absences[event.request] = nil
            if let width = requests[RequestID(event.request.rawValue)]?.settings.beamCount,
                width > 1
            {
                if event.finishReason == .error {
                    finished[RequestID(event.request.rawValue)] = .error
                } else {
                    noteBeam(event, width: width)
                }
                continue
            }
            if let token = event.token { answers[event.request, default: []].append(token) }
            if let reason = event.finishReason {
                finished[event.request] = reason
                finishOrder.append(event.request)
            }
        }
    }

    /// Notes a row that saw another token than its request has at the place.
    private mutating func checkSeen(_ step: ScheduledStep, _ record: StepRecord) {
        guard wrongToken == nil else { return }
        for (index, item) in step.items.enumerated() where !item.isPadding {
            let state = scheduler.states[item.slot]
            guard state.id == item.request else { continue }
            for group in builder.streams.groups.indices {
                let isSource = builder.streams.holdsSource[group]
                let tokens = isSource ? state.request.source : state.tokens
                for (position, token) in model.seen(record, request: index, group: group)
                where position < tokens.count && token != tokens[position] {
                    wrongToken =
                        "\(item.request) sees token \(token) at \(position) in step \(step.number)"
                    return
                }
            }
        }
    }

    /// Checks a beam's token, and lets beams change places at random when all have one.
    private mutating func noteBeam(_ event: SchedulerEvent, width: Int) {
        let first = RequestID(event.request.rawValue)
        guard let slot = scheduler.slot(of: event.request), let token = event.token else { return }
        let logits = model.logits(
            after: scheduler.states[slot].tokens, source: scheduler.states[slot].request.source)
        if logits.firstIndex(of: logits.max() ?? 0) != Int(token) {
            beamViolations.append("\(event.request) draws \(token)")
        }
        beamTokens[first, default: [:]][event.request.beam] = token
        let isFirst = scheduler.slot(of: RequestID(first.rawValue, beam: 1)) == nil
        guard let tokens = beamTokens[first], tokens.count == (isFirst ? 1 : width) else { return }
        beamTokens[first] = nil
        beamSteps[first, default: 0] += 1
        guard let request = requests[first], let steps = beamSteps[first],
            steps
                < min(
                    request.settings.maxTokens, scheduler.limits.maxContext - request.prompt.count)
        else {
            scheduler.finish(first)
            finished[first] = .length
            return
        }
        if isFirst { scheduler.forkBeams(first) }
        let parents = (0..<width).map { _ in isFirst ? 0 : beamRandom.below(width) }
        scheduler.reorderBeams(
            first, parents: parents,
            tokens: parents.enumerated().map { beam, parent in
                ((tokens[Int32(parent)] ?? 0) + Int32(beam)) % 48
            })
    }

    /// Counts steps since running requests last drew a token; describes one that waited too long.
    private mutating func countSteps() {
        let bound = scheduler.fairnessBound(
            withPromptLogits: wantPromptLogits, withNamedOutputs: wantNamedOutputs,
            withPriorities: priorities.count > 1)
        var next: [RequestID: Int] = [:]
        for id in scheduler.advancing {
            let age = ages[id, default: 0] + 1
            next[id] = age
            longestWait = max(longestWait, age)
            if age > bound, tooLate == nil { tooLate = "\(id) waits \(age) steps, not \(bound)" }
        }
        ages = next
        // Who is of lower priority than others that come for ever may be without a row for ever.
        guard priorities.count <= 1 else { return absences = [:] }
        let longest = scheduler.returnBound(bound)
        next = [:]
        for id in scheduler.started {
            let age = absences[id, default: 0] + 1
            next[id] = age
            longestAbsence = max(longestAbsence, age)
            if age > longest, tooLate == nil {
                tooLate = "\(id) waits \(age) steps, not \(longest)"
            }
        }
        absences = next
    }

    mutating func cancel(_ id: RequestID) {
        if scheduler.finish(id) { finished[id] = .cancelled }
    }

    /// Ends a request whose numbers are none.
    mutating func fail(_ id: RequestID) {
        if scheduler.fail(id) { finished[id] = .error }
    }

    mutating func drain() throws {
        for id in requests.keys { scheduler.resume(id) }
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
            for (group, value) in builder.streams.groups.enumerated() {
                guard let table = records[place].section(.blockTable, group: group) else {
                    continue
                }
                for index in 0..<step.items.count * records[place].blockColumns(group: group)
                where table[index] >= 0 {
                    if scheduler.pool.referenceCount(table[index]) == 0 {
                        return "page \(table[index]) of step \(step.number) is free"
                    }
                    users[table[index], default: 0] += 1
                }
                guard let slots = records[place].section(.slot, group: group) else { continue }
                // Rows of padding write what is there.
                var row = 0
                for item in step.items {
                    for _ in item.range {
                        if !item.isPadding {
                            written.insert(slots[row] / Int32(value.blockSize))
                        }
                        row += 1
                    }
                }
            }
            if let page = written.first(where: { users[$0] != 1 }) {
                return "page \(page), written in step \(step.number), has \(users[page] ?? 0) users"
            }
        }
        return nil
    }
}
