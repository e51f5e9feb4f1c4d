// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCore
import MartletGraph
package import MartletModels

extension Compiler {
    /// Makes a parameter's value piece by piece, rows in order, so that no more than a few megabytes
    /// of a large weight exist in any form but its own.
    ///
    /// Rows are independent in every scheme: the pieces one after another are the whole value.
    ///
    /// - Parameters:
    ///   - request: What is wanted.
    ///   - constants: Values of the graph's constants.
    ///   - weights: Checkpoint or other source.
    ///   - rowUnit: Rows that pieces (but the last) are a multiple of; nil for the whole at once.
    ///   - pieceElements: Elements of a piece; by default 8 MB in f32, enough work for all cores.
    ///   - visit: Called for each piece.
    /// - Throws: What the source or the closure throws.
    package static func materialize(
        _ request: ParameterRequest, constants: [String: TensorData], weights: any WeightProvider,
        rowUnit: Int?, pieceElements: Int = 2 << 20, visit: (WeightValue) throws -> Void
    ) throws {
        guard let expression = request.expression, let rowUnit, rowUnit > 0,
            request.shape.count == 2, expression.shape == request.shape
        else {
            return try visit(
                materialize(request, constants: constants, weights: weights))
        }
        let (rowCount, columns) = (request.shape[0], request.shape[1])
        let step = max(pieceElements / max(columns, 1) / rowUnit, 1) * rowUnit
        let direct = weights as? any DirectWeightProvider
        var reader = RowReader(expression, format: request.format, weights: weights)
        for start in stride(from: 0, to: rowCount, by: step) {
            let rows = start..<min(start + step, rowCount)
            let value: WeightValue
            do {
                value =
                    try direct?.weight(
                        request.name, rows: rows, shape: request.shape, format: request.format)
                    ?? reader.rows(rows)
            } catch let error as MartletError {
                throw error.adding("parameter", request.name)
            }
            try visit(value)
        }
    }
}

/// Reads rows of a weight expression from front to back, holding one checkpoint tensor at a time.
private struct RowReader {
    /// What rows are taken from.
    private indirect enum Source {
        case value(WeightValue)
        /// An operation that treats each row by itself, on plain rows.
        case byRow(String, Source)
    }

    private let parts: [(expression: WeightExpression, rows: Range<Int>)]
    private let format: ElementFormat
    private let weights: any WeightProvider
    private var current: (part: Int, source: Source)?

    init(_ expression: WeightExpression, format: ElementFormat, weights: any WeightProvider) {
        var start = 0
        parts = Self.flattened(expression).map { part in
            defer { start += part.shape.first ?? 0 }
            return (part, start..<start + (part.shape.first ?? 0))
        }
        self.format = format
        self.weights = weights
    }

    private static func flattened(_ expression: WeightExpression) -> [WeightExpression] {
        guard case .apply("concat", let parts) = expression else { return [expression] }
        return parts.flatMap(flattened)
    }

    mutating func rows(_ wanted: Range<Int>) throws -> WeightValue {
        var pieces: [WeightValue] = []
        for (index, part) in parts.enumerated() where part.rows.overlaps(wanted) {
            let rows = part.rows.clamped(to: wanted)
            let first = rows.lowerBound - part.rows.lowerBound
            if current?.part != index {
                current = nil
                current = (index, try source(part.expression))
            }
            guard let source = current?.source else { continue }
            let value = try self.rows(first..<first + rows.count, of: source)
            pieces.append(try WeightConversion.convert(value, to: format, firstRow: first))
        }
        return pieces.count == 1 ? pieces[0] : try WeightValue.concatenateRows(pieces)
    }

    private func source(_ expression: WeightExpression) throws -> Source {
        switch expression {
        case .named(let name, let shape): return .value(try weights.weight(name, shape: shape))
        case .apply(let op, let parts) where Self.rowOps.contains(op) && parts.count == 1:
            return .byRow(op, try source(parts[0]))
        case .apply: return .value(try Compiler.evaluate(expression, format, weights))
        }
    }

    private func rows(_ range: Range<Int>, of source: Source) throws -> WeightValue {
        switch source {
        case .value(let value): return try value.rows(range)
        case .byRow(let op, let inner):
            let plain = try WeightConversion.convert(
                rows(range, of: inner), to: .plain(.f32), firstRow: range.lowerBound)
            guard case .plain(let tensor) = plain else { return plain }
            return .plain(try WeightConversion.apply(op, to: tensor))
        }
    }

    private static let rowOps: Set<String> = ["normalizeRows", "cast"]
}
