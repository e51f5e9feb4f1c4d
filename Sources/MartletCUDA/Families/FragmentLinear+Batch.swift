// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// `linear_batch`: up to 64 rows a launch, the weight read once.
extension FragmentLinear {
    /// Rows of x that kernels are built for.
    private static func batchSizes(_ target: KernelArchitecture) -> [Int] {
        // 48 rows are computed by warpgroup instructions alone.
        (target.hasWarpgroups ? [8, 16, 32, 48, 64] : [8, 16, 32, 64])
            .filter { $0 > mostDecodeRows(target) }
    }

    /// Launches for more rows than one of decode's, up to a limit; nil where the kernel does not fit.
    func batchLaunches(_ binder: CUDABinder, upTo limit: Int) throws -> [KernelLaunch]? {
        guard let shapes = batchShapes(binder.memory.target, norm: shared?.side),
            let widest = shapes.last
        else { return nil }
        let (prepared, input) = try batchInput(binder)
        let rows = x.rows
        var least = Self.mostDecodeRows(binder.memory.target)
        var launches = prepared.map { [least] launch in
            launch.limited {
                let count = rows.evaluate($0) ?? 0
                return count > least && count <= limit
            }
        }
        for shape in shapes {
            let (from, to) = (least, shape.tokens)
            launches.append(batchLaunch(binder, shape, input, from: 0) { $0 > from && $0 <= to })
            least = to
        }
        for start in stride(from: 0, to: limit, by: widest.tokens) where limit > widest.tokens {
            launches.append(
                batchLaunch(binder, widest, input, from: start) {
                    $0 > widest.tokens && $0 <= limit && start < $0
                })
        }
        return launches
    }

    /// x as kernels of batches take it, and what makes it so.
    private func batchInput(
        _ binder: CUDABinder
    ) throws -> (launches: [KernelLaunch], input: DeviceRows) {
        if let scaledInput { return ([], scaledInput) }
        return try preparedInput(binder)
    }

    /// How the kernels for each number of rows are built; nil where one does not fit.
    func batchShapes(
        _ target: KernelArchitecture, norm side: SharedNorm.Side?
    ) -> [BatchShape]? {
        let sizes = Self.batchSizes(target)
        let shapes = sizes.compactMap {
            BatchShape(layout, tokens: $0, target: target, norm: side)
        }
        return shapes.count == sizes.count ? shapes : nil
    }

    /// Launches of the widest kernel for any count of rows; nil where it does not fit.
    func windowLaunches(_ binder: CUDABinder) throws -> [KernelLaunch]? {
        guard let shape = batchShapes(binder.memory.target, norm: shared?.side)?.last
        else { return nil }
        let (prepared, input) = try batchInput(binder)
        let most = x.rows.evaluate(binder.memory.limits.dimensions) ?? 0
        return prepared
            + stride(from: 0, to: most, by: shape.tokens).map { start in
                batchLaunch(binder, shape, input, from: start) { start < $0 }
            }
    }

    private func batchLaunch(
        _ binder: CUDABinder, _ shape: BatchShape, _ input: DeviceRows, from start: Int,
        isWanted: @escaping @Sendable (Int) -> Bool
    ) -> KernelLaunch {
        let (x, y) = (input.rows(from: start), y.rows(from: start))
        let most = max((x.rows.evaluate(binder.memory.limits.dimensions) ?? 0) - start, 1)
        var arguments = ArgumentBytes()
        // Copies of boxes come with sm_90.
        arguments.add(
            binder.memory.target.capability >= 90
                ? TensorMatrix(
                    address: x.address, type: x.type, columns: x.columns, rows: most,
                    stride: x.stride, boxRows: shape.tokens) : nil)
        arguments.add(binder.memory.inputs.counts)
        arguments.add(rows: x.rows + Dimension(-start))
        arguments.add(x)
        arguments.add(y)
        arguments.add(residual?.rows(from: start))
        arguments.add(weight.codes)
        arguments.add(weight.codes + UInt64(layout.scaleStart))
        arguments.add(weight.codes + UInt64(layout.zeroStart))
        arguments.add(bias?.address ?? 0)
        arguments.add(shared, from: start, parts: shared?.batchParts[shape.tokens] ?? 0)
        var defines = kernelDefines
        for (name, value) in shape.defines { defines[name] = "\(value)" }
        let rows = x.rows
        return KernelLaunch(
            module: KernelModule("batch/linear.cu", defines), kernel: "linear_batch",
            arguments: arguments, block: shape.warps * 32, sharedBytes: shape.sharedBytes
        ) { isWanted(rows.evaluate($0) ?? 0) ? (shape.grid, 1, 1) : (0, 0, 0) }
    }
}

extension DeviceRows {
    /// The same columns from a later row on; `rows` stays.
    func rows(from start: Int) -> DeviceRows {
        DeviceRows(
            address: address + UInt64(start * stride * type.byteCount), stride: stride,
            columns: columns, rows: rows, type: type)
    }
}
