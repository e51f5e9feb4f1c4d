// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletModels
import MartletTestSupport

/// A tiny model, mostly a LLaMA, compiled for GPUs, to be run on the fake driver.
struct FakeModel {
    static let limits = StepLimits(
        maxTokens: 16, maxRequests: 4, maxLogitRows: 16, maxContext: 192)

    let compiled: CompiledModel
    let images: KernelImages

    init(dtype: DType = .f32, headDim: Int = 16) throws {
        try self.init(TinyModels.llama(headDim: headDim), dtype: dtype)
    }

    init(
        _ architecture: any ModelArchitecture, dtype: DType = .f32,
        scheme: QuantizationScheme? = nil
    ) throws {
        var options = Compiler.Options()
        options.recipe.dtype = dtype
        options.recipe.kvType = dtype
        if let scheme { options.recipe.weights = .scheme(name: "test") { _ in scheme } }
        compiled = try CompiledModel(
            architecture, weights: RandomWeights(seed: 3), options: options,
            catalog: CUDACatalog())
        images = try Self.images(of: compiled.plans)
    }

    /// Code that a driver which computes nothing accepts, of every module of some plans.
    static func images(of plans: [Plan], for name: String = "sm_90a") throws -> KernelImages {
        var code: [String: ByteView] = [:]
        let target = KernelArchitecture(name)
        for module in try CUDACatalog.heldModules(of: plans, for: target) {
            code[try module.identity(target)] = ByteView([UInt8(1)])
        }
        return KernelImages(engine: code, compiler: NVRTC.search("none"))
    }

    /// Bytes of a KV page.
    var pageBytes: Int {
        let bytes = compiled.plans.flatMap(\.kvGroups).map(\.bytesPerBlock).max() ?? 0
        return (bytes + 255) / 256 * 256
    }

    func executor(
        _ change: (inout CUDAOptions) -> Void = { _ in }
    ) throws -> CUDAExecutor {
        var options = CUDAOptions(limits: Self.limits, pageCount: 8)
        options.images = images
        change(&options)
        return try CUDAExecutor(
            FakeDriver.driver, plans: compiled.plans, parameters: compiled.parameters,
            options: options)
    }
}
