// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension FragmentLinear {
    /// The same step by step, by kernels that read any weight.
    func plainLaunches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        var launches: [KernelLaunch] = []
        var input = x
        if let norm {
            input = try scratch(binder, columns: x.columns, type: x.type, for: "normalized rows")
            launches.append(normLaunch(binder, norm, to: input))
        }
        guard gate > 0 else {
            launches.append(try CUDAFamily.plainLaunch(binder, input, y, weight, bias: bias))
            if let residual { launches.append(addLaunch(binder, residual)) }
            return launches
        }
        let both = try scratch(
            binder, columns: weight.outputs, type: y.type, for: "gate and up")
        launches.append(try CUDAFamily.plainLaunch(binder, input, both, weight, bias: bias))
        launches.append(gateLaunch(binder, both))
        return launches
    }

    private func normLaunch(
        _ binder: CUDABinder, _ norm: (gamma: DeviceVector, epsilon: Float), to y: DeviceRows
    ) -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(x)
        arguments.add(DeviceRows?.none)
        arguments.add(DeviceRows?.none)
        arguments.add(y)
        arguments.add(norm.gamma)
        arguments.add(DeviceVector?.none)
        arguments.add(rows: x.rows)
        arguments.add(int: x.columns)
        arguments.add(int: 0)
        arguments.add(norm.epsilon)
        let rows = x.rows
        return KernelLaunch(
            module: CUDAFamily.rowModule(x.type), kernel: "norm_plain", arguments: arguments,
            block: 256
        ) { (rows.evaluate($0) ?? 0, 1, 1) }
    }

    private func addLaunch(_ binder: CUDABinder, _ residual: DeviceRows) -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(y)
        arguments.add(residual)
        arguments.add(y)
        arguments.add(DeviceVector?.none)
        arguments.add(rows: y.rows)
        arguments.add(int: y.columns)
        arguments.add(int: 0)
        return KernelLaunch(
            module: CUDAFamily.rowModule(y.type), kernel: "binary_plain", arguments: arguments,
            block: 256, grid: CUDAFamily.elementGrid(y.rows, y.columns))
    }

    private func gateLaunch(_ binder: CUDABinder, _ both: DeviceRows) -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(both.columns(from: 0, count: y.columns))
        arguments.add(both.columns(from: y.columns, count: y.columns))
        arguments.add(y)
        arguments.add(rows: y.rows)
        arguments.add(int: y.columns)
        arguments.add(int: gate == 1 ? 0 : 2)
        return KernelLaunch(
            module: CUDAFamily.rowModule(y.type), kernel: "gated_plain", arguments: arguments,
            block: 256, grid: CUDAFamily.elementGrid(y.rows, y.columns))
    }
}
