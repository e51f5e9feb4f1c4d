// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletDriver
package import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What a machine offers of NVIDIA's parts, in words, with the mend for what is missing.
package enum GPUProbe {
    /// A fact.
    package struct Line: Sendable {
        /// What was looked for.
        package let item: String
        /// What was found, or what is missing and its mend.
        package let found: String
    }

    /// Driver, GPUs, NVRTC and cuBLASLt.
    package static func lines() -> [Line] {
        lines(
            CUDADriver.shared, NVRTC.shared, getenv("MARTLET_CUBLASLT").map { String(cString: $0) })
    }

    /// The same for given libraries.
    package static func lines(
        _ driver: CUDADriver.Search, _ compiler: Result<NVRTC, MartletError>, _ cublaslt: String?
    ) -> [Line] {
        var lines: [Line] = []
        switch driver {
        case .missing(let error): lines.append(Line(item: "NVIDIA driver", found: "\(error)"))
        case .found(let driver): lines += devices(driver)
        }
        switch compiler {
        case .success(let compiler):
            lines.append(Line(item: "NVRTC", found: compiler.version))
        case .failure(let error): lines.append(Line(item: "NVRTC", found: "\(error)"))
        }
        var table = martlet_cublaslt()
        let library = martlet_cublaslt_load(&table, cublaslt)
        let version = table.cublasLtGetVersion?()
        lines.append(
            Line(
                item: "cuBLASLt",
                found: version.map { "\($0 / 10000).\($0 / 100 % 100)" }
                    ?? "none (\(library.text)); Martlet's own kernels are used"))
        return lines
    }

    private static func devices(_ driver: CUDADriver) -> [Line] {
        do throws(MartletError) {
            let version = try CUDADevice.driverVersion(driver)
            var lines = [
                Line(item: "NVIDIA driver", found: "CUDA \(version / 1000).\(version % 1000 / 10)")
            ]
            let first = try CUDADevice(driver)
            for ordinal in 0..<(try CUDADevice.count(driver)) {
                let device = ordinal == 0 ? first : try CUDADevice(driver, ordinal: ordinal)
                let gigabytes = Double(device.memoryByteCount / (1 << 28)) / 4
                let isKnown = !KernelArchitecture.candidates(capability: device.capability).isEmpty
                lines.append(
                    Line(
                        item: "GPU \(ordinal)",
                        found: "\(device.name), sm_\(device.capability), \(device.smCount) SMs, "
                            + "\(gigabytes) GiB"
                            + (isKnown ? "" : "; Martlet needs compute capability 8.0 or later")))
            }
            return lines
        } catch {
            return [Line(item: "NVIDIA driver", found: "\(error)")]
        }
    }
}
