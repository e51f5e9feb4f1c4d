// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
import Synchronization

/// Where compiled kernels come from: the engine, the cache of this machine, or NVRTC.
package struct KernelImages: Sendable {
    /// Code that an engine holds, by module identity.
    package var engine: [String: ByteView]
    /// Code compiled before; nil for none.
    private let cache: KernelCache?
    /// The compiler, or why there is none.
    package var compiler: Result<NVRTC, MartletError>
    private let sources: KernelSources

    /// Gathers the places.
    package init(
        engine: [String: ByteView] = [:], cacheFolder: String? = nil,
        compiler: Result<NVRTC, MartletError> = NVRTC.shared, sources: KernelSources = .shared
    ) {
        self.engine = engine
        cache = cacheFolder.map { KernelCache(folder: $0) }
        self.compiler = compiler
        self.sources = sources
    }

    /// Code of a module for a chip.
    ///
    /// - Parameters:
    ///   - module: What is wanted.
    ///   - architecture: What it shall run on.
    /// - Throws: `MartletError` that names what is missing and its mend.
    package func image(
        _ module: KernelModule, for architecture: KernelArchitecture
    ) throws -> ByteView {
        let identity = try module.identity(architecture, sources: sources)
        if let image = engine[identity] ?? cache?.read(identity) { return image }
        switch compiler {
        case .success(let compiler):
            let image = try compile(module, architecture, compiler)
            cache?.write(image, identity)
            return image
        case .failure(let missing):
            throw MartletError(
                .device,
                "the engine holds no code of \(module) for \(architecture.name), and "
                    + missing.message,
                mend: missing.mend)
        }
    }

    /// Whether there is code of all modules without compiling any.
    func hold(_ modules: [KernelModule], for architecture: KernelArchitecture) throws -> Bool {
        try modules.allSatisfy {
            let identity = try $0.identity(architecture, sources: sources)
            return engine[identity] != nil || cache?.read(identity) != nil
        }
    }

    /// Code of several modules, compiled on all cores.
    ///
    /// - Returns: Code by module.
    /// - Throws: `MartletError` of the first module that failed.
    package func images(
        _ modules: [KernelModule], for architecture: KernelArchitecture
    ) throws -> [KernelModule: ByteView] {
        let results = Mutex<[KernelModule: Result<ByteView, any Error>]>([:])
        Parallel.forEach(modules.count) { index in
            let module = modules[index]
            let result = Result { try image(module, for: architecture) }
            results.withLock { $0[module] = result }
        }
        let found = results.withLock { $0 }
        var images: [KernelModule: ByteView] = [:]
        for module in modules { images[module] = try found[module]?.get() }
        return images
    }

    /// Compiles modules for chips on all cores; needs no GPU.
    ///
    /// - Returns: Code with its architecture and identity, in the order of the pairs.
    /// - Throws: `MartletError` with the compiler's messages, or what is missing.
    package func compile(
        _ pairs: [(module: KernelModule, architecture: KernelArchitecture)]
    ) throws -> [(architecture: KernelArchitecture, identity: String, code: ByteView)] {
        let results = Mutex<[Int: Result<ByteView, any Error>]>([:])
        Parallel.forEach(pairs.count) { index in
            let result = Result { try compile(pairs[index].module, pairs[index].architecture) }
            results.withLock { $0[index] = result }
        }
        let found = results.withLock { $0 }
        return try pairs.enumerated().compactMap { index, pair in
            guard let code = try found[index]?.get() else { return nil }
            return (
                pair.architecture, try pair.module.identity(pair.architecture, sources: sources),
                code
            )
        }
    }

    /// Compiles a module; needs no GPU.
    ///
    /// - Throws: `MartletError` with the compiler's messages, or what is missing.
    package func compile(
        _ module: KernelModule, _ architecture: KernelArchitecture
    ) throws -> ByteView {
        let identity = try module.identity(architecture, sources: sources)
        if let image = cache?.read(identity) { return image }
        let image = try compile(module, architecture, compiler.get())
        cache?.write(image, identity)
        return image
    }

    private func compile(
        _ module: KernelModule, _ architecture: KernelArchitecture, _ compiler: NVRTC
    ) throws -> ByteView {
        do {
            return try compiler.compile(
                (module.source, sources.text(module.source)), headers: sources.headers,
                options: module.options(architecture), isPTX: architecture.isPTX)
        } catch let error as MartletError {
            throw error.adding("module", module.description)
        }
    }
}
