// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

extension CPUOp {
    /// `rotary(x, positions, inverseFrequencies)`.
    static let rotary = CPUOp(
        "rotary",
        families: [
            KernelFamily("rotary", op: "rotary") { query in
                let layout = try query.vector(2, count: nil)
                return try query.rowDecision(inputs: [0], layouts: [nil, nil, layout], work: 8)
            }
        ],
        bind: RotaryKernel.init(binder:))
}

/// How heads are rotated: table, pairing, sizes.
///
/// `@unchecked Sendable`: holds addresses that never change.
struct Rotation: @unchecked Sendable {
    let table: RotaryTable
    let pairs: martlet_rotary_pairs
    let headDim: Int

    /// Reads `style`, `magnitude` and the frequencies; nil for style `none`.
    init?(binder: Binder, frequencies index: Int, headDim: Int) throws {
        let style = try binder.word(
            "style", of: ["half", "interleaved", "none"],
            default: binder.has(index) ? "half" : "none")
        guard style != "none" else { return nil }
        let magnitude = try binder.float("magnitude", default: 1)
        table = try binder.resources.rotaryTable(binder.parameter(index), magnitude: magnitude)
        pairs = style == "half" ? MARTLET_ROTARY_HALVES : MARTLET_ROTARY_INTERLEAVED
        self.headDim = headDim
        try binder.require(
            table.pairCount * 2 <= headDim,
            "\(table.pairCount) frequencies exceed heads of \(headDim)")
    }

    /// Rotates some heads of some tokens from one view to another.
    func run(
        _ kernels: KernelTable, _ x: RowView, _ y: RowView, heads: Range<Int>, tokens: Range<Int>,
        positions: UnsafePointer<Int32>
    ) {
        var arguments = martlet_rotary_arguments()
        arguments.x = UnsafePointer(x.floats + heads.lowerBound * headDim)
        arguments.x_token_stride = x.floatStride
        arguments.x_head_stride = headDim
        arguments.y = y.floats + heads.lowerBound * headDim
        arguments.y_token_stride = y.floatStride
        arguments.y_head_stride = headDim
        arguments.head_count = heads.count
        arguments.head_dim = headDim
        arguments.rotary_dim = table.pairCount * 2
        arguments.pairs = pairs
        arguments.cosines = UnsafePointer(table.cosines)
        arguments.sines = UnsafePointer(table.sines)
        arguments.positions = positions
        kernels.pointer.pointee.rotary(&arguments, tokens.lowerBound, tokens.upperBound)
    }
}

/// Rotary embedding of rows of heads.
final class RotaryKernel: BoundKernel {
    private let kernels: KernelTable
    private let x: RowView
    private let y: RowView
    private let rotation: Rotation
    private let headCount: Int

    init(binder: Binder) throws {
        x = try binder.input(0)
        y = try binder.output(0)
        try binder.requireSameShape(x, y)
        try binder.requireRows(x, .T)
        try binder.requireInput(1, "positions")
        let headDim = try binder.int("headDim", in: 2...max(x.columns, 2))
        try binder.require(
            x.columns % headDim == 0, "\(x.columns) columns are no heads of \(headDim)")
        headCount = x.columns / headDim
        guard let rotation = try Rotation(binder: binder, frequencies: 2, headDim: headDim) else {
            throw Refusal("rotary needs a style and frequencies")
        }
        self.rotation = rotation
        kernels = KernelTable(binder.kernels)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let tokens = worker.share(of: step.tokenCount)
        guard !tokens.isEmpty else { return }
        rotation.run(
            kernels, x, y, heads: 0..<headCount, tokens: tokens, positions: step.positions)
    }
}
