// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import CMartletDriver
package import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The CUDA driver: a table of functions, from `libcuda.so.1` or from a test.
///
/// `@unchecked Sendable`: the table never changes, and the driver's functions may be called from any
/// thread.
package final class CUDADriver: @unchecked Sendable {
    /// The functions.
    let table: martlet_cuda

    /// Wraps a table of functions, such as a test's.
    package init(_ table: martlet_cuda) { self.table = table }

    /// What became of the search for the driver.
    package enum Search: Sendable {
        /// Found.
        case found(CUDADriver)
        /// Not found, or without a function that Martlet needs.
        case missing(MartletError)
    }

    /// The driver of this machine, searched for once.
    package static let shared: Search = search(
        getenv("MARTLET_CUDA_DRIVER").map { String(cString: $0) })

    /// Loads the driver.
    ///
    /// - Parameter path: A library's file, or `none` to hide it; nil or nothing for the usual name.
    package static func search(_ path: String?) -> Search {
        var table = martlet_cuda()
        let library = martlet_cuda_load(&table, path)
        let detail = library.text
        switch library.state {
        case MARTLET_LIBRARY_LOADED: return .found(CUDADriver(table))
        case MARTLET_LIBRARY_TOO_OLD:
            return .missing(
                MartletError(
                    .device, "the NVIDIA driver is too old: it has no function '\(detail)'",
                    mend: "Update the driver to version 525 or later"))
        case MARTLET_LIBRARY_DAMAGED:
            return .missing(
                MartletError(
                    .device, "the NVIDIA driver cannot be loaded (\(detail))",
                    mend: "Name its libcuda.so.1 with MARTLET_CUDA_DRIVER, or unset that; "
                        + "without a GPU use --device cpu"))
        default:
            return .missing(
                MartletError(
                    .device, "no NVIDIA driver was found (\(detail))",
                    mend: "Install the NVIDIA driver, or run the container with --gpus all; "
                        + "without a GPU use --device cpu"))
        }
    }

    /// The driver of this machine.
    ///
    /// - Throws: `MartletError` `.device` where there is none.
    package static func required() throws(MartletError) -> CUDADriver {
        switch shared {
        case .found(let driver): return driver
        case .missing(let error): throw error
        }
    }

    /// Turns a call's result into an error that names call, code and mend.
    @inline(__always)
    func check(_ call: StaticString, _ result: martlet_cu_result?) throws(MartletError) {
        if result == 0 { return }
        throw failure("\(call)", result ?? 999)
    }

    /// Encodes a matrix into 128 bytes of a kernel's arguments.
    func encode(_ matrix: TensorMatrix, at place: UnsafeMutableRawPointer) throws(MartletError) {
        let result = withUnsafePointer(to: table) {
            martlet_cuda_encode_matrix(
                $0, place, matrix.type == .bf16 ? 1 : 0, matrix.address, UInt64(matrix.columns),
                UInt64(matrix.rows), UInt64(matrix.stride * 2), UInt32(matrix.boxRows))
        }
        try check("cuTensorMapEncodeTiled", result)
    }

    /// The error of a failed call.
    func failure(_ call: String, _ result: martlet_cu_result) -> MartletError {
        var name: UnsafePointer<CChar>?
        var text: UnsafePointer<CChar>?
        _ = table.cuGetErrorName?(result, &name)
        _ = table.cuGetErrorString?(result, &text)
        let code = name.map { String(cString: $0) } ?? "CUDA error \(result)"
        let reason = text.map { ": " + String(cString: $0) } ?? ""
        return MartletError(
            result == 2 ? .limitExceeded : .device, "\(call) failed with \(code)\(reason)",
            mend: Self.mend(result), context: ["call": call, "result": code])
    }

    /// What a user can do about a result of the driver.
    static func mend(_ result: martlet_cu_result) -> String {
        switch result {
        case 2:
            "Lower --memory-fraction, --kv-cache-memory or --max-batch-size, or free memory of the GPU"
        case 34, 803:
            "The driver's library and its kernel module differ: reboot, or install one version of both"
        case 100, 101:
            "No GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, and run containers with --gpus all"
        case 46, 802: "The GPU is in use or not ready: check nvidia-smi, then try again"
        case 200, 209, 218, 221, 222:
            "The engine's kernels do not fit this GPU or driver: rebuild the engine here, or update the driver"
        case 214, 999: "The GPU reported a fault: check dmesg, and reset it if the fault stays"
        case 700...719:
            "A kernel failed; the process must be started again. Please report it with martlet selftest --device cuda"
        case 804: "The driver is too old for this GPU: update it"
        default: "Check martlet doctor, and report it if all is well there"
        }
    }
}

extension martlet_library {
    /// The detail as text.
    var text: String {
        withUnsafeBytes(of: detail) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}
