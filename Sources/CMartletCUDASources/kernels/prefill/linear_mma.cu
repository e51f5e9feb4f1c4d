// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// linear_prefill_mma: y = epilogue(x W^T) for many rows of x, weights in the layout `mma16x16`, with the matrix
// instructions of single warps, for GPUs before sm_90.
//
// FLOP 2 T K N; floor: FLOP / rate of large bf16 products (G), of which these instructions reach 62 % on an H100.
// Measured there as compute_80 PTX, linears of a baichuan2-7b layer, 2,048 and 8,192 tokens: bf16 54, 55 %, int8 44, 46 %, int4 g128
// 42, 45 % of G.
// A block computes a tile of 128 weight rows x TOKENS tokens, each warp 64 x 64 of it. Boxes of 64 k come
// by cp.async, some ahead: x swizzled for ldmatrix, the weight as it lies in memory, where a lane's 16 bytes are
// its operands. Operands of the next 16 k are read between the products of the present ones, over the boxes'
// ends too, and a quarter of a later box is asked for between them. Results leave transposed through shared memory.
// Numerics: f32 sums. Codes become numbers of the type of x; those of grouped schemes are scaled before they are
// multiplied, rounded once, beside bf16 their scales too; per-channel scales are applied to the sums.
//
//   WEIGHT GROUP ZERO        format of the weight (mma16x16.cuh); GROUP 0: per channel
//   ACTIVATION               type of x, in which weights are multiplied
//   RESULT                   type of bias, residual and y
//   INPUTS OUTPUTS           K, and rows of the weight (gate and up together count twice)
//   GATED                    0; 1: y = silu(gate) up, rows `paired8`; 2: gelu(gate) up, tanh form
//   BIAS RESIDUAL            0 or 1
//   TOKENS                   of a tile: 256, or 128, of which two blocks share a multiprocessor
//   STAGES                   boxes in shared memory, 2 or more
//   INTERLEAVE               of the layout, or 0
#include "weight_tiles.cuh"
#include "ampere.cuh"

struct PrefillLinearArguments {
    Rows x;                // [T, K]
    const StepCounts* step;
    RowCount rows;
    Rows y, residual;
    const u8* weight;
    const float* scales;   // [strips x 16], per-channel schemes
    const float* zeros;
    const void* bias;      // [N]
};

namespace {
constexpr int warp_strips = 4, warp_tokens = 64, token_warps = tile_tokens / warp_tokens;
constexpr int threads = tile_strips / warp_strips * token_warps * 32;
constexpr int strip_bytes = box_words * 512 + (grouped ? box_groups * group_bytes : 0);  // of a box
constexpr int x_bytes = tile_tokens * box_k * 2, stage_bytes = x_bytes + tile_strips * strip_bytes;
constexpr int columns = GATED ? 32 : 64;    // results of a token in a warp
constexpr int pitch = columns * 2 + 16;     // of results on their way out, spread over the banks
constexpr int staging_bytes = threads / 32 * warp_tokens * pitch;
constexpr int shared_bytes = STAGES * stage_bytes > staging_bytes ? STAGES * stage_bytes : staging_bytes;
extern __shared__ __align__(128) u8 shared[];

/// The block's tile, and how its boxes come: in four parts, between whose copies others multiply.
struct Loader {
    const PrefillLinearArguments& a;
    const Tile tile;
    const int tokens;
    static constexpr int vectors = strip_bytes / 16, count = tile_strips * vectors;  // 16 bytes each, of weights
    static constexpr int x_turns = tile_tokens * 8 / threads, weight_turns = (count + threads - 1) / threads;
    const u16* x;        // this thread's row and vector
    u32 x_place, there;  // their place in a box; which of its rows there are

    __device__ __forceinline__ Loader(const PrefillLinearArguments& a, Tile tile, int tokens)
        : a(a), tile(tile), tokens(tokens) {
        const int row = threadIdx.x / 8, vector = threadIdx.x % 8;
        x = (const u16*)a.x.base + (i64)(tile.token + row) * a.x.stride + vector * 8;
        x_place = row * 128 + (vector ^ row & 7) * 16;
        // Of rows that are not there no bytes are read.
        there = 0;
#pragma unroll
        for (int i = 0; i < x_turns; ++i) there |= (u32)(tile.token + row + i * (threads / 8) < tokens) << (i + 4);
        if (there == 0) x = (const u16*)a.x.base + vector * 8;
    }
    /// Asks for a part of a box.
    __device__ __forceinline__ void ask(int box, u32 stage, int part, bool is_wanted) const {
        const i64 pitch = there >> 5 ? a.x.stride * (threads / 8) : 0;
#pragma unroll
        for (int i = x_turns * part / 4; i < x_turns * (part + 1) / 4; ++i) {
            copy_some(stage + x_place + i * threads * 16, x + box * box_k + i * pitch, there >> i & 16, is_wanted);
        }
#pragma unroll
        for (int i = weight_turns * part / 4; i < weight_turns * (part + 1) / 4; ++i) {
            const int index = i * threads + threadIdx.x;
            // Whole strips for all threads at once, where that is so.
            const int place = vectors % threads == 0 ? i * threads / vectors : index / vectors;
            const int vector = vectors % threads == 0 ? i * threads % vectors + (int)threadIdx.x : index % vectors;
            const Strip strip(tile.place + place);
            const u8* chunk = a.weight + (strip.chunk + box / chunk_boxes * strip.stride) * chunk_bytes;
            int at = box % chunk_boxes * box_words * 512 + vector * 16;
            if (grouped && vector >= box_words * 32) {
                at = words * 512 + first_group(box % chunk_boxes) * group_bytes + (vector - box_words * 32) * 16;
            }
            copy_some(stage + x_bytes + index * 16, chunk + at, 16,
                is_wanted && (count % threads == 0 || index < count) && (strips % tile_strips == 0 || tile.place + place < strips));
        }
    }
    __device__ __forceinline__ void ask(int box, u32 stage) const {
#pragma unroll
        for (int part = 0; part < 4; ++part) ask(box, stage, part, true);
    }
};

/// A warp's operands and sums.
struct Products {
    float c[warp_strips][warp_tokens / 8][4];
    u32 a[2][warp_strips][4], b[warp_tokens / 16][4];
    Word codes[warp_strips];
    GroupScale scales[grouped ? warp_strips : 1];
    const int lane, strip, token;  // of the tile, where this warp's begin

    __device__ __forceinline__ Products()
        : lane(lane_index()), strip(warp_index() / token_warps * warp_strips), token(warp_index() % token_warps * warp_tokens) {
#pragma unroll
        for (int i = 0; i < warp_strips; ++i) {
#pragma unroll
            for (int j = 0; j < warp_tokens / 8; ++j) c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0;
        }
    }

    /// Reads 16 tokens and 16 k of a box.
    __device__ __forceinline__ void read_tokens(u32 stage, int k, int i) {
        // Matrices of 8 tokens and 8 k: lanes 8 to 15 and 24 to 31 have the later k.
        const u32 row = stage + (token + i * 16 + (lane >> 4) * 8 + (lane & 7)) * 128;
        load_matrices(b[i], row + (k * 2 + (lane >> 3 & 1) ^ lane & 7) * 16);
    }
    /// Reads a strip's word that begins with 16 k of a box, and the scales of their group.
    __device__ __forceinline__ void read_strip(u32 stage, int k, int i) {
        const u32 weight = stage + x_bytes + (strip + i) * strip_bytes;
        if (k % word_tiles == 0) codes[i] = shared_word(weight + k / word_tiles * 512 + lane * 16);
        if (grouped && k % (4 / box_groups) == 0) {
            scales[grouped ? i : 0] = GroupScale(weight + box_words * 512 + k * box_groups / 4 * group_bytes, lane);
        }
    }
    __device__ __forceinline__ void convert(int k, int i) {
        numbers(a[k & 1][i], codes[i], k % word_tiles);
        if (grouped) scales[grouped ? i : 0].apply(a[k & 1][i]);
    }
    /// The first operands.
    __device__ __forceinline__ void read(u32 stage) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            read_tokens(stage, 0, i);
            read_strip(stage, 0, i);
            convert(0, i);
        }
    }

    /// Multiplies 16 k, and reads the next ones between the products, each where its place has become free.
    template <typename Between>
    __device__ __forceinline__ void multiply(int k, u32 next_stage, bool has_next, Between between) {
        const int next = (k + 1) % 4;
        // Codes come before the first products, and are converted behind later ones.
#pragma unroll
        for (int i = 0; i < warp_strips && quantized; ++i) {
            if (has_next) read_strip(next_stage, next, i);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int i = 0; i < warp_strips; ++i) {
                const u32(&w)[4] = a[k & 1][i];
                mma<math>(c[i][2 * j], w[0], w[1], w[2], w[3], b[j][0], b[j][1]);
                mma<math>(c[i][2 * j + 1], w[0], w[1], w[2], w[3], b[j][2], b[j][3]);
            }
            between(j);
            if (!has_next) continue;
            read_tokens(next_stage, next, j);
            if (!quantized) {
                read_strip(next_stage, next, j);
                convert(next, j);
            } else {
                if (j == 1) convert(next, 0);
                if (j > 0) convert(next, j);
            }
        }
    }

    /// Sums become results, which leave through shared memory, where rows become columns.
    __device__ __forceinline__ void finish(const Loader& of) const {
        const PrefillLinearArguments& a = of.a;
        const int outputs = GATED ? OUTPUTS / 2 : OUTPUTS, first_place = of.tile.place + strip;
        const u32 staging = shared_address(shared) + warp_index() * warp_tokens * pitch;
#pragma unroll
        for (int i = 0; i < warp_strips; ++i) {
            const int index = Strip(first_place + i).index, row = index * 16 + (lane >> 2);
            const bool is_strip = first_place + i < strips;
            float scale[2] = {1, 1}, bias[2] = {0, 0};
            if (quantized && !grouped && is_strip) scale[0] = a.scales[row], scale[1] = a.scales[row + 8];
#if BIAS
            const int place = GATED ? index * 8 + (lane >> 2) : row;
            if (is_strip && place < outputs) bias[0] = load<RESULT>(a.bias, place);
            if (is_strip && (GATED ? place < outputs : row + 8 < outputs)) {
                bias[1] = load<RESULT>(a.bias, GATED ? outputs + place : row + 8);
            }
#endif
            const u32 at = staging + (lane >> 2) * pitch + i * (columns / 2) + (lane & 3) * 4;
#pragma unroll
            for (int j = 0; j < warp_tokens / 8; ++j) {
                const float(&s)[4] = c[i][j];
                float low[2] = {s[0] * scale[0] + bias[0], s[1] * scale[0] + bias[0]};
                float high[2] = {s[2] * scale[1] + bias[1], s[3] * scale[1] + bias[1]};
#if GATED
                shared_put(at + j * 8 * pitch,
                    transpose(pack_pair<RESULT>(gated(low[0], high[0]), gated(low[1], high[1]))));
#else
                shared_put(at + j * 8 * pitch, transpose(pack_pair<RESULT>(low[0], low[1])));
                shared_put(at + j * 8 * pitch + 16, transpose(pack_pair<RESULT>(high[0], high[1])));
#endif
            }
        }
        __syncwarp();
        // A vector of 8 results is half a strip, or the whole one where gate and up became one.
        constexpr int vectors = columns / 8, at_once = 32 / vectors;
        const int vector = lane % vectors, own_place = first_place + vector / (GATED ? 1 : 2);
        const int index = Strip(own_place).index, column = GATED ? index * 8 : index * 16 + vector % 2 * 8;
        if (own_place >= strips || column >= outputs) return;
#pragma unroll 4
        for (int i = lane / vectors; i < warp_tokens; i += at_once) {
            const i64 row = of.tile.token + token + i;
            if (row >= of.tokens) return;
            Word v = shared_word(staging + i * pitch + vector * 16);
#if RESIDUAL
            Word r = load_fresh((u16*)a.residual.base + row * a.residual.stride + column);
            u32* to = &v.x;
            const u32* from = &r.x;
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                to[k] = pack_pair<RESULT>(low_half<RESULT>(to[k]) + low_half<RESULT>(from[k]),
                    high_half<RESULT>(to[k]) + high_half<RESULT>(from[k]));
            }
#endif
            *(Word*)((u16*)a.y.base + row * a.y.stride + column) = v;
        }
    }
};
}  // namespace

/// Shared memory and threads of a block.
extern "C" __device__ const u32 linear_prefill_mma_launch[2] = {shared_bytes, threads};

extern "C" __global__ void __launch_bounds__(threads, 256 / threads)
    linear_prefill_mma(const __grid_constant__ PrefillLinearArguments a) {
    wait_for_producers();
    release_dependents();
    const int tokens = a.rows.of(a.step), token_tiles = (tokens + tile_tokens - 1) / tile_tokens;
    if ((int)blockIdx.x >= row_tiles * token_tiles) return;
    const Loader loader(a, Tile::of(blockIdx.x, token_tiles), tokens);
    const u32 base = shared_address(shared);
#pragma unroll
    for (int i = 0; i < STAGES; ++i) {
        if (i < boxes) loader.ask(i, base + i * stage_bytes);
        copies_commit();
    }
    Products products;
    copies_wait<STAGES - 1>();
    __syncthreads();
    products.read(base);
    u32 present = base;
#pragma unroll 1
    for (int i = 0; i < boxes; ++i) {
#pragma unroll
        for (int k = 0; k < 3; ++k) products.multiply(k, present, true, [](int) {});
        copies_wait<STAGES - 2>();
        __syncthreads();  // the next box is here, and all have read this one, whose place is asked for now
        const u32 free = present;
        present = present == base + (STAGES - 1) * stage_bytes ? base : present + stage_bytes;
        products.multiply(3, present, i + 1 < boxes, [&](int part) { loader.ask(i + STAGES, free, part, i + STAGES < boxes); });
        copies_commit();
    }
    products.finish(loader);
}
