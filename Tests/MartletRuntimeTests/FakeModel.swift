// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime

/// A model whose logits hash the tokens each row sees, read through slots and block tables.
///
/// It keeps tokens in pages as a real one keeps keys and values, so a wrong slot, table, position
/// or source changes its answers or is noted as a violation.
struct FakeModel {
    struct Entry { var position = -1, token: Int32 = -1, group = -1 }

    let limits: StepLimits
    let streams: RequestStreams
    var groups: [KVGroup] { streams.groups }
    let pageCount: Int
    let vocabularySize: Int
    private(set) var violations: [String] = []
    private var arena: [[Entry]]
    private var hostArena: [[Entry]]
    private var previousTokens: [Int32] = []
    private var sampler: StepSampler

    init(
        limits: StepLimits, streams: RequestStreams, pageCount: Int, vocabularySize: Int = 48,
        stateSlotCount: Int, hostPageCount: Int = 0
    ) {
        self.limits = limits
        self.streams = streams
        let groups = streams.groups
        self.pageCount = pageCount
        self.vocabularySize = vocabularySize
        let size = groups.map(\.blockSize).max() ?? 1
        arena = [[Entry]](repeating: [Entry](repeating: Entry(), count: size), count: pageCount)
        hostArena = [[Entry]](
            repeating: [Entry](repeating: Entry(), count: size), count: hostPageCount)
        sampler = StepSampler(vocabularySize: vocabularySize, stateSlotCount: stateSlotCount)
    }

    static func group(
        window: Int? = nil, blockSize: Int, kind: KVGroup.Kind = .selfAttention
    ) -> KVGroup {
        KVGroup(
            layerCount: 1, kvHeadCount: 1, headDim: 1, scheme: KVScheme(dtype: .f32),
            window: window, kind: kind, blockSize: blockSize)
    }

    /// A decoder with own groups that reads what an encoder, with a group of its own, wrote.
    static func encoderDecoder(_ own: [KVGroup]) throws -> RequestStreams {
        let cross = own.count
        let written = own.indices.map { KVGroupUse(group: $0, isWritten: true) }
        return try RequestStreams(
            groups: own + [group(blockSize: 5, kind: .crossAttention), group(blockSize: 3)],
            uses: [
                [
                    KVGroupUse(group: cross, isWritten: true),
                    KVGroupUse(group: cross + 1, isWritten: true),
                ], written + [KVGroupUse(group: cross, isWritten: false)],
            ], entryPoint: 1)
    }

    /// Whether rows that draw tokens look at a group.
    private func isSeen(_ group: Int) -> Bool {
        streams.generating.uses.contains { $0.group == group }
    }

    static func mix(_ hash: UInt64, _ value: Int) -> UInt64 {
        var x = hash ^ UInt64(bitPattern: Int64(value)) &* 0x9e37_79b9_7f4a_7c15
        x ^= x >> 32
        x &*= 0xd6e8_feb8_6659_fd93
        return x ^ x >> 29
    }

    func logits(_ hash: UInt64) -> [Float] {
        (0..<vocabularySize).map { Float(Self.mix(hash, $0 + 1) >> 40) * 0x1p-21 - 4 }
    }

    /// Logits after a sequence, computed without pages.
    func logits(after own: [Int32], source: [Int32] = []) -> [Float] {
        var hash: UInt64 = 1
        for (index, group) in groups.enumerated() where isSeen(index) {
            let tokens = streams.holdsSource[index] ? source : own
            for position in max(0, tokens.count - (group.window ?? tokens.count))..<tokens.count {
                hash = Self.mix(Self.mix(Self.mix(hash, index), position), Int(tokens[position]))
            }
        }
        return logits(hash)
    }

    /// What a request must be answered alone, in a plain loop.
    func answer(_ request: GenerationRequest) -> [Int32] {
        var tokens = request.prompt
        var answer: [Int32] = []
        var sampler = Sampler(vocabularySize: vocabularySize)
        var state = SamplerState(vocabularySize: vocabularySize)
        var top: [TokenLogProbability] = []
        let settings = request.settings
        tokens.forEach { state.addPrompt($0) }
        let count = min(settings.maxTokens, limits.maxContext - tokens.count)
        while answer.count < count {
            var p = SamplingParameters()
            p.temperature = settings.temperature
            p.topK = Int32(settings.topK)
            p.topP = settings.topP
            p.minP = settings.minP
            p.repetitionPenalty = settings.repetitionPenalty
            p.presencePenalty = settings.presencePenalty
            p.frequencyPenalty = settings.frequencyPenalty
            p.seedLow = UInt32(truncatingIfNeeded: settings.seed)
            p.seedHigh = UInt32(truncatingIfNeeded: settings.seed >> 32)
            p.outputPosition = UInt32(answer.count)
            var bias = settings.logitBias.map { LogitBias(token: $0.key, bias: $0.value) }
            if answer.count < settings.minTokens {
                bias += settings.stopTokens.map { LogitBias(token: $0, bias: -.infinity) }
            }
            bias += Self.banned(settings, tokens).map { LogitBias(token: $0, bias: -.infinity) }
            p.topP = Self.topP(settings, answer)
            p.typicalP = settings.typicalP
            let result = sampler.sample(
                logits(after: tokens, source: request.source), parameters: p, bias: bias,
                state: state, top: &top)
            guard result.token >= 0 else { break }
            state.addGenerated(result.token)
            tokens.append(result.token)
            answer.append(result.token)
            if settings.stopTokens.contains(result.token) { break }
        }
        return answer
    }

    /// Tokens that settings forbid after others, written plainly.
    static func banned(_ settings: SamplingSettings, _ tokens: [Int32]) -> Set<Int32> {
        var banned: Set<Int32> = []
        for candidate in 0..<Int32(48) {
            let text = tokens + [candidate]
            let n = settings.noRepeatNGram
            if n > 0, text.count >= n {
                let last = Array(text.suffix(n))
                for start in 0..<text.count - n where Array(text[start..<start + n]) == last {
                    banned.insert(candidate)
                }
            }
            for word in settings.badWords where Array(text.suffix(word.count)) == word {
                banned.insert(candidate)
            }
        }
        return banned
    }

    static func topP(_ settings: SamplingSettings, _ answer: [Int32]) -> Float {
        var value = settings.topP
        for token in answer {
            value = max(value * settings.topPDecay, min(settings.topPMinimum, value))
            if token == settings.topPReset { value = settings.topP }
        }
        return value
    }

    /// Runs a step from its record alone.
    mutating func execute(_ step: StepRecord, outputs: StepOutputs) {
        guard let source = step.section(.tokenSource), let positions = step.section(.positions),
            let requests = step.section(.requestIndex), let starts = step.section(.queryStart)
        else { return violations.append("step \(step.number) lacks a section") }
        check(step.tokenCount <= limits.maxTokens && step.tokenCount > 0, step, "tokens")
        check(step.requestCount <= limits.maxRequests, step, "requests")
        check(step.logitRowCount <= limits.maxLogitRows, step, "logit rows")
        check(Int(starts[step.requestCount]) == step.tokenCount, step, "query starts")
        let stream = [streams.generating, streams.source].compactMap { $0 }
            .first { $0.entryPoint == step.stream }
        check(stream != nil, step, "entry point")
        for use in stream?.uses ?? [] {
            check(
                (step.section(.slot, group: use.group) != nil) == use.isWritten, step,
                "group \(use.group)")
        }
        if let operations = step.section(.blockOperations, BlockOperation.self) {
            for index in 0..<step.blockOperationCount() {
                let (source, destination) = (
                    operations[index].source, operations[index].destination
                )
                switch BlockOperation.Kind(rawValue: operations[index].kind) {
                case .copy: arena[Int(destination)] = arena[Int(source)]
                case .swapOut:
                    hostArena[Int(destination)] = arena[Int(source)]
                case .swapIn:
                    arena[Int(destination)] = hostArena[Int(source)]
                    hostArena[Int(source)] = hostArena[Int(source)].map { _ in Entry() }
                case nil: check(false, step, "block operation \(operations[index].kind)")
                }
            }
        }
        for row in 0..<step.tokenCount {
            let request = Int(requests[row])
            check(
                Int(starts[request]) <= row && row < Int(starts[request + 1]), step, "request index"
            )
            var token = source[row]
            if token < 0 {
                let index = Int(-1 - token)
                guard index < previousTokens.count, previousTokens[index] >= 0 else {
                    violations.append(
                        "step \(step.number) takes token \(index) of \(previousTokens)")
                    continue
                }
                token = previousTokens[index]
            }
            for index in groups.indices {
                guard let slots = step.section(.slot, group: index) else { continue }
                let slot = Int(slots[row])
                let size = groups[index].blockSize
                arena[slot / size][slot % size] = Entry(
                    position: Int(positions[row]), token: token, group: index)
            }
        }
        var rows: [Float] = []
        if let logitRows = step.section(.logitRows) {
            for index in 0..<step.logitRowCount {
                let row = Int(logitRows[index])
                let hash = hash(step, request: Int(requests[row]), position: Int(positions[row]))
                rows += logits(hash)
            }
        }
        // Once, without rows too: histories are told either way.
        if rows.isEmpty { rows = [0] }
        rows.withUnsafeBufferPointer { buffer in
            if let base = buffer.baseAddress { sampler.run(step, logits: base, outputs: outputs) }
        }
        previousTokens = outputs.tokens
    }

    /// What a request's last row of a step sees in a group, oldest first, with the positions.
    func seen(_ step: StepRecord, request: Int, group index: Int) -> [(position: Int, token: Int32)]
    {
        guard let table = step.section(.blockTable, group: index),
            let starts = step.section(.kvStart, group: index),
            let lengths = step.section(.kvLength, group: index)
        else { return [] }
        let group = groups[index]
        let columns = step.blockColumns(group: index)
        let length = Int(lengths[request])
        return (max(0, length - (group.window ?? length))..<length).map { position in
            let offset = position - Int(starts[request])
            let page = Int(table[request * columns + offset / group.blockSize])
            return (position, page < 0 ? -1 : arena[page][offset % group.blockSize].token)
        }
    }

    private mutating func hash(_ step: StepRecord, request: Int, position: Int) -> UInt64 {
        var hash: UInt64 = 1
        for (index, group) in groups.enumerated() {
            guard let table = step.section(.blockTable, group: index),
                let starts = step.section(.kvStart, group: index),
                let lengths = step.section(.kvLength, group: index)
            else { continue }
            let last = streams.holdsSource[index] ? Int(lengths[request]) - 1 : position
            check(last < Int(lengths[request]), step, "kvLength")
            let columns = step.blockColumns(group: index)
            for p in max(0, last + 1 - (group.window ?? last + 1))..<last + 1 {
                let offset = p - Int(starts[request])
                let column = offset / group.blockSize
                guard offset >= 0, column < columns else {
                    violations.append("step \(step.number): position \(p) is not in the table")
                    continue
                }
                let page = Int(table[request * columns + column])
                guard page >= 0, page < pageCount else {
                    violations.append("step \(step.number): page \(page) for position \(p)")
                    continue
                }
                let entry = arena[page][offset % group.blockSize]
                check(
                    entry.position == p && entry.group == index, step,
                    "position \(p) holds \(entry)")
                hash = Self.mix(Self.mix(Self.mix(hash, index), p), Int(entry.token))
            }
        }
        return hash
    }

    private mutating func check(
        _ holds: Bool, _ step: StepRecord, _ what: @autoclosure () -> String
    ) {
        if !holds, violations.count < 10 { violations.append("step \(step.number): \(what())") }
    }
}

/// A small seeded generator for tests.
struct TestRandom: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: Int) { state = UInt64(seed) &* 0x9e37_79b9_7f4a_7c15 &+ 0x1234_5678_9abc_def1 }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }

    /// Below the limit.
    mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &self) }

    /// A request with some settings out of the ordinary.
    mutating func request(vocabulary: Int, prompt: Int, answer: Int) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = below(answer + 1)
        settings.seed = next()
        if below(2) == 0 {
            settings.temperature = 0.9
            settings.topP = 0.9
        }
        if below(3) == 0 {
            settings.repetitionPenalty = 1.4
            settings.frequencyPenalty = 0.3
        }
        if below(3) == 0 {
            settings.stopTokens = (0..<4).map { _ in Int32(below(vocabulary)) }
            settings.minTokens = min(below(4), settings.maxTokens)
        }
        if below(4) == 0 {
            settings.logitBias = [Int32(4 + below(vocabulary - 4)): 2, 3: -.infinity]
        }
        if below(6) == 0 { settings.noRepeatNGram = 1 + below(3) }
        if below(6) == 0 {
            settings.badWords = (0..<2).map { _ in
                (0..<1 + below(2)).map { _ in Int32(4 + below(vocabulary - 4)) }
            }
        }
        if below(6) == 0 {
            settings.topPDecay = 0.8
            settings.topPMinimum = 0.3
            if below(2) == 0 { settings.topPReset = Int32(below(vocabulary)) }
        }
        settings.returnContextLogits = below(6) == 0
        let tokens = (0..<1 + below(prompt)).map { _ in Int32(below(vocabulary)) }
        return GenerationRequest(prompt: tokens, settings: settings)
    }
}
