// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCUDA
import MartletCore
import MartletTestSupport
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Machines without driver, NVRTC or kernels.
@Suite struct LibraryTests {
    @Test(arguments: ["none", "/nowhere/libcuda.so.1"])
    func missingDriverIsNamed(path: String) throws {
        guard case .missing(let error) = CUDADriver.search(path) else {
            Issue.record("a driver was found")
            return
        }
        #expect(error.code == .device)
        #expect(error.mend?.contains("--device cpu") == true)
    }

    /// A library of another kind lacks the driver's functions.
    @Test func wrongLibraryIsTooOld() throws {
        guard case .missing(let error) = CUDADriver.search("libc.so.6") else {
            Issue.record("libc is no driver")
            return
        }
        #expect(error.message.contains("cuInit"))
    }

    /// A file that is no library, or ends too early, is refused before the loader touches it.
    @Test(arguments: [0, 3, 40, 64, 5000, 8000, -1])
    func damagedLibraryIsNamed(count: Int) throws {
        let program = try MappedFile.map("/proc/self/exe")
        let whole = try #require(program.slice(0, count: 8000)).array(of: UInt8.self)
        let path = "/tmp/martlet-library-\(getpid())-\(count).so"
        let file = try #require(fopen(path, "wb"))
        defer { unlink(path) }
        let bytes =
            count < 0 ? Array("no library at all, but a text".utf8) : Array(whole.prefix(count))
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
        let reason = count >= 64 ? "cut short" : "not a shared library"
        guard case .missing(let driver) = CUDADriver.search(path),
            case .failure(let compiler) = NVRTC.search(path)
        else {
            Issue.record("the file was loaded")
            return
        }
        for (error, name) in [(driver, "MARTLET_CUDA_DRIVER"), (compiler, "MARTLET_NVRTC")] {
            #expect(error.code == .device)
            #expect(error.message.contains("\(path): \(reason)"), "\(error)")
            #expect("\(error)".contains(name))
            #expect(error.mend != nil)
        }
    }

    /// A library of another kind that the user names is told from a machine without NVRTC.
    @Test(arguments: [("libc.so.6", "nvrtcVersion"), ("/nowhere/x.so", "/nowhere/x.so")])
    func wrongCompilerIsNamed(path: String, words: String) throws {
        guard case .failure(let error) = NVRTC.search(path) else {
            Issue.record("that is no NVRTC")
            return
        }
        #expect(error.message.contains("MARTLET_NVRTC") && error.message.contains(words))
    }

    /// An empty variable is as none.
    @Test func emptyPathIsNone() {
        func text(_ path: String?) -> String {
            if case .missing(let error) = CUDADriver.search(path) { "\(error)" } else { "found" }
        }
        func version(_ path: String?) -> String {
            switch NVRTC.search(path) {
            case .success(let compiler): compiler.version
            case .failure(let error): "\(error)"
            }
        }
        #expect(text("") == text(nil))
        #expect(version("") == version(nil))
    }

    @Test func missingCompilerIsNamed() throws {
        let images = KernelImages(compiler: NVRTC.search("none"))
        let module = KernelModule("plain/rows.cu", ["ACTIVATION": "0", "RESULT": "0"])
        let error = #expect(throws: MartletError.self) {
            try images.image(module, for: KernelArchitecture("sm_90a"))
        }
        #expect(error?.message.contains("NVRTC was not found") == true)
        #expect(error?.mend?.contains("nvidia-cuda-nvrtc") == true)
    }

    /// Newer chips take PTX, older ones nothing.
    @Test(
        arguments: [
            (75, []), (80, ["sm_80", "compute_80"]), (90, ["sm_90a", "compute_90", "compute_80"]),
            (120, ["compute_90", "compute_80"]),
        ] as [(Int, [String])])
    func candidates(capability: Int, names: [String]) {
        #expect(KernelArchitecture.candidates(capability: capability).map(\.name) == names)
    }

    /// Code of the engine needs no compiler.
    @Test func engineCodeIsUsed() throws {
        let module = KernelModule("plain/rows.cu", ["ACTIVATION": "0", "RESULT": "0"])
        let ptx = KernelArchitecture("compute_90")
        let images = KernelImages(
            engine: [try module.identity(ptx): ByteView([UInt8(7)])],
            compiler: NVRTC.search("none"))
        let image = try images.image(module, for: ptx)
        #expect(image.array(of: UInt8.self) == [7])
    }

    /// Every kernel of the built-in sources compiles where NVRTC is at hand, and is kept.
    @Test(.enabled(if: hasCompiler, "NVRTC is not installed"))
    func kernelsCompile() throws {
        let module = KernelModule("plain/rows.cu", ["ACTIVATION": "2", "RESULT": "2"])
        let cubin = try KernelImages().compile(module, KernelArchitecture("sm_80"))
        #expect(Array(cubin.array(of: UInt8.self).prefix(4)) == [0x7f, 0x45, 0x4c, 0x46])
        let ptx = try KernelImages().compile(module, KernelArchitecture("compute_80"))
        #expect(ptx.array(of: UInt8.self).last == 0)
        let wrong = KernelModule("plain/rows.cu", ["ACTIVATION": "nothing"])
        #expect(throws: MartletError.self) {
            try KernelImages().compile(wrong, KernelArchitecture("sm_80"))
        }
    }

    /// The structs that the host fills are as long as those that the kernels read.
    @Test(
        .enabled(if: hasCompiler, "NVRTC is not installed"),
        arguments: [DType.f32, .bf16],
        [
            nil, QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none),
            QuantizationScheme(bits: 4, group: .group(32), scaleType: .f16, zero: .none),
        ])
    func argumentsAreTheKernels(dtype: DType, scheme: QuantizationScheme?) throws {
        let plans = try FakeModel(TinyModels.llama(headDim: 64), dtype: dtype, scheme: scheme)
            .compiled.plans
        for target in ["compute_80", "sm_90a"].map(KernelArchitecture.init) {
            var texts: [KernelModule: String] = [:]
            // Warpgroups need the chip's own code, whose PTX NVRTC also gives.
            let virtual = KernelArchitecture(target.isPTX ? target.name : "compute_90a")
            for launch in try CUDACatalog.launches(of: plans, for: target) {
                let text =
                    try texts[launch.module]
                    ?? String(
                        decoding: KernelImages().compile(launch.module, virtual)
                            .array(of: UInt8.self), as: UTF8.self)
                texts[launch.module] = text
                let size = try #require(Self.parameterSize(launch.kernel, in: text))
                #expect(
                    (launch.arguments.bytes.count + size.alignment - 1) / size.alignment
                        * size.alignment == size.bytes, "\(launch.kernel) of \(launch.module)")
            }
        }
    }

    /// Bytes and alignment of a kernel's one parameter, as PTX declares it.
    private static func parameterSize(
        _ kernel: String, in text: String
    ) -> (bytes: Int, alignment: Int)? {
        guard let place = text.firstRange(of: "\(kernel)_param_0["),
            let line = text[..<place.lowerBound].split(separator: "\n").last,
            let alignment = line.split(separator: " ").compactMap({ Int($0) }).first,
            let bytes = Int(text[place.upperBound...].prefix { $0.isNumber })
        else { return nil }
        return (bytes, alignment)
    }

    static var hasCompiler: Bool { if case .success = NVRTC.shared { true } else { false } }
}
