// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension FragmentLinear {
    /// The type that x is multiplied in: codes are in f16.
    private var inputType: DType { layout.scheme == nil ? x.type : .f16 }

    /// Whether the kernels of prompts fit sizes and types.
    func canPrefill(_ binder: CUDABinder) -> Bool {
        (isHalf(y.type) || canPrefillHead(binder)) && warpTile(binder.memory.target).stages > 1
            && layout.chunkInputs % 64 == 0 && y.columns % 8 == 0 && y.stride % 8 == 0
            && y.address % 16 == 0 && outputs == layout.rows
            && (layout.groupSize > 0 || !layout.hasZeros)
            && (residual.map { $0.stride % 8 == 0 && $0.address % 16 == 0 && $0.type == y.type }
                ?? true)
            && (bias == nil || bias?.type == y.type)
    }

    /// f32 results, as a head has them: of warpgroups, with nothing behind the product.
    private func canPrefillHead(_ binder: CUDABinder) -> Bool {
        y.type == .f32 && isHalf(x.type) && gate == 0 && residual == nil && bias == nil
            && binder.memory.target.hasWarpgroups
    }

    private func isHalf(_ type: DType) -> Bool { type == .f16 || type == .bf16 }

    /// `linear_prefill`, or `linear_prefill_mma` where a GPU has no warpgroups, with the norm or cast in front.
    func prefillLaunches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (prepared, input) = try preparedInput(binder)
        guard binder.memory.target.hasWarpgroups else {
            return prepared + [warpLaunch(binder, input)]
        }
        // Shared tiles and tiles of other sizes may add up in another order.
        let tiles = binder.memory.isDeterministic ? [PrefillTile.alone] : PrefillTile.all
        return try prepared
            + tiles.map { tile in
                try warpgroupLaunch(binder, input, tile).limited { [rows = x.rows] in
                    tiles.count == 1 || PrefillTile.best(rows.evaluate($0) ?? 0) == tile
                }
            }
    }

    /// x as products of many rows take it, normalized and in their type, and what makes it so.
    func preparedInput(
        _ binder: CUDABinder
    ) throws -> (launches: [KernelLaunch], input: DeviceRows) {
        guard norm != nil || inputType != x.type else { return ([], x) }
        let input = try scratch(
            binder, columns: x.columns, type: inputType, for: "inputs of products")
        return ([try rowLaunch(binder, to: input)], input)
    }

    /// Tokens of a tile of `linear_prefill_mma`, and boxes of 64 k in its shared memory.
    private func warpTile(_ target: KernelArchitecture) -> (tokens: Int, stages: Int) {
        let bits = layout.scheme?.bits ?? 16
        let groups = layout.groupSize > 0 ? max(64 / layout.groupSize, 1) : 0
        let strip = 16 * 64 * bits / 8 + groups * (layout.hasZeros ? 64 : 32)
        let bytes = target.sharedMemoryPerBlock
        // Two blocks of 128 tokens, one of which begins or ends beside the other's products, where they fit.
        if bytes >= 160 << 10 {
            return (128, min(((bytes + 1024) / 2 - 1024) / (128 * 64 * 2 + 8 * strip), 3))
        }
        return (256, min(bytes / (256 * 64 * 2 + 8 * strip), 3))
    }

    private func warpgroupLaunch(
        _ binder: CUDABinder, _ input: DeviceRows, _ tile: PrefillTile
    ) throws -> KernelLaunch {
        let rows = x.rows.evaluate(binder.memory.limits.dimensions) ?? 0
        var arguments = ArgumentBytes()
        arguments.add(
            TensorMatrix(
                address: input.address, type: input.type, columns: input.columns, rows: rows,
                stride: input.stride, boxRows: tile.tokens))
        addTask(binder, to: &arguments)
        let blocks = PrefillTile.multiprocessors
        if tile.isShared {
            // Sums and flags of each block's two warpgroups; flags are zero after each launch as before.
            arguments.add(
                try binder.memory.scratch(
                    blocks * 128 * PrefillTile.alone.tokens * 4, for: "sums of products"))
            arguments.add(try binder.memory.scratch(blocks * 2 * 4, for: "flags of products"))
        }
        var defines = kernelDefines
        defines["TOKENS"] = "\(tile.tokens)"
        defines["SHARED"] = tile.isShared ? "1" : "0"
        defines["STAGES"] = "\(tile.stages)"
        defines["WEIGHT_STAGES"] = "\(layout.scheme == nil ? tile.weightStages : tile.codeStages)"
        let tiles = prefillTiles(of: tile.tokens)
        return KernelLaunch(
            module: KernelModule("prefill/linear.cu", defines), kernel: "linear_prefill",
            arguments: arguments, block: 384
        ) { (tile.isShared ? blocks : min(blocks, tiles($0)), 1, 1) }
    }

    private func warpLaunch(_ binder: CUDABinder, _ input: DeviceRows) -> KernelLaunch {
        var arguments = ArgumentBytes()
        arguments.add(input)
        addTask(binder, to: &arguments)
        let tile = warpTile(binder.memory.target)
        var defines = kernelDefines
        defines["STAGES"] = "\(tile.stages)"
        defines["TOKENS"] = "\(tile.tokens)"
        let tiles = prefillTiles(of: tile.tokens)
        return KernelLaunch(
            module: KernelModule("prefill/linear_mma.cu", defines), kernel: "linear_prefill_mma",
            arguments: arguments, block: tile.tokens
        ) { (tiles($0), 1, 1) }
    }

    /// Arguments behind the input.
    private func addTask(_ binder: CUDABinder, to arguments: inout ArgumentBytes) {
        arguments.add(binder.memory.inputs.counts)
        arguments.add(rows: x.rows)
        arguments.add(y)
        arguments.add(residual)
        arguments.add(weight.codes)
        arguments.add(weight.codes + UInt64(layout.scaleStart))
        arguments.add(weight.codes + UInt64(layout.zeroStart))
        arguments.add(bias?.address ?? 0)
    }

    /// Tiles of 128 rows of the weight and so many tokens.
    private func prefillTiles(of tokens: Int) -> @Sendable (Dimension.Values) -> Int {
        let (rows, rowTiles) = (x.rows, (outputs + 127) / 128)
        return { rowTiles * (((rows.evaluate($0) ?? 0) + tokens - 1) / tokens) }
    }

    /// x, normalized or as it is, in the type that the product takes.
    private func rowLaunch(_ binder: CUDABinder, to target: DeviceRows) throws -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(rows: x.rows)
        arguments.add(x)
        arguments.add(target)
        let gamma = try norm.map { try binder.memory.converted($0.gamma, to: x.type) }
        arguments.add(gamma?.address ?? 0)
        arguments.add(binder.memory.inputs.overflow)
        arguments.add(norm?.epsilon ?? 0)
        let (rows, vectors) = (x.rows, (x.columns + 2047) / 2048)
        let isNorm = norm != nil
        return KernelLaunch(
            module: KernelModule(
                "prefill/rows.cu",
                [
                    "ACTIVATION": DeviceType.define(x.type),
                    "RESULT": DeviceType.define(target.type), "COLUMNS": "\(x.columns)",
                ]), kernel: isNorm ? "norm_prefill" : "cast_prefill", arguments: arguments,
            block: 256
        ) { (rows.evaluate($0) ?? 0, isNorm ? 1 : vectors, 1) }
    }
}

/// A kind of `linear_prefill`: tokens of a tile, and whether blocks share the last tiles.
struct PrefillTile: Equatable {
    let tokens: Int
    let isShared: Bool
    /// Boxes of x in shared memory; chunks of a weight of numbers, and of one of codes.
    let stages: Int
    let weightStages: Int
    let codeStages: Int

    /// Multiprocessors of an H100.
    static let multiprocessors = 132
    /// Rows up to which blocks share tiles: of many turns the last one costs little.
    private static let sharedLimit = 1024

    static let alone = PrefillTile(
        tokens: 256, isShared: false, stages: 4, weightStages: 5, codeStages: 4)
    private static let shared = [
        PrefillTile(tokens: 128, isShared: true, stages: 6, weightStages: 7, codeStages: 5),
        PrefillTile(tokens: 192, isShared: true, stages: 5, weightStages: 5, codeStages: 4),
        PrefillTile(tokens: 256, isShared: true, stages: 4, weightStages: 5, codeStages: 4),
    ]
    static let all = shared + [alone]

    /// The kind for a count of rows: the fewest tokens past the last row, the largest of those.
    static func best(_ rows: Int) -> PrefillTile {
        if rows > sharedLimit { return alone }
        if rows <= shared[0].tokens { return shared[0] }
        func padded(_ tile: PrefillTile) -> Int {
            (rows + tile.tokens - 1) / tile.tokens * tile.tokens
        }
        return padded(shared[1]) < padded(shared[2]) ? shared[1] : shared[2]
    }
}
