// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A kind of `linear_prefill`: tokens of a tile, and how blocks share tiles and weights.
struct PrefillTile: Equatable {
    let tokens: Int
    /// Whether blocks share the last tiles along k.
    let isShared: Bool
    /// Blocks with different tokens that bring a weight together.
    let cluster: Int
    /// Chunks in shared memory of a weight of numbers, and of one of codes.
    let numberStages: Int
    let codeStages: Int
    /// Nanoseconds that 64 k of a shared tile take on an H100 (`time`).
    let chunkTime: Int

    /// Sizes of a linear.
    struct Shape {
        let inputs: Int
        /// Rows of the weight.
        let outputs: Int
    }

    /// Multiprocessors of an H100.
    static let multiprocessors = 132
    /// Boxes of x in shared memory.
    static let stages = 4
    /// Rows up to which blocks share tiles: of many turns the last one costs little.
    static let sharedLimit = 1024

    static let alone = PrefillTile(
        tokens: 256, isShared: false, cluster: 1, numberStages: 5, codeStages: 4, chunkTime: 0)
    /// Two blocks convert the same codes twice: a block takes up to so many rows alone.
    private static let whole = sizes.filter(\.isWhole).map { shared($0, cluster: 1) }
    private static let halves = sizes.filter(\.isHalf).map { shared($0, cluster: 2) }

    private static func shared(_ size: Size, cluster: Int) -> PrefillTile {
        PrefillTile(
            tokens: size.tokens, isShared: true, cluster: cluster, numberStages: size.numbers,
            codeStages: size.codes, chunkTime: size.time)
    }
    /// `numberStages`, `codeStages`, `chunkTime`, and whether it is for one block, and for one of two.
    private typealias Size = (
        tokens: Int, numbers: Int, codes: Int, time: Int, isWhole: Bool, isHalf: Bool
    )
    private static let sizes: [Size] = [
        (64, 11, 8, 315, false, true), (80, 10, 8, 348, true, false), (96, 9, 8, 381, true, true),
        (112, 9, 7, 415, false, true),
        (128, 9, 7, 450, true, true), (160, 7, 6, 548, true, true), (176, 7, 6, 590, true, false),
        (192, 7, 5, 645, true, true), (208, 6, 5, 700, true, false), (256, 4, 4, 880, false, true),
    ]

    /// The kind for a count of rows up to `sharedLimit`.
    fileprivate static func best(_ rows: Int, _ shape: Shape, isCodes: Bool) -> PrefillTile {
        let fitting = isCodes ? whole.filter { rows <= $0.tokens } : []
        return (fitting + halves).min { $0.time(rows, shape) < $1.time(rows, shape) } ?? alone
    }

    /// Nanoseconds of a linear, less those of any: the chunks of a block, and the parts that a tile has beside its first.
    ///
    /// Fitted to 1,020 times of the four linears of `baichuan2-7b` on an H100, 96 to 512 rows in bf16, int8 and int4 (7 % root mean
    /// square; 80, 112, 176 and 208 tokens lie between their neighbours): what it picks takes 0.6 % more than the best of each linear, of int8 up to
    /// 1,024 rows with all kinds, measured later, 0.1 %. How tiles are dealt: `linear_shares.cuh`.
    private func time(_ rows: Int, _ shape: Shape) -> Int {
        let tokenTiles = (rows + tokens * cluster - 1) / (tokens * cluster) * cluster
        let groups = Self.multiprocessors / tokenTiles
        let (rowTiles, chunks) = ((shape.outputs + 127) / 128, (shape.inputs + 63) / 64)
        let rest = rowTiles % groups
        let left = rowTiles < groups ? rest : rest + groups
        let most = left * shape.inputs / 512
        if rest == 0 || rest * 8 >= groups * 7 || most <= left {
            return (rowTiles + groups - 1) / groups * chunks * chunkTime
        }
        let share = left * chunks / min(most, groups)
        let parts = 1000 * max(chunks, share) / share
        return ((rowTiles - left) / groups * chunks + share) * chunkTime
            + parts * (1900 + 7 * tokens) / 1000
    }
}

/// The kinds that a linear has, by its rows.
struct PrefillTiles {
    /// All that some count of rows wants, `alone` last.
    let kinds: [PrefillTile]
    /// Which of them, by sixteens of rows.
    private let choices: [Int]
    private static let step = 16

    /// - Parameters:
    ///   - isCodes: Whether weights become numbers in the kernel.
    ///   - isDeterministic: Whether one kind takes all: shared tiles and tiles of other sizes may add up in another order.
    init(_ shape: PrefillTile.Shape, isCodes: Bool, isDeterministic: Bool) {
        guard !isDeterministic else {
            kinds = [.alone]
            choices = []
            return
        }
        let best = stride(from: Self.step, through: PrefillTile.sharedLimit, by: Self.step).map {
            PrefillTile.best($0, shape, isCodes: isCodes)
        }
        var kinds: [PrefillTile] = []
        for kind in best where !kinds.contains(kind) { kinds.append(kind) }
        choices = best.map { kinds.firstIndex(of: $0) ?? kinds.count }
        self.kinds = kinds + [.alone]
    }

    /// Which of the kinds a count of rows wants.
    func choice(_ rows: Int) -> Int {
        let place = max(rows - 1, 0) / Self.step
        return place < choices.count ? choices[place] : kinds.count - 1
    }
}
