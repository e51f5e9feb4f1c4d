// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

private let activationNames: [String: martlet_activation] = [
    "silu": MARTLET_ACTIVATION_SILU, "gelu": MARTLET_ACTIVATION_GELU_ERF,
    "geluTanh": MARTLET_ACTIVATION_GELU_TANH, "relu": MARTLET_ACTIVATION_RELU,
]

extension CPUOp {
    /// `activation(x)`.
    static let activation = CPUOp(
        "activation",
        families: [
            KernelFamily("activation", op: "activation") { query in
                try checkKind(query)
                return try query.rowDecision(inputs: [0], codedResult: true, work: 16)
            }
        ],
        bind: { try GatedKernel(binder: $0, hasUp: false) })

    /// `gatedActivation(gate, up)`.
    static let gatedActivation = CPUOp(
        "gatedActivation",
        families: [
            KernelFamily("gatedActivation", op: "gatedActivation") { query in
                try checkKind(query)
                return try query.rowDecision(inputs: [0, 1], codedResult: true, work: 16)
            }
        ],
        bind: { try GatedKernel(binder: $0, hasUp: true) })

    private static func checkKind(_ query: KernelQuery) throws {
        guard let kind = query.attributes["kind"]?.string, activationNames[kind] != nil else {
            throw Refusal(
                "there is no kernel for activation '\(query.attributes["kind"]?.string ?? "")'")
        }
    }
}

/// act(gate) * up, or act(gate).
///
/// `@unchecked Sendable`: the arguments are addresses that never change.
final class GatedKernel: BoundKernel, @unchecked Sendable {
    private let kernels: KernelTable
    private let arguments: martlet_gated_arguments
    private let rows: RowCount

    init(binder: Binder, hasUp: Bool) throws {
        let gate = try binder.input(0)
        var arguments = martlet_gated_arguments()
        arguments.gate = UnsafePointer(gate.floats)
        arguments.gate_stride = gate.floatStride
        arguments.count = gate.columns
        if hasUp {
            let up = try binder.input(1)
            try binder.requireSameShape(gate, up)
            arguments.up = UnsafePointer(up.floats)
            arguments.up_stride = up.floatStride
        }
        let kind = try binder.word("kind", of: activationNames.keys.sorted())
        arguments.activation = activationNames[kind] ?? MARTLET_ACTIVATION_IDENTITY
        let result = try binder.rowOutput(0)
        try binder.requireSameShape(gate, result)
        arguments.output = result.output
        self.arguments = arguments
        rows = gate.rows
        kernels = KernelTable(binder.kernels)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let share = worker.share(of: rows(step))
        guard !share.isEmpty else { return }
        withUnsafePointer(to: arguments) {
            kernels.pointer.pointee.gated_activation($0, share.lowerBound, share.upperBound)
        }
    }
}
