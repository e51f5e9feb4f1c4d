// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// linear_prefill: y = epilogue(x W^T) for many rows of x, weights in the layout `mma16x16`, sm_90a.
//
// FLOP 2 T K N; floor: FLOP / rate of large bf16 products (G). Bytes matter little from 300 tokens on.
// Measured on an H100 80GB, linears of the baichuan2-7b shape summed, TFLOP/s of single launches and without pauses (where
// the chip lowers its clock for its limit of power): 2,048 tokens bf16 686 to 708, 649 to 656 (cuBLAS 623 to 650, 677 to 687),
// 8,192 tokens 745, 646 (769, 692); an 8192^3 product 781 to 796, 714 to 728. At a fixed clock QKV and down take 89 %, O and gate
// and up 81 % of the tensor cores' rate. One producer warp for both rings reached 583 to 590 without pauses: eight copies of a
// chunk stood before each box of x. Weights that the second cache does not give up first: 638 to 642.
// O has two tiles a block, so that filling and emptying the rings shows most. What sharing brings: linear_shares.cuh.
// Persistent blocks of two consumer warpgroups and a third of producers. A tile is 128 weight rows x TOKENS tokens:
// each warpgroup multiplies its 64 rows, the A operand, from registers (codes become numbers there) by the
// tokens, the B operand, in shared memory. Two rings feed them: boxes of 64 k of x, swizzled, and chunks of
// the weight as they lie in memory. In clusters a third warp of producers tells the other block which places are free, ahead of
// the copies: without it each chunk waited for a word from there. Results leave by prompt_results.cuh.
// A chunk is given back by all lanes, behind the products that read it: given back by one lane behind its loads it was
// overwritten before other loads had ended (tiles of 192: 29 of 600 launches wrong; racecheck names it).
// Numerics: f32 sums. Codes become numbers of the type of x; those of grouped schemes are scaled before they are
// multiplied, rounded once, beside bf16 their scales too; per-channel scales are applied to the sums.
//
//   WEIGHT GROUP ZERO        format of the weight (mma16x16.cuh); GROUP 0: per channel
//   ACTIVATION               type of x, in which weights are multiplied
//   RESULT                   type of bias, residual and y. f32: y alone
//   INPUTS OUTPUTS           K, and rows of the weight (gate and up together count twice)
//   GATED                    0; 1: y = silu(gate) up, rows `paired8`; 2: gelu(gate) up, tanh form
//   BIAS RESIDUAL            0 or 1
//   TOKENS                   of a tile: 64, 80, 96, 112, 128, 160, 176, 192, 208 or 256
//   SHARED                   1: blocks share the last tiles along k (linear_shares.cuh)
//   CLUSTER                  2, where SHARED: two blocks with the same weight and different tokens bring half of it each, for both
//   STAGES WEIGHT_STAGES     depths of the rings
//   INTERLEAVE               of the layout, or 0
//   FACTOR NEXT_NORM         0; 1, where SHARED: a norm in front or behind, without a kernel between (linear_norm.cuh)
#include "prompt_results.cuh"
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
    SharedNorm norm;       // in front where FACTOR, behind where NEXT_NORM
#endif
};

namespace {
constexpr int box_bytes = tile_tokens * box_k * 2;
constexpr int weight_bytes = tile_strips * chunk_bytes;
constexpr int consumers = 2, cluster = CLUSTER;

// Shared memory, from a multiple of 1024.
constexpr int weights_at = STAGES * box_bytes;
constexpr int staging_at = weights_at + WEIGHT_STAGES * weight_bytes;
constexpr int factors_at = staging_at + consumers * staging_bytes;  // of the tile's tokens
constexpr int barriers_at = factors_at + (FACTOR ? tile_tokens * 4 : 0);
constexpr int shared_bytes = barriers_at + STAGES * 16 + WEIGHT_STAGES * 24 + (SHARED ? consumers * 8 : 0) + (FACTOR ? 8 : 0);
static_assert(SHARED || !FACTOR && !NEXT_NORM, "a norm between linears is for shared tiles");
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
    __device__ __forceinline__ u32 weight_full(int i) const { return base + STAGES * 16 + i * 24; }
    __device__ __forceinline__ u32 weight_free(int i) const { return base + STAGES * 16 + i * 24 + 8; }
    /// The cluster's other block has this place free too.
    __device__ __forceinline__ u32 weight_free_there(int i) const { return base + STAGES * 16 + i * 24 + 16; }
    /// A warpgroup's sums of a tile that another block begins are laid down.
    __device__ __forceinline__ u32 sums_laid(int group) const { return base + STAGES * 16 + WEIGHT_STAGES * 24 + group * 8; }
    /// The factors of the block's tokens are there.
    __device__ __forceinline__ u32 factors_full() const { return sums_laid(consumers); }
};

/// Tiles of tokens; a cluster's blocks have one each.
__device__ __forceinline__ int token_tiles_of(int tokens) {
    return (tokens + tile_tokens * cluster - 1) / (tile_tokens * cluster) * cluster;
}

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

/// Brings boxes of x, part after part. One thread.
__device__ __forceinline__ void bring_boxes(const PrefillLinearArguments& a, Barriers barriers, int tokens) {
    const u32 base = shared_address(shared);
    Turn<STAGES> box;
    Work work{token_tiles_of(tokens)};
    for (Part part; work.take(part);) {
        const Tile at = work.at(part);
        for (int i = part.first * chunk_boxes, end = SHARED ? last_box(part) : boxes; i < end; ++i) {
            const u32 full = barriers.box_full(box.stage), target = base + box.stage * box_bytes;
            barrier_wait(barriers.box_free(box.stage), box.parity ^ 1);
            barrier_expect(full, box_bytes);
            copy_box(target, &a.x, i * box_k, at.token, full);
            box.next();
        }
    }
}

/// Brings chunks of the weight, part after part. A warp: a lane for each strip.
__device__ __forceinline__ void bring_chunks(const PrefillLinearArguments& a, Barriers barriers, int tokens) {
    const int lane = threadIdx.x & 31;
    const u32 base = shared_address(shared);
    const int rank = blockIdx.x % cluster;
    Turn<WEIGHT_STAGES> weight;
    Work work{token_tiles_of(tokens)};
    for (Part part; work.take(part);) {
        const Tile at = work.at(part);
        const int left = strips - at.place, count = left < tile_strips ? left : tile_strips;
        const Strip strip(at.place + lane);
        for (int i = part.first; i < part.first + part.count; ++i) {
            barrier_wait(barriers.weight_free(weight.stage), weight.parity ^ 1);
            const u32 full = barriers.weight_full(weight.stage);
            if (cluster > 1) barrier_wait(barriers.weight_free_there(weight.stage), weight.parity);
            if (lane == 0) barrier_expect(full, count * chunk_bytes);
            __syncwarp();
            if (lane < count && lane % cluster == rank) {
                const u32 target = base + weights_at + weight.stage * weight_bytes + lane * chunk_bytes;
                copy_bytes_once<cluster>(
                    target, a.weight + (strip.chunk + (i64)i * strip.stride) * chunk_bytes, chunk_bytes, full);
            }
            weight.next();
        }
    }
}

/// Tells the cluster's other block which places for the weight are free here. One thread.
__device__ __forceinline__ void announce_places(const PrefillLinearArguments& a, Barriers barriers, int tokens) {
    Turn<WEIGHT_STAGES> weight;
    Work work{token_tiles_of(tokens)};
    for (Part part; work.take(part);) {
        for (int i = 0; i < part.count; ++i) {
            barrier_wait(barriers.weight_free(weight.stage), weight.parity ^ 1);
            barrier_arrive_at(barriers.weight_free_there(weight.stage), blockIdx.x % cluster ^ 1);
            weight.next();
        }
    }
}

#if SHARED
/// Tells that this block's sums of a tile begun elsewhere are there, at most those of one part, while its warpgroups go on. One
/// thread.
__device__ __forceinline__ void announce_sums(const PrefillLinearArguments& a, Barriers barriers, int tokens) {
    Work work{token_tiles_of(tokens)};
    for (Part part; work.take(part);) {
        if (part.is_begin()) continue;
        for (int group = 0; group < consumers; ++group) {
            barrier_wait(barriers.sums_laid(group), 0);
            a.sums.announce(group);
        }
    }
}
#endif

#if FACTOR
/// Makes the factors of the block's tokens, which all its tiles have, while products are under way. A warp.
__device__ __forceinline__ void make_factors(const PrefillLinearArguments& a, Barriers barriers, int tokens) {
    const Work work{token_tiles_of(tokens)};
    const int first = work.at(Part{0, 0, 0}).token;
    for (int i = threadIdx.x & 31; i < tile_tokens; i += 32) {
        const float squares = first + i < tokens ? sum_of_squares(a.norm, first + i, 0, 1) : 0;
        ((float*)(shared + factors_at))[i] = norm_factor(a.norm, squares, INPUTS);
    }
    barrier_arrive(barriers.factors_full());
}
#endif

__device__ __forceinline__ void consume(
    const PrefillLinearArguments& a, Barriers barriers, int group, int tokens) {
    const int warp = (threadIdx.x & 127) >> 5, lane = threadIdx.x & 31;
    u32 base = shared_address(shared);
    Turn<STAGES> box, done;
    Turn<WEIGHT_STAGES> weight;
    float c[tile_tokens / 2];
    Fragments fragments[2];
    Work work{token_tiles_of(tokens)};
    Results<PrefillLinearArguments> results(a, base + staging_at + group * staging_bytes, base + factors_at, tokens);
    for (Part part; work.take(part);) {
        const Tile at = work.at(part);
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
            barrier_arrive(barriers.sums_laid(group));
            continue;
        }
        if (!part.is_end()) a.sums.add_rest(c, work, part, group);
#endif
        if (FACTOR) barrier_wait(barriers.factors_full(), 0);
        results.put(c, at, group);
    }
}
}  // namespace

/// Shared memory and threads of a block.
extern "C" __device__ const u32 linear_prefill_launch[2] = {shared_bytes, 384};

extern "C" __global__ void
#if CLUSTER > 1
    __cluster_dims__(CLUSTER, 1, 1)
#endif
    __launch_bounds__(384, 1) linear_prefill(const __grid_constant__ PrefillLinearArguments a) {
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
            barrier_init(barriers.weight_free_there(i), 1);
        }
        for (int i = 0; SHARED && i < consumers; ++i) barrier_init(barriers.sums_laid(i), 128);
        if (FACTOR) barrier_init(barriers.factors_full(), 32);
        barrier_init_fence();
    }
    if (cluster > 1) cluster_meet();
    else __syncthreads();
    // Blocks of the kernel behind take the places of those that end; all of its first weights come meanwhile.
    release_dependents();
    if (group == 0) {
        give_registers<40>();
        if (threadIdx.x == 0) {
            wait_for_producers();
            bring_boxes(a, barriers, a.rows.of(a.step));
        }
        if (threadIdx.x >= 32 && threadIdx.x < 64) bring_chunks(a, barriers, a.rows.of(a.step));
        if (cluster > 1 && threadIdx.x == 64) announce_places(a, barriers, a.rows.of(a.step));
#if FACTOR
        if (threadIdx.x >= 96) {
            wait_for_producers();
            make_factors(a, barriers, a.rows.of(a.step));
        }
#endif
#if SHARED
        if (threadIdx.x == 96) announce_sums(a, barriers, a.rows.of(a.step));
#endif
    } else {
        take_registers<232>();
        wait_for_producers();
        consume(a, barriers, group - 1, a.rows.of(a.step));
    }
    // What a block has brought for the other one has come there.
    if (cluster > 1) cluster_meet();
}
