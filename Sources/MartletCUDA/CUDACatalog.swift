// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
package import MartletCore
package import MartletEngineFile

/// What NVIDIA GPUs offer the compiler: kernels, layouts and sizes.
///
/// Needs no GPU: costs are those of an H100, so that builds are reproducible.
package struct CUDACatalog: KernelCatalog {
    /// Chips that engines hold code for, and where code compiled before is kept.
    private let architectures: [KernelArchitecture]
    private let images: KernelImages

    /// The catalog.
    ///
    /// - Parameters:
    ///   - code: Chips, such as `sm_90a`, or virtual ones, such as `compute_80`; none for engines
    ///     without code, whose kernels are compiled where they run.
    ///   - cacheFolder: Where compiled code is kept; nil for nowhere.
    package init(code: [String] = [], cacheFolder: String? = nil) {
        architectures = code.map { KernelArchitecture($0) }
        images = KernelImages(cacheFolder: cacheFolder)
    }

    /// Names of the chips that code can be made for.
    package static let allCode =
        KernelArchitecture.supported.map(\.name) + ["compute_80", "compute_90"]

    /// Refuses the name of a chip that no code can be made for.
    ///
    /// - Throws: `MartletError` `.invalidArgument` with the known ones.
    package static func check(code name: String) throws(MartletError) {
        guard !allCode.contains(name) else { return }
        throw MartletError(
            .invalidArgument, "there is no GPU code '\(name)'",
            mend: "Known: \(allCode.joined(separator: ", "))")
    }

    /// Operations a second of kernels that do not use the tensor cores.
    static let plainRate = 10e12
    /// Tokens of a KV block as kernels know it.
    static let kvBlock = 64

    package var target: String { "cuda" }
    package var families: [KernelFamily] { CUDAFamily.all.map(\.descriptor) }
    package var assumedBytesPerSecond: Double { 3e12 }
    package var kvBlockSize: Int { Self.kvBlock }
    package var kvTypes: [DType] { [.f32, .f16, .bf16] }
    package var activationTypes: [DType] { [.f32, .f16, .bf16] }
    package var defaultActivations: ActivationFormat? { nil }

    package func rowBytes(_ format: ElementFormat, columns: Int) -> Int? {
        Self.rowBytes(format, columns: columns)
    }

    /// Rows begin at multiples of 16 bytes, so that kernels can load as much at once.
    static func rowBytes(_ format: ElementFormat, columns: Int) -> Int? {
        guard columns > 0, columns <= 1 << 28 else { return nil }
        switch format {
        case .plain(.i32): return columns * 4
        case .plain(let type) where type.isActivation:
            return (columns * type.byteCount + 15) / 16 * 16
        default: return nil
        }
    }

    package func pack(_ weight: WeightValue, layout: String) throws -> ByteView {
        guard layout != RowLayout.name else { return try RowLayout.pack(weight, layout: layout) }
        let format: ElementFormat =
            switch weight {
            case .plain(let tensor): .plain(tensor.dtype)
            case .quantized(let tensor): .weight(tensor.scheme)
            }
        return try Self.fragments(layout, format, weight.shape, .unsupported).pack(weight)
    }

    package func deviceCode(for plans: [Plan]) throws -> [String: ByteView] {
        guard !architectures.isEmpty else { return [:] }
        for chip in architectures { try Self.check(code: chip.name) }
        return Dictionary(
            try images.compile(
                architectures.flatMap { architecture in
                    try Self.heldModules(of: plans, for: architecture).map { ($0, architecture) }
                }
            ).map { ($0.identity, $0.code) }, uniquingKeysWith: { first, _ in first })
    }

    package func unpack(
        _ bytes: ByteView, layout: String, format: ElementFormat, shape: [Int]
    ) throws -> WeightValue {
        guard layout != RowLayout.name else {
            return try RowLayout.unpack(bytes, layout: layout, format: format, shape: shape)
        }
        return try Self.fragments(layout, format, shape, .corrupt).unpack(bytes, shape: shape)
    }

    private static func fragments(
        _ layout: String, _ format: ElementFormat, _ shape: [Int], _ code: MartletError.Code
    ) throws -> FragmentLayout {
        do {
            return try FragmentLayout(layout, format, shape)
        } catch let refusal as Refusal {
            throw MartletError(code, refusal.reason)
        }
    }
}
