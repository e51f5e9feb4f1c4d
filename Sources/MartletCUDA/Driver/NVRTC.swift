// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletDriver
package import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// NVIDIA's run-time compiler: CUDA C++ text to cubin or PTX; needs no GPU.
///
/// `@unchecked Sendable`: the table never changes, and compilations are independent of each other.
package final class NVRTC: @unchecked Sendable {
    private let table: martlet_nvrtc
    /// Version, such as `13.0`.
    package let version: String

    private init(_ table: martlet_nvrtc) {
        self.table = table
        var (major, minor): (Int32, Int32) = (0, 0)
        _ = table.nvrtcVersion?(&major, &minor)
        version = "\(major).\(minor)"
    }

    /// NVRTC of this machine, searched for once; the error says what is missing.
    package static let shared: Result<NVRTC, MartletError> = search(givenPath)

    /// What `MARTLET_NVRTC` says; nil for nothing.
    private static let givenPath = getenv("MARTLET_NVRTC").map { String(cString: $0) }

    /// Whether the user names a library: one that cannot be used is a mistake, not a machine without NVRTC.
    package static let isNamed = isName(givenPath)

    private static func isName(_ path: String?) -> Bool {
        path.map { !$0.isEmpty && $0 != "none" } ?? false
    }

    /// How to get NVRTC.
    package static let installation =
        "pip install nvidia-cuda-nvrtc and set MARTLET_NVRTC to its libnvrtc.so.13"

    /// Loads NVRTC.
    ///
    /// - Parameter path: A library's file, or `none` to hide it; nil or nothing for the usual names.
    package static func search(_ path: String?) -> Result<NVRTC, MartletError> {
        var table = martlet_nvrtc()
        let library = martlet_nvrtc_load(&table, path)
        if let path, isName(path), library.state != MARTLET_LIBRARY_LOADED {
            let reason =
                library.state == MARTLET_LIBRARY_TOO_OLD
                ? "\(path) has no function '\(library.text)'" : library.text
            return .failure(
                MartletError(
                    .device, "the library that MARTLET_NVRTC names cannot be used: \(reason)",
                    mend: "Name the libnvrtc.so.13 of pip install nvidia-cuda-nvrtc, "
                        + "or unset the variable"))
        }
        switch library.state {
        case MARTLET_LIBRARY_LOADED: return .success(NVRTC(table))
        case MARTLET_LIBRARY_TOO_OLD:
            return .failure(
                MartletError(
                    .device, "NVRTC is too old: it has no function '\(library.text)'",
                    mend: "Install nvidia-cuda-nvrtc 12 or later"))
        default:
            return .failure(
                MartletError(
                    .device, "NVRTC was not found (\(library.text))",
                    mend: installation + ", or run an engine that holds kernels for this GPU"))
        }
    }

    /// Compiles a source.
    ///
    /// - Parameters:
    ///   - source: The text, and a name for messages.
    ///   - headers: Files that it may include, by name.
    ///   - options: Options of NVRTC, the architecture among them.
    ///   - isPTX: Whether PTX is wanted instead of a cubin.
    /// - Returns: The cubin, or the PTX with its zero byte.
    /// - Throws: `MartletError` `.device` with the compiler's messages.
    package func compile(
        _ source: (name: String, text: String), headers: [(name: String, text: String)],
        options: [String], isPTX: Bool
    ) throws(MartletError) -> ByteView {
        var program: UnsafeMutableRawPointer?
        var strings: [UnsafeMutablePointer<CChar>] = []
        defer { for string in strings { free(string) } }
        func copy(_ text: String) -> UnsafePointer<CChar>? {
            guard let string = strdup(text) else { return nil }
            strings.append(string)
            return UnsafePointer(string)
        }
        var texts = headers.map { copy($0.text) }
        var names = headers.map { copy($0.name) }
        try check(
            "nvrtcCreateProgram",
            table.nvrtcCreateProgram?(
                &program, source.text, source.name, Int32(headers.count), &texts, &names))
        defer { _ = table.nvrtcDestroyProgram?(&program) }
        var pointers = options.map { copy($0) }
        let result = table.nvrtcCompileProgram?(program, Int32(options.count), &pointers)
        if result != 0 {
            var size = 0
            _ = table.nvrtcGetProgramLogSize?(program, &size)
            var log = [CChar](repeating: 0, count: max(size, 1))
            _ = table.nvrtcGetProgramLog?(program, &log)
            let text = log.withUnsafeBytes {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            throw MartletError(
                .device, "kernel source '\(source.name)' does not compile: \(text)",
                context: ["call": "nvrtcCompileProgram", "options": options.joined(separator: " ")])
        }
        var size = 0
        try check(
            "nvrtcGetSize",
            isPTX
                ? table.nvrtcGetPTXSize?(program, &size)
                : table.nvrtcGetCUBINSize?(program, &size))
        var code: Int32?
        let view = ByteView(count: size) { bytes in
            let target = bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
            code =
                isPTX
                ? table.nvrtcGetPTX?(program, target) : table.nvrtcGetCUBIN?(program, target)
        }
        try check("nvrtcGet", code)
        return view
    }

    private func check(_ call: String, _ result: Int32?) throws(MartletError) {
        if result == 0 { return }
        let text = table.nvrtcGetErrorString?(result ?? -1).map { String(cString: $0) }
        throw MartletError(
            .device, "\(call) failed with \(text ?? "NVRTC error \(result ?? -1)")",
            mend: "Check martlet doctor", context: ["call": call])
    }
}
