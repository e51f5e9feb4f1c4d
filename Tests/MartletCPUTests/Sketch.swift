// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile

/// A seeded generator (SplitMix64).
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func floats(_ count: Int, scale: Float = 1) -> [Float] {
        (0..<count).map { _ in Float.random(in: -scale...scale, using: &self) }
    }
}

/// A plan under construction, with its parameters' bytes.
struct PlanSketch {
    var plan = Plan(
        entryPoint: "decode", target: "cpu", buffers: [], slotCount: 0, parameters: [],
        kvGroups: [], steps: [], outputs: [])
    var bytes: [String: ByteView] = [:]
    var activations = DType.f32

    /// A buffer in a slot of its own.
    mutating func buffer(
        _ columns: Int, rows: Dimension = .T, format: ElementFormat? = nil
    ) throws -> PlanOperand {
        let format = format ?? .plain(activations)
        let rowBytes = try expect(CPUCatalog().rowBytes(format, columns: columns))
        plan.buffers.append(
            PlanBuffer(
                rows: rows, columns: columns, format: format.description, rowBytes: rowBytes,
                slot: plan.slotCount))
        plan.slotCount += 1
        return .buffer(plan.buffers.count - 1, offset: 0, columns: columns)
    }

    /// A vector parameter.
    mutating func vector(_ name: String, _ values: [Float]) throws -> PlanOperand {
        try parameter(name, .plain(TensorData(values, shape: [values.count])), layout: "rows")
    }

    /// A matrix parameter in f32 panels.
    mutating func matrix(_ name: String, _ values: [Float], _ rows: Int, _ columns: Int) throws
        -> PlanOperand
    {
        try parameter(
            name, .plain(TensorData(values, shape: [rows, columns])), layout: "panel16.f32")
    }

    /// A parameter, packed.
    mutating func parameter(_ name: String, _ value: WeightValue, layout: String) throws
        -> PlanOperand
    {
        bytes[name] = try CPUCatalog().pack(value, layout: layout)
        let format: ElementFormat =
            switch value {
            case .plain(let tensor): .plain(tensor.dtype)
            case .quantized(let tensor): .weight(tensor.scheme)
            }
        plan.parameters.append(
            PlanParameter(
                name: name, layout: layout, format: format.description, shape: value.shape))
        return .parameter(plan.parameters.count - 1)
    }

    mutating func step(
        _ op: String, _ operands: [PlanOperand], _ results: [PlanOperand],
        _ attributes: [String: AttributeValue] = [:], family: String? = nil
    ) {
        let name = family ?? op
        let variants =
            CPUCatalog().families.first { $0.name == name }?.variants
            ?? [PlanVariant(kernel: name)]
        plan.steps.append(
            PlanStep(
                op: op, family: name, variants: variants, operands: operands, results: results,
                attributes: attributes, path: "test"))
    }

    mutating func output(_ name: String, _ operand: PlanOperand) {
        plan.outputs.append(PlanOutput(name: name, operand: operand))
    }

    /// Rows of given numbers, looked up by token ids 0, 1, ...
    mutating func rows(_ values: [Float], columns: Int) throws -> PlanOperand {
        let table = try matrix(
            "rows\(plan.parameters.count)", values, values.count / columns, columns)
        let result = try buffer(columns)
        step("embedding", [table, .input("tokens")], [result])
        return result
    }

    func executor(
        tokens: Int = 64, requests: Int = 8, context: Int = 256, threads: Int = 2,
        instructionSet: CPUInstructionSet? = nil, hostPages: Int = 0
    ) throws -> CPUExecutor {
        var options = CPUOptions(
            limits: StepLimits(
                maxTokens: tokens, maxRequests: requests, maxLogitRows: tokens, maxContext: context),
            pageCount: 64, threadCount: threads)
        options.poisonsBuffers = true
        options.instructionSet = instructionSet
        options.hostPageCount = hostPages
        // By name, so that a plan may state what its bytes do not hold.
        let parameters = Dictionary(
            plan.parameters.compactMap { parameter in
                bytes[parameter.name].map { (parameter, $0) }
            }, uniquingKeysWith: { first, _ in first })
        return try CPUExecutor(plans: [plan], parameters: parameters, options: options)
    }
}

struct Missing: Error {}

/// The value, or a failure of the test.
func expect<Value>(_ value: Value?) throws -> Value {
    guard let value else { throw Missing() }
    return value
}

extension CPUExecutor {
    /// Submits a step and waits for its completion.
    func run(_ record: StepRecord) async throws -> StepOutputs {
        let outputs = StepOutputs()
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            do {
                try submit(record, outputs: outputs) { error in
                    if let error { done.resume(throwing: error) } else { done.resume() }
                }
            } catch {
                done.resume(throwing: error)
            }
        }
        return outputs
    }

    /// Runs one request without KV over ids 0 ..< count and returns a named output.
    func rows(_ count: Int, output: String = "y") async throws -> [[Float]] {
        let record = StepRecord(limits: limits, groups: kvGroups)
        try fill(record, [WorkItem(tokens: (0..<Int32(count)).map { $0 }, start: 0, pages: [])])
        return try expect(try await run(record).named[output])
    }
}

/// A part of a request's tokens in a step.
struct WorkItem {
    /// Ids of the tokens computed.
    var tokens: [Int32]
    /// Position of the first.
    var start: Int
    /// Pages of the request from position 0.
    var pages: [Int32]
    /// Sampling of the last row; nil: its logits are returned only.
    var sampling: SamplingParameters?
    /// Whether all rows return logits.
    var allLogits = false
    /// First page that the table lists.
    var firstPage = 0
}

extension CPUExecutor {
    /// Writes a step of several requests.
    func fill(_ record: StepRecord, _ items: [WorkItem]) throws {
        record.begin(stream: 0, number: 0)
        let tokens = items.reduce(0) { $0 + $1.tokens.count }
        let rows = items.reduce(0) { $0 + ($1.allLogits ? $1.tokens.count : 1) }
        record.setCounts(tokens: tokens, requests: items.count, logitRows: rows)
        let sources = try record.add(.tokenSource, count: tokens)
        let positions = try record.add(.positions, count: tokens)
        let indices = try record.add(.requestIndex, count: tokens)
        let starts = try record.add(.queryStart, count: items.count + 1)
        let logitRows = try record.add(.logitRows, count: rows)
        let uses = try record.add(.rowUse, UInt32.self, count: rows)
        let sampling = try record.add(
            .samplingParameters, SamplingParameters.self, count: items.count)
        let states = try record.add(.stateSlot, count: items.count)
        var (t, row) = (0, 0)
        for (index, item) in items.enumerated() {
            starts[index] = Int32(t)
            sampling[index] = item.sampling ?? SamplingParameters()
            states[index] = Int32(index)
            for (offset, token) in item.tokens.enumerated() {
                sources[t] = token
                positions[t] = Int32(item.start + offset)
                indices[t] = Int32(index)
                if item.allLogits || offset == item.tokens.count - 1 {
                    logitRows[row] = Int32(t)
                    var use = RowUse.returnLogits
                    if item.sampling != nil { use.insert(.sample) }
                    uses[row] = use.rawValue
                    row += 1
                }
                t += 1
            }
        }
        starts[items.count] = Int32(t)
        for (number, group) in kvGroups.enumerated() {
            let columns = max(items.map(\.pages.count).max() ?? 0, 1)
            record.setBlockColumns(columns, group: number)
            let kvStart = try record.add(.kvStart, group: number, count: items.count)
            let lengths = try record.add(.kvLength, group: number, count: items.count)
            let table = try record.add(.blockTable, group: number, count: items.count * columns)
            let slots = try record.add(.slot, group: number, count: tokens)
            var t = 0
            for (index, item) in items.enumerated() {
                kvStart[index] = Int32(item.firstPage * group.blockSize)
                lengths[index] = Int32(item.start + item.tokens.count)
                for column in 0..<columns {
                    let page = item.firstPage + column
                    table[index * columns + column] =
                        page < item.pages.count ? item.pages[page] : -1
                }
                for offset in item.tokens.indices {
                    let position = item.start + offset
                    slots[t] =
                        item.pages[position / group.blockSize] * Int32(group.blockSize)
                        + Int32(position % group.blockSize)
                    t += 1
                }
            }
        }
    }
}

/// Bits of rows, for comparisons that no rounding may pass.
func bits(_ rows: [[Float]]) -> [[UInt32]] { rows.map { $0.map(\.bitPattern) } }

/// The largest difference relative to the largest number; infinite for other shapes and for NaN.
func difference(_ a: [[Float]], _ b: [[Double]]) -> Double {
    guard a.count == b.count, zip(a, b).allSatisfy({ $0.count == $1.count }) else {
        return .infinity
    }
    var (worst, largest) = (0.0, 1e-9)
    for (x, y) in zip(a.joined(), b.joined()) {
        if x.isNaN || y.isNaN { return .infinity }
        worst = max(worst, abs(Double(x) - y))
        largest = max(largest, abs(y))
    }
    return worst / largest
}
