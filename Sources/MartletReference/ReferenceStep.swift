// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// The packed rows of a step: which request and position each row belongs to.
struct ReferenceStep: Sendable {
    let tokens: [Int32]
    let positions: [Int32]
    let logitRows: [Int32]
    /// Rows of each request.
    let ranges: [Range<Int>]
    let starts: [Int]
    var states: [ReferenceState]

    init(_ requests: [ReferenceRequest]) throws {
        var tokens: [Int32] = []
        var positions: [Int32] = []
        var logitRows: [Int32] = []
        var ranges: [Range<Int>] = []
        for request in requests {
            let (end, overflow) = request.start.addingReportingOverflow(request.tokens.count)
            guard request.start >= 0, !overflow, end <= Int(Int32.max) else {
                throw MartletError(
                    .limitExceeded, "positions from \(request.start) on do not fit 32 bits")
            }
            for row in request.logitRows {
                guard request.tokens.indices.contains(row) else {
                    throw MartletError(
                        .invalidArgument, "logit row \(row) of \(request.tokens.count) tokens")
                }
                logitRows.append(Int32(tokens.count + row))
            }
            ranges.append(tokens.count..<tokens.count + request.tokens.count)
            tokens += request.tokens
            positions += (request.start..<end).map { Int32($0) }
        }
        self.tokens = tokens
        self.positions = positions
        self.logitRows = logitRows
        self.ranges = ranges
        starts = requests.map(\.start)
        states = requests.map(\.state)
    }

    var dimensions: Dimension.Values {
        Dimension.Values(
            tokens: tokens.count, requests: ranges.count, logitRows: logitRows.count, context: 0)
    }

    /// A size under this step's T, B and O.
    func size(_ dimension: Dimension) throws -> Int {
        guard dimension.context == 0, let size = dimension.evaluate(dimensions), size >= 0 else {
            throw MartletError(.shapeMismatch, "size \(dimension) has no value in a step")
        }
        return size
    }

    func input(_ name: String) throws -> ReferenceValue {
        let values: [Int32]
        switch name {
        case "tokens": values = tokens
        case "positions": values = positions
        case "logitRows": values = logitRows
        default: throw MartletError(.unsupported, "a step has no input named '\(name)'")
        }
        return ReferenceValue(.plain(.i32), [values.count], .integers(values))
    }
}
