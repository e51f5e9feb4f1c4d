// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore
import MartletEngineFile

extension CPUOp {
    /// `linear(x, w, bias?)`: one family per weight kind and activation format.
    static let linear = CPUOp(
        "linear",
        families: [
            linearFamily(weight: "u4", coded: true), linearFamily(weight: "u8", coded: true),
            linearFamily(weight: "u4"), linearFamily(weight: "u8"), linearFamily(weight: "f32"),
            linearFamily(weight: "f16"), linearFamily(weight: "bf16"),
        ],
        bind: LinearKernel.init(binder:))

    /// Rows up to which the streaming variant is chosen.
    private static let gemvRows = 4

    private static func linearFamily(weight kind: String, coded: Bool = false) -> KernelFamily {
        let name = "linear_\(kind)_\(coded ? "int8g64" : "f32")"
        let variants = [
            PlanVariant(kernel: name + "_gemv", maxRows: gemvRows),
            PlanVariant(kernel: name + "_panel"),
        ]
        return KernelFamily(name, op: "linear", variants: variants) { query in
            let x = try query.operand(0)
            let w = try query.operand(1)
            guard query.isParameter.indices.contains(1), query.isParameter[1] else {
                throw Refusal("the weight is no parameter")
            }
            if coded, x.format != .activation(.int8g64) {
                throw Refusal("the input is \(x.format), not int8g64")
            }
            let inputBytes = try query.rows(x, coded: coded)
            let resultBytes = try query.rows(query.result())
            guard weightKind(w.format) == kind else {
                throw Refusal("the weight is \(w.format), not \(kind)")
            }
            let layout = try PanelLayout.name(w.format)
            guard let shape = w.fixedShape, shape.count == 2, shape[1] == x.columns else {
                throw Refusal("a weight \(w) does not fit an input \(x)")
            }
            var packed = try PanelLayout.describe(layout, w.format, shape)
            let bias = try query.vector(2, count: shape[0])
            let weightBytes = martlet_weight_byte_count(&packed)
            let bytes = Dimension(weightBytes) + x.rows * (inputBytes + resultBytes)
            // Multiply-adds per second of two cores: int8 dot products against f32 fma.
            let rate: Double = coded ? 1.1e12 : kind == "f32" ? 300e9 : 220e9
            let cost = KernelCost(
                bytes: bytes, operations: x.rows * (2 * shape[0] * shape[1]),
                operationsPerSecond: rate)
            return (cost, [nil, layout, bias])
        }
    }

    /// How kernel names call a weight format.
    static func weightKind(_ format: ElementFormat) -> String {
        switch format {
        case .plain(let type): type.rawValue
        case .weight(let scheme): "u\(scheme.bits)"
        default: format.description
        }
    }
}

/// y = W x + b over panels of 16 outputs; K is never split.
///
/// `@unchecked Sendable`: the arguments are addresses that never change.
final class LinearKernel: BoundKernel, @unchecked Sendable {
    private let kernels: KernelTable
    private let arguments: martlet_linear_arguments
    private let variants: [(run: LinearFunction, maxRows: Int)]
    private let rows: RowCount
    private let panelCount: Int
    private let sums: UnsafeMutablePointer<Float>?

    init(binder: Binder) throws {
        var weight = try binder.weight(1)
        let (n, k) = (weight.row_count, weight.input_count)
        let raw = try binder.rawInput(0)
        let coded = raw.format == .activation(.int8g64)
        let x = coded ? raw : try binder.input(0)
        let y = try binder.output(0)
        try binder.require(
            x.columns == k, "an input of \(x.columns) columns meets a weight of \(k)")
        try binder.require(
            y.columns == n, "a result of \(y.columns) columns meets a weight of \(n)")
        try binder.require(x.rows == y.rows, "input and result differ in rows")
        let isCodes = weight.kind == MARTLET_WEIGHT_U8 || weight.kind == MARTLET_WEIGHT_U4
        try binder.require(isCodes || !coded, "coded inputs meet a plain weight")
        kernels = KernelTable(binder.kernels)
        rows = x.rows
        panelCount = martlet_weight_panel_count(&weight)
        var arguments = martlet_linear_arguments()
        arguments.weight = weight
        arguments.x = UnsafeRawPointer(x.base)
        arguments.x_stride = x.stride
        arguments.bias = try binder.vector(2, count: n)
        arguments.y = y.floats
        arguments.y_stride = y.floatStride
        if isCodes, !coded, weight.zero == MARTLET_ZERO_MINIMUM {
            // Once per step instead of once per panel.
            let blocks = (k + 31) / 32
            let memory = try binder.scratch(bytes: x.rows.maximum * blocks * 4)
            sums = memory.assumingMemoryBound(to: Float.self)
            arguments.x_sums = UnsafePointer(sums)
            arguments.x_sums_stride = blocks
        } else {
            sums = nil
        }
        self.arguments = arguments
        variants = try LinearKernel.resolve(binder, weight.kind, coded: coded)
    }

    private static func resolve(_ binder: Binder, _ kind: martlet_weight_kind, coded: Bool) throws
        -> [(run: LinearFunction, maxRows: Int)]
    {
        let word: String =
            switch kind {
            case MARTLET_WEIGHT_F16: "f16"
            case MARTLET_WEIGHT_BF16: "bf16"
            case MARTLET_WEIGHT_U8: "u8"
            case MARTLET_WEIGHT_U4: "u4"
            default: "f32"
            }
        let stem = "linear_\(word)_\(coded ? "int8g64" : "f32")"
        let table = binder.kernels.pointee
        let gemv: LinearFunction
        let panel: LinearFunction
        switch stem {
        case "linear_u8_int8g64":
            (gemv, panel) = (table.linear_u8_int8g64_gemv, table.linear_u8_int8g64_panel)
        case "linear_u4_int8g64":
            (gemv, panel) = (table.linear_u4_int8g64_gemv, table.linear_u4_int8g64_panel)
        case "linear_u8_f32":
            (gemv, panel) = (table.linear_u8_exact_gemv, table.linear_u8_exact_panel)
        case "linear_u4_f32":
            (gemv, panel) = (table.linear_u4_exact_gemv, table.linear_u4_exact_panel)
        case "linear_f16_f32":
            (gemv, panel) = (table.linear_f16_exact_gemv, table.linear_f16_exact_panel)
        case "linear_bf16_f32":
            (gemv, panel) = (table.linear_bf16_exact_gemv, table.linear_bf16_exact_panel)
        default: (gemv, panel) = (table.linear_f32_exact_gemv, table.linear_f32_exact_panel)
        }
        var found: [(run: LinearFunction, maxRows: Int)] = []
        for variant in binder.step.variants {
            switch variant.kernel {
            case stem + "_gemv": found.append((gemv, variant.maxRows ?? .max))
            case stem + "_panel": found.append((panel, variant.maxRows ?? .max))
            default: throw Refusal("there is no kernel '\(variant.kernel)' for \(stem)")
            }
        }
        return found.isEmpty ? [(panel, .max)] : found
    }

    var phaseCount: Int { sums == nil ? 1 : 2 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let tokens = rows(step)
        if let sums, phase == 0 {
            let share = worker.share(of: tokens)
            guard !share.isEmpty, let x = arguments.x else { return }
            kernels.pointer.pointee.row_sums32(
                x.assumingMemoryBound(to: Float.self), arguments.x_stride / 4,
                arguments.weight.input_count, sums, arguments.x_sums_stride, share.lowerBound,
                share.upperBound)
            return
        }
        let panels = worker.share(of: panelCount, unit: panelCount >= 8 * worker.count ? 2 : 1)
        guard !panels.isEmpty, tokens > 0 else { return }
        var chosen = variants[variants.count - 1].run
        for variant in variants where tokens <= variant.maxRows {
            chosen = variant.run
            break
        }
        withUnsafePointer(to: arguments) {
            chosen($0, panels.lowerBound, panels.upperBound, 0, tokens)
        }
    }
}

/// A linear micro-kernel: arguments, panel range, token range.
typealias LinearFunction =
    @convention(c) (
        UnsafePointer<martlet_linear_arguments>?, Int, Int, Int, Int
    ) -> Void
