// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension FragmentLinear {
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

    /// `linear_prefill`, or `linear_prefill_mma` where a GPU has no warpgroups, with a norm in front where no other linear shares it.
    func prefillLaunches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        var (prepared, input) = try preparedInput(binder)
        guard binder.memory.target.hasWarpgroups else {
            return prepared + [warpLaunch(binder, input)]
        }
        let tiles = PrefillTiles(
            PrefillTile.Shape(inputs: layout.inputs, outputs: outputs),
            isCodes: layout.scheme != nil,
            isDeterministic: binder.memory.isDeterministic)
        let rows = x.rows
        if scaledInput != nil {
            prepared = prepared.map { launch in
                launch.limited { (rows.evaluate($0) ?? 0) > PrefillTile.sharedLimit }
            }
        }
        return try prepared
            + tiles.kinds.enumerated().map { index, tile in
                try warpgroupLaunch(
                    binder, tile.isShared ? scaledInput ?? input : input, tile
                ).limited { tiles.choice(rows.evaluate($0) ?? 0) == index }
            }
    }

    /// x as products of many rows take it, normalized, and what makes it so.
    func preparedInput(
        _ binder: CUDABinder
    ) throws -> (launches: [KernelLaunch], input: DeviceRows) {
        guard let norm else { return ([], x) }
        let input = try scratch(
            binder, columns: x.columns, type: x.type, for: "inputs of products")
        return ([try normLaunch(binder, norm, to: input)], input)
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
        let shared = tile.isShared ? shared : nil
        let rows = min(
            x.rows.evaluate(binder.memory.limits.dimensions) ?? 0, shared?.rowLimit ?? .max)
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
            arguments.add(shared, parts: shared?.prefillParts ?? 0)
        }
        var defines = kernelDefines
        defines["TOKENS"] = "\(tile.tokens)"
        defines["SHARED"] = tile.isShared ? "1" : "0"
        defines["CLUSTER"] = "\(tile.cluster)"
        for (name, value) in SharedNorm.Side.defines(shared?.side) { defines[name] = "\(value)" }
        defines["STAGES"] = "\(PrefillTile.stages)"
        defines["WEIGHT_STAGES"] = "\(layout.scheme == nil ? tile.numberStages : tile.codeStages)"
        let tiles = prefillTiles(of: tile.tokens)
        return KernelLaunch(
            module: KernelModule("prefill/linear.cu", defines), kernel: "linear_prefill",
            arguments: arguments, block: 384, isSizedByCode: true
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
            arguments: arguments, block: tile.tokens, isSizedByCode: true
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

    private func normLaunch(
        _ binder: CUDABinder, _ norm: (gamma: DeviceVector, epsilon: Float), to target: DeviceRows
    ) throws -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(rows: x.rows)
        arguments.add(x)
        arguments.add(target)
        arguments.add(try binder.memory.converted(norm.gamma, to: x.type).address)
        arguments.add(norm.epsilon)
        let rows = x.rows
        return KernelLaunch(
            module: KernelModule(
                "prefill/rows.cu",
                ["ACTIVATION": DeviceType.define(x.type), "COLUMNS": "\(x.columns)"]),
            kernel: "norm_prefill", arguments: arguments, block: 256
        ) { (rows.evaluate($0) ?? 0, 1, 1) }
    }
}
