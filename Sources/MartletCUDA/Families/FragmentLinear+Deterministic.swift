// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension FragmentLinear {
    /// Launches of one kernel for every count of rows.
    ///
    /// Each of the kernels adds a row's products in an order that the rows beside it do not change; between two
    /// of them the order differs. `linear_batch` is taken first, in windows of its most rows: it costs a batch
    /// little, and a prompt the weights once a window.
    func deterministicLaunches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        if let windows = try windowLaunches(binder) { return windows }
        return try canPrefill(binder) ? prefillLaunches(binder) : plainLaunches(binder)
    }
}
