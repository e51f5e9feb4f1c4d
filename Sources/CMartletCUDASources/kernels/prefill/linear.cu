// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// linear_prefill: y = epilogue(x W^T) for many rows of x, weights in the layout `mma16x16`, sm_90a.
//
// FLOP 2 T K N; floor: FLOP / rate of large bf16 products (G). Bytes matter little from 300 tokens on.
// Measured on an H100 80GB, linears of the baichuan2-7b shape summed, share of G (781 to 791 TF):
// 2,048 tokens bf16 82 to 84 (QKV 93, O 76, gate/up 85, down 80), int8 85, int4 g128 85;
// 8,192 tokens bf16 85.4, int8 87.3, int4 87.1; cuBLAS bf16 in the same runs 83 to 87, and 89.
// O has two tiles a block, so that filling and emptying the rings shows most. What sharing brings: linear_shares.cuh.
// Persistent blocks of two consumer warpgroups and a producer warp. A tile is 128 weight rows x TOKENS tokens:
// each warpgroup multiplies its 64 rows, the A operand, from registers (codes become numbers there) by the
// tokens, the B operand, in shared memory. Two rings feed them: boxes of 64 k of x, swizzled, and chunks of
// the weight as they lie in memory. Results leave transposed through shared memory.
// A chunk is given back by all lanes, behind the products that read it: given back by one lane behind its loads it was
// overwritten before other loads had ended (tiles of 192: 29 of 600 launches wrong; racecheck names it).
// Numerics: f32 sums. Codes of grouped schemes are scaled before they are multiplied, rounded to f16 once;
// per-channel scales are applied to the sums. Quantized weights want x in f16.
//
//   WEIGHT GROUP ZERO        format of the weight (mma16x16.cuh); GROUP 0: per channel
//   RESULT                   type of bias, residual and y; x has the type that weights are multiplied in
//   INPUTS OUTPUTS           K, and rows of the weight (gate and up together count twice)
//   GATED                    0; 1: y = silu(gate) up, rows `paired8`; 2: gelu(gate) up, tanh form
//   BIAS RESIDUAL            0 or 1
//   TOKENS                   of a tile: 128, 192 or 256
//   SHARED                   1: blocks share the last tiles along k (linear_shares.cuh)
//   STAGES WEIGHT_STAGES     depths of the rings
//   INTERLEAVE               of the layout, or 0
#include "linear_shares.cuh"

struct PrefillLinearArguments {
    TensorMap x;           // [T, K], box TOKENS rows x 64
    const StepCounts* step;
    RowCount rows;
    Rows y, residual;
    const u8* weight;
    const float* scales;   // [strips x 16], per-channel schemes
    const float* zeros;
    const void* bias;      // [N]
#if SHARED
    Sums sums;             // of tiles that are shared out along k
#endif
};

namespace {
constexpr int box_bytes = tile_tokens * box_k * 2;
constexpr int weight_bytes = tile_strips * chunk_bytes;
constexpr int consumers = 2;

// Shared memory, from a multiple of 1024.
constexpr int weights_at = STAGES * box_bytes;
constexpr int staging_pitch = 64 * 2 + 16;  // 64 rows of a token, spread over the banks
constexpr int staging_at = weights_at + WEIGHT_STAGES * weight_bytes;
constexpr int staging_bytes = 64 * staging_pitch;
constexpr int barriers_at = staging_at + consumers * staging_bytes;
constexpr int shared_bytes = barriers_at + (STAGES + WEIGHT_STAGES) * 16;
static_assert(shared_bytes <= 227 << 10, "the rings do not fit a block's shared memory");
extern __shared__ __align__(1024) u8 shared[];

/// Place in a ring: stage and the parity of its turn.
template <int DEPTH> struct Turn {
    int stage = 0;
    u32 parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == DEPTH) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct Barriers {
    u32 base;
    __device__ __forceinline__ u32 box_full(int i) const { return base + i * 16; }
    __device__ __forceinline__ u32 box_free(int i) const { return base + i * 16 + 8; }
    __device__ __forceinline__ u32 weight_full(int i) const { return base + (STAGES + i) * 16; }
    __device__ __forceinline__ u32 weight_free(int i) const { return base + (STAGES + i) * 16 + 8; }
};

/// The operands of four matrix instructions, 64 k, of a warp's strip: `box` of the chunk at an address.
struct Fragments {
    u32 a[4][4];

    __device__ __forceinline__ void load(u32 chunk, int box, int lane) {
#pragma unroll
        for (int i = 0; i < 4; i += word_tiles) {
            Word w = shared_word(chunk + (box * box_words + i / word_tiles) * 512 + lane * 16);
#pragma unroll
            for (int part = 0; part < word_tiles; ++part) numbers(a[i + part], w, part);
        }
        if (!grouped) return;
#pragma unroll
        for (int i = 0; i < 4; i += 4 / box_groups) {
            GroupScale scale(chunk + words * 512 + (first_group(box) + i * box_groups / 4) * group_bytes, lane);
#pragma unroll
            for (int j = i; j < i + 4 / box_groups; ++j) scale.apply(a[j]);
        }
    }
};

/// Boxes of x up to the end of a part.
__device__ __forceinline__ int last_box(const Part& part) {
    int end = (part.first + part.count) * chunk_boxes;
    return end < boxes ? end : boxes;
}

/// Brings x and the weight, part after part. One warp: a lane for each strip.
__device__ __forceinline__ void produce(const PrefillLinearArguments& a, Barriers barriers, int tokens) {
    const int lane = threadIdx.x;
    u32 base = shared_address(shared);
    int token_tiles = (tokens + tile_tokens - 1) / tile_tokens;
    Turn<STAGES> box;
    Turn<WEIGHT_STAGES> weight;
    Work work{row_tiles * token_tiles};
    for (Part part; work.take(part);) {
        const Tile at(part.tile, token_tiles);
        int count = strips - at.place < tile_strips ? strips - at.place : tile_strips;
        Strip strip(at.place + lane);
        for (int i = part.first * chunk_boxes, end = SHARED ? last_box(part) : boxes; i < end; ++i) {
            if (i % chunk_boxes == 0) {
                barrier_wait(barriers.weight_free(weight.stage), weight.parity ^ 1);
                u32 full = barriers.weight_full(weight.stage);
                if (lane == 0) barrier_expect(full, count * chunk_bytes);
                __syncwarp();
                if (lane < count) {
                    u32 target = base + weights_at + weight.stage * weight_bytes + lane * chunk_bytes;
                    copy_bytes(target, a.weight + (strip.chunk + i / chunk_boxes * strip.stride) * chunk_bytes,
                        chunk_bytes, full);
                }
                weight.next();
            }
            if (lane == 0) {
                barrier_wait(barriers.box_free(box.stage), box.parity ^ 1);
                barrier_expect(barriers.box_full(box.stage), box_bytes);
                copy_box(base + box.stage * box_bytes, &a.x, i * box_k, at.token,
                    barriers.box_full(box.stage));
            }
            box.next();
        }
    }
}

/// Sums of a warpgroup's 64 rows and a tile's tokens become results.
///
/// 64 tokens at a time go through shared memory, where rows become columns.
__device__ __forceinline__ void finish(const PrefillLinearArguments& a, float (&c)[tile_tokens / 2], int group,
    int first_place, int first_token, int tokens) {
    constexpr int columns = GATED ? 32 : 64;  // results of a token in this warpgroup
    const int thread = threadIdx.x & 127, warp = thread >> 5, lane = thread & 31;
    const int outputs = GATED ? OUTPUTS / 2 : OUTPUTS;
    u32 staging = shared_address(shared) + staging_at + group * staging_bytes;
    const int strip = Strip(first_place + warp).index;
    const bool is_strip = first_place + warp < strips;
    int row = strip * 16 + (lane >> 2);
    float scale[2] = {1, 1};
    if (quantized && !grouped && is_strip) {
        scale[0] = a.scales[row];
        scale[1] = a.scales[row + 8];
    }
    float bias[2] = {0, 0};
#if BIAS
    int place = GATED ? strip * 8 + (lane >> 2) : row;
    if (is_strip && place < outputs) bias[0] = load<RESULT>(a.bias, place);
    if (is_strip && (GATED ? place < outputs : row + 8 < outputs)) {
        bias[1] = load<RESULT>(a.bias, GATED ? outputs + place : row + 8);
    }
#endif
    constexpr int vectors = columns / 8, rounds = 64 * vectors / 128;
    // A vector of 8 results is half a strip, or the whole one where gate and up became one.
    const int own_place = first_place + thread % vectors / (GATED ? 1 : 2);
    const int first_column =
        GATED ? Strip(own_place).index * 8 : Strip(own_place).index * 16 + thread % 2 * 8;
    const bool inside = own_place < strips && first_column < outputs;
    // A part's residuals are on their way while the part before is written.
    Word residual[RESIDUAL ? 2 : 1][rounds];
    auto fetch = [&](int part) {
#if RESIDUAL
#pragma unroll
        for (int i = 0; i < rounds; ++i) {
            i64 y_row = first_token + part * 64 + i * (128 / vectors) + thread / vectors;
            if (y_row < tokens && inside) {
                residual[part & 1][i] = load_fresh(
                    (u8*)a.residual.base + (y_row * a.residual.stride + first_column) * 2);
            }
        }
#endif
    };
    fetch(0);
#pragma unroll
    for (int part = 0; part < tile_tokens / 64; ++part) {
        if (part + 1 < tile_tokens / 64) fetch(part + 1);
        // Transposed stores of 8 x 8: lane l gives the address of row l % 8 of matrix l / 8.
#pragma unroll
        for (int j = 0; j < 8; j += (GATED ? 4 : 2)) {
            u32 pair[4];
#pragma unroll
            for (int n = 0; n < (GATED ? 4 : 2); ++n) {
                float* s = &c[(part * 8 + j + n) * 4];
                float low[2] = {s[0] * scale[0] + bias[0], s[1] * scale[0] + bias[0]};
                float high[2] = {s[2] * scale[1] + bias[1], s[3] * scale[1] + bias[1]};
                if (GATED) {
                    pair[n] = pack_pair<RESULT>(gated(low[0], high[0]), gated(low[1], high[1]));
                } else {
                    pair[2 * n] = pack_pair<RESULT>(low[0], low[1]);
                    pair[2 * n + 1] = pack_pair<RESULT>(high[0], high[1]);
                }
            }
            int matrix = lane >> 3;
            int token = (j + (GATED ? matrix : matrix >> 1)) * 8 + (lane & 7);
            int column = GATED ? warp * 8 : warp * 16 + (matrix & 1) * 8;
            asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                             staging + token * staging_pitch + column * 2),
                "r"(pair[0]), "r"(pair[1]), "r"(pair[2]), "r"(pair[3]) : "memory");
        }
        group_barrier(1 + group, 128);
#pragma unroll
        for (int i = 0; i < rounds; ++i) {
            int token = i * (128 / vectors) + thread / vectors;
            i64 y_row = first_token + part * 64 + token;
            Word v = shared_word(staging + token * staging_pitch + thread % vectors * 16);
            if (y_row < tokens && inside) {
                u8* target = (u8*)a.y.base + (y_row * a.y.stride + first_column) * 2;
#if RESIDUAL
                u32* to = &v.x;
                const u32* from = &residual[part & 1][i].x;
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    to[k] = pack_pair<RESULT>(low_half<RESULT>(to[k]) + low_half<RESULT>(from[k]),
                        high_half<RESULT>(to[k]) + high_half<RESULT>(from[k]));
                }
#endif
                asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(target), "r"(v.x), "r"(v.y),
                    "r"(v.z), "r"(v.w) : "memory");
            }
        }
        group_barrier(1 + group, 128);
    }
}

__device__ __forceinline__ void consume(
    const PrefillLinearArguments& a, Barriers barriers, int group, int tokens) {
    const int warp = (threadIdx.x & 127) >> 5, lane = threadIdx.x & 31;
    u32 base = shared_address(shared);
    int token_tiles = (tokens + tile_tokens - 1) / tile_tokens;
    Turn<STAGES> box, done;
    Turn<WEIGHT_STAGES> weight;
    float c[tile_tokens / 2];
    Fragments fragments[2];
    Work work{row_tiles * token_tiles};
    for (Part part; work.take(part);) {
        const Tile at(part.tile, token_tiles);
        // The compiler must see that all lanes take as many turns: only then places and descriptors are uniform registers.
        const int count = SHARED ? __shfl_sync(~0u, last_box(part) - part.first * chunk_boxes, 0) : boxes;
#pragma unroll 2
        for (int i = 0; i < count; ++i) {
            int place = i % chunk_boxes;
            if (place == 0) barrier_wait(barriers.weight_full(weight.stage), weight.parity);
            u32 chunk = base + weights_at + weight.stage * weight_bytes + (group * 4 + warp) * chunk_bytes;
            fragments[i & 1].load(chunk, place, lane);
            barrier_wait(barriers.box_full(box.stage), box.parity);
            u64 b = swizzled_matrix(base + box.stage * box_bytes);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                wgmma_tile<math, tile_tokens>(c, fragments[i & 1].a[k], b + k * 2, i > 0 || k > 0);
            }
            wgmma_commit();
            if (place == chunk_boxes - 1 || i == count - 1) {
                // Products have begun, so that each lane has its operands; before, loads may still be under way.
                barrier_arrive(barriers.weight_free(weight.stage));
                weight.next();
            }
            box.next();
            if (i > 0) {
                wgmma_wait<1>();
                if ((threadIdx.x & 127) == 0) barrier_arrive(barriers.box_free(done.stage));
                done.next();
            }
        }
        wgmma_wait<0>();
        if ((threadIdx.x & 127) == 0) barrier_arrive(barriers.box_free(done.stage));
        done.next();
#if SHARED
        if (!part.is_begin()) {
            a.sums.put(c, group);
            continue;
        }
        if (!part.is_end()) a.sums.add_rest(c, work, part, group);
#endif
        finish(a, c, group, at.place + group * 4, at.token, tokens);
    }
}
}  // namespace

/// Shared memory and threads of a block.
extern "C" __device__ const u32 linear_prefill_launch[2] = {shared_bytes, 384};

extern "C" __global__ void __launch_bounds__(384, 1)
    linear_prefill(const __grid_constant__ PrefillLinearArguments a) {
    int group = threadIdx.x >> 7;
    Barriers barriers{shared_address(shared) + barriers_at};
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; ++i) {
            barrier_init(barriers.box_full(i), 1);
            barrier_init(barriers.box_free(i), consumers);
        }
        for (int i = 0; i < WEIGHT_STAGES; ++i) {
            barrier_init(barriers.weight_full(i), 1);
            barrier_init(barriers.weight_free(i), consumers * 128);
        }
        barrier_init_fence();
    }
    __syncthreads();
    wait_for_producers();
    int tokens = a.rows.of(a.step);
    if (group == 0) {
        give_registers<40>();
        if (threadIdx.x < 32) produce(a, barriers, tokens);
    } else {
        take_registers<232>();
        consume(a, barriers, group - 1, tokens);
    }
    release_dependents();
}
