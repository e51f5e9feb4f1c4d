// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletCUDASources
import Crypto
package import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A kernel source with the constants it is specialised by: the unit of compilation.
package struct KernelModule: Sendable, Hashable {
    /// File under `kernels/`, such as `plain/linear.cu`.
    package var source: String
    /// Definitions, without `-D`.
    package var defines: [String: String]

    /// Names a source and its constants.
    package init(_ source: String, _ defines: [String: String] = [:]) {
        self.source = source
        self.defines = defines
    }

    /// Options of NVRTC for an architecture.
    func options(_ architecture: KernelArchitecture) -> [String] {
        ["-arch=\(architecture.name)", "-std=c++17", "-default-device"]
            + defines.sorted { $0.key < $1.key }.map { "-D\($0.key)=\($0.value)" }
    }

    /// A hash of everything that decides the code: headers, source, options.
    ///
    /// - Throws: `MartletError` `.notFound` if there is no such source.
    package func identity(
        _ architecture: KernelArchitecture, sources: KernelSources = .shared
    ) throws -> String {
        var hash = SHA256()
        for header in sources.headers {
            hash.update(data: Array(header.name.utf8))
            hash.update(data: Array(header.text.utf8))
        }
        hash.update(data: Array(try sources.text(source).utf8))
        for option in [source] + options(architecture) {
            hash.update(data: Array((option + "\n").utf8))
        }
        return hash.finalize().prefix(16).map { byte in
            (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
    }
}

extension KernelModule: CustomStringConvertible {
    /// Source and constants.
    package var description: String {
        ([source] + defines.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" })
            .joined(separator: " ")
    }
}

/// What code is made for: a chip, or a virtual one whose PTX newer chips translate.
package struct KernelArchitecture: Sendable, Hashable {
    /// As NVRTC names it: `sm_90a` or `compute_80`.
    package let name: String
    /// Shared memory that a block may use on the chip that runs the code, in bytes, where it is less than on those that
    /// the code is named after: PTX of an A100 or an H100 on a chip with less.
    private var leastBlockBytes: Int?
    /// Whether the code is PTX.
    package var isPTX: Bool { name.hasPrefix("compute_") }

    /// Names an architecture.
    package init(_ name: String) { self.name = name }

    /// Chips that engines hold code for.
    package static let supported = ["sm_80", "sm_86", "sm_89", "sm_90a"].map(
        KernelArchitecture.init)

    /// Compute capability, as in 90.
    package var capability: Int { Int(name.drop { !$0.isNumber }.prefix { $0.isNumber }) ?? 0 }

    /// Whether it has matrix instructions of warpgroups and bulk copies of boxes.
    var hasWarpgroups: Bool { name == "sm_90a" }

    /// Shared memory that a block may use, in bytes (CUDA C++ Programming Guide, technical
    /// specifications per compute capability).
    var sharedMemoryPerBlock: Int { leastBlockBytes ?? ownBlockBytes }

    private var ownBlockBytes: Int {
        switch capability {
        case 80, 87: 163 << 10
        case 86, 89, 120...: Self.smallBlockBytes
        case 90...: 227 << 10
        default: 48 << 10
        }
    }

    /// What the chips with the least have.
    private static let smallBlockBytes = 99 << 10

    /// The same code on a chip that gives a block so much shared memory, in bytes: kernels are chosen that fit.
    package func limited(to bytes: Int) -> KernelArchitecture {
        guard bytes < ownBlockBytes else { return self }
        var limited = self
        // One size below the code's own, so that engines can hold code for it.
        limited.leastBlockBytes = bytes >= Self.smallBlockBytes ? Self.smallBlockBytes : bytes
        return limited
    }

    /// Itself, and PTX also as it is where shared memory is small: what an engine holds code for.
    package var variants: [KernelArchitecture] {
        isPTX ? [self, limited(to: Self.smallBlockBytes)] : [self]
    }

    /// Refuses code that is newer than a GPU.
    ///
    /// - Throws: `MartletError` `.unsupported` naming both.
    package func require(capability: Int, of gpu: String) throws(MartletError) {
        guard self.capability > capability else { return }
        throw MartletError(
            .unsupported,
            "code of \(name) does not run on \(gpu), whose compute capability is "
                + "\(capability / 10).\(capability % 10)",
            mend: capability >= 80
                ? "Use compute_80 (--force-sm 80), or leave it out for the GPU's own code"
                : "Martlet needs compute capability 8.0 or later")
    }

    /// Code that a chip runs, best first.
    package static func candidates(capability: Int) -> [KernelArchitecture] {
        let exact = supported.filter { $0.capability == capability }
        let translated = [90, 80].filter { $0 <= capability }.map {
            KernelArchitecture("compute_\($0)")
        }
        return exact + translated
    }
}

/// The texts of all kernels: those built into the program, or those of `MARTLET_CUDA_SOURCE_DIR`.
package struct KernelSources: Sendable {
    private let files: [String: String]
    /// Files that sources include, by their bare names.
    let headers: [(name: String, text: String)]

    /// The texts in use.
    package static let shared = KernelSources(
        folder: getenv("MARTLET_CUDA_SOURCE_DIR").map { String(cString: $0) })

    /// Reads the texts.
    ///
    /// - Parameter folder: Where files of the same paths replace the built-in ones; nil for none.
    package init(folder: String?) {
        var files: [String: String] = [:]
        var count = 0
        let table = martlet_cuda_sources(&count)
        for file in UnsafeBufferPointer(start: table, count: count) {
            let bytes = UnsafeRawBufferPointer(start: file.text, count: file.count)
            let path = String(cString: file.path)
            files[path] = String(decoding: bytes, as: UTF8.self)
            if let folder, let view = try? MappedFile.map(folder + "/" + path) {
                files[path] = view.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
            }
        }
        self.files = files
        headers = files.filter { $0.key.hasSuffix(".cuh") }.sorted { $0.key < $1.key }.map {
            (String($0.key.split(separator: "/").last ?? ""), $0.value)
        }
    }

    /// Paths of all kernels.
    package var paths: [String] { files.keys.filter { $0.hasSuffix(".cu") }.sorted() }

    /// A file's text.
    ///
    /// - Throws: `MartletError` `.notFound` if there is none of that path.
    func text(_ path: String) throws -> String {
        guard let text = files[path] else {
            throw MartletError(.notFound, "there is no kernel source '\(path)'")
        }
        return text
    }
}
