// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCUDA
import MartletCore
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Compiled kernels that are kept on the machine.
@Suite struct KernelCacheTests {
    private let folder = "/tmp/martlet-kernels-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    private let code = ByteView((0..<1000).map { UInt8(truncatingIfNeeded: $0 &* 7) })

    private static func bytes(_ path: String) throws -> [UInt8] {
        // A copy: a file that is mapped is not to change.
        try MappedFile.map(path).array(of: UInt8.self)
    }

    private static func write(_ bytes: [UInt8], to path: String) {
        unlink(path)
        guard let file = fopen(path, "wb") else { return }
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
    }

    private func remove(_ cache: KernelCache, _ names: String...) {
        for name in names { unlink(cache.path(name)) }
        rmdir(folder)
    }

    /// A file that was cut short, written over, changed or renamed, and one without a hash, are as none.
    @Test func damageIsSeen() throws {
        let cache = KernelCache(folder: folder)
        defer { remove(cache, "a", "b") }
        #expect(cache.read("a") == nil)
        cache.write(code, "a")
        #expect(cache.read("a")?.hasSameBytes(as: code) == true)
        let whole = try Self.bytes(cache.path("a"))
        Self.write(whole, to: cache.path("b"))
        #expect(cache.read("b") == nil)
        var damaged = [0, 1, 31, 32, 33, 500, whole.count - 1].map { Array(whole.prefix($0)) }
        for place in [0, 500, 999, 1000, whole.count - 1] {
            damaged.append(whole)
            damaged[damaged.count - 1][place] ^= 1
        }
        damaged += [code.array(of: UInt8.self), Array("junk".utf8), whole + [0]]
        for bytes in damaged {
            Self.write(bytes, to: cache.path("a"))
            #expect(cache.read("a") == nil, "\(bytes.count) bytes")
        }
        cache.write(code, "a")
        #expect(cache.read("a")?.hasSameBytes(as: code) == true)
    }

    /// What is kept stands in for the compiler, what is damaged does not.
    @Test func imagesAreTheCaches() throws {
        let module = KernelModule("plain/rows.cu", ["ACTIVATION": "0", "RESULT": "0"])
        let chip = KernelArchitecture("sm_80")
        let (cache, identity) = (KernelCache(folder: folder), try module.identity(chip))
        defer { remove(cache, identity) }
        let images = KernelImages(cacheFolder: folder, compiler: NVRTC.search("none"))
        #expect(throws: MartletError.self) { try images.compile(module, chip) }
        cache.write(code, identity)
        #expect(try images.compile(module, chip).hasSameBytes(as: code))
        #expect(try images.image(module, for: chip).hasSameBytes(as: code))
        Self.write(
            Array(try Self.bytes(cache.path(identity)).dropLast(40)), to: cache.path(identity))
        #expect(throws: MartletError.self) { try images.compile(module, chip) }
        #expect(throws: MartletError.self) { try images.image(module, for: chip) }
    }

    /// A damaged file is compiled again and replaced.
    @Test(
        .enabled(if: LibraryTests.hasCompiler, "NVRTC is not installed"),
        arguments: ["sm_80", "compute_80"])
    func damagedFilesAreReplaced(chip: String) throws {
        let module = KernelModule("plain/rows.cu", ["ACTIVATION": "0", "RESULT": "0"])
        let chip = KernelArchitecture(chip)
        let (cache, identity) = (KernelCache(folder: folder), try module.identity(chip))
        defer { remove(cache, identity) }
        let images = KernelImages(cacheFolder: folder)
        let code = try images.compile(module, chip)
        let whole = try Self.bytes(cache.path(identity))
        #expect(whole.count > code.count && whole.starts(with: code.array(of: UInt8.self)))
        Self.write(Array(whole.prefix(whole.count / 2)), to: cache.path(identity))
        #expect(try images.compile(module, chip).hasSameBytes(as: code))
        #expect(try Self.bytes(cache.path(identity)) == whole)
    }
}
