// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension FragmentLinear {
    /// The type that x is multiplied in: codes are in f16.
    private var inputType: DType { layout.scheme == nil ? x.type : .f16 }

    /// Whether `linear_prefill` fits GPU, sizes and types.
    func canPrefill(_ binder: CUDABinder) -> Bool {
        binder.memory.target.hasWarpgroups && (y.type == .f16 || y.type == .bf16)
            && layout.chunkInputs % 64 == 0 && y.columns % 8 == 0 && y.stride % 8 == 0
            && y.address % 16 == 0 && outputs == layout.rows
            && (layout.groupSize > 0 || !layout.hasZeros)
            && (residual.map { $0.stride % 8 == 0 && $0.address % 16 == 0 && $0.type == y.type }
                ?? true)
            && (bias == nil || bias?.type == y.type)
    }

    /// `linear_prefill` with the norm or cast in front of it.
    func prefillLaunches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (prepared, input) = try preparedInput(binder)
        return prepared + [prefillLaunch(binder, input)]
    }

    /// x as products of many rows take it, normalized and in their type, and what makes it so.
    func preparedInput(
        _ binder: CUDABinder
    ) throws -> (launches: [KernelLaunch], input: DeviceRows) {
        guard norm != nil || inputType != x.type else { return ([], x) }
        let input = try scratch(
            binder, columns: x.columns, type: inputType, for: "inputs of products")
        return ([try rowLaunch(binder, to: input)], input)
    }

    private func prefillLaunch(_ binder: CUDABinder, _ input: DeviceRows) -> KernelLaunch {
        let most = x.rows.evaluate(binder.memory.limits.dimensions) ?? 0
        var arguments = ArgumentBytes()
        arguments.add(
            TensorMatrix(
                address: input.address, type: input.type, columns: input.columns, rows: most,
                stride: input.stride, boxRows: 256))
        arguments.add(binder.memory.inputs.counts)
        arguments.add(rows: x.rows)
        arguments.add(y)
        arguments.add(residual)
        arguments.add(weight.codes)
        arguments.add(weight.codes + UInt64(layout.scaleStart))
        arguments.add(weight.codes + UInt64(layout.zeroStart))
        arguments.add(bias?.address ?? 0)
        var defines = kernelDefines
        defines["STAGES"] = "4"
        defines["WEIGHT_STAGES"] = layout.scheme == nil ? "4" : "3"
        let rows = x.rows
        let rowTiles = (outputs + 127) / 128
        return KernelLaunch(
            module: KernelModule("prefill/linear.cu", defines), kernel: "linear_prefill",
            arguments: arguments, block: 384
        ) { values in
            let tiles = rowTiles * (((rows.evaluate(values) ?? 0) + 255) / 256)
            return (min(Self.multiprocessors, tiles), 1, 1)
        }
    }

    /// Multiprocessors of an H100.
    private static let multiprocessors = 132

    /// x, normalized or as it is, in the type that the product takes.
    private func rowLaunch(_ binder: CUDABinder, to target: DeviceRows) throws -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(rows: x.rows)
        arguments.add(x)
        arguments.add(target)
        let gamma = try norm.map { try binder.memory.converted($0.gamma, to: x.type) }
        arguments.add(gamma?.address ?? 0)
        arguments.add(binder.memory.results.overflow)
        arguments.add(norm?.epsilon ?? 0)
        let (rows, vectors) = (x.rows, (x.columns + 2047) / 2048)
        let isNorm = norm != nil
        return KernelLaunch(
            module: KernelModule(
                "prefill/rows.cu",
                [
                    "ACTIVATION": DeviceType.define(x.type),
                    "RESULT": DeviceType.define(target.type), "COLUMNS": "\(x.columns)",
                ]), kernel: isNorm ? "norm_prefill" : "cast_prefill", arguments: arguments,
            block: 256
        ) { (rows.evaluate($0) ?? 0, isNorm ? 1 : vectors, 1) }
    }
}
