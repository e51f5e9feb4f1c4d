// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// linear_batch: y = epilogue(x W^T) for 8 to 64 rows of x, weights in the layout `mma16x16`.
//
// Bytes: the packed weight once; FLOP 2 T K N; floor: weight bytes / copy bandwidth (C).
// A cluster of blocks owns whole strips and cuts K between its blocks, and each block between groups of its
// warps: x is read clusters times instead of once per block. A warp keeps its strips' sums for all rows in
// registers, so each weight fragment is loaded once. Weights come through a ring of asynchronous copies in
// which each thread reads only what it copied itself: no barriers, and the first chunks are on their way
// before the kernel waits for its producers. x comes in panels of PANEL k per group, by the copy engine.
// At the end parts of sums are added in a fixed order, across the cluster through distributed shared memory.
// A row's result does not depend on the rows beside it, nor on TOKENS while CLUSTER and GROUPS stay.
// x has the type that weights are multiplied in: f16 for codes, else the weight's. A norm or a conversion
// is a kernel of its own in front (it hides behind the first weights).
// Numerics: f32 sums; 8- and 4-bit codes become f16 numbers (exact; those of groups are scaled and rounded
// to f16 once).
//
//   WEIGHT GROUP ZERO        format of the weight (mma16x16.cuh); GROUP 0: per channel
//   ACTIVATION RESULT        types of bias and residual; of y
//   INPUTS OUTPUTS           K, and rows of the weight (gate and up together count twice)
//   TOKENS                   most rows of x, a multiple of 8; rows above the step's are not touched
//   GRID CLUSTER             blocks; blocks of a cluster, 1 below sm_90
//   WARPS GROUPS             warps of a block; groups of warps that cut the block's k
//   STRIPS                   strips of a warp; strips of a cluster <= WARPS / GROUPS x STRIPS
//   WGMMA                    1: warpgroup matrix instructions (sm_90a, 16, 32 or 64 TOKENS, warps of a group by fours)
//   DEPTH STEP               chunks of a strip in a thread's ring; words that are waited for at once
//   PANEL BUFFERS            k of x per group in shared memory at once; how many of them
//   BLOCKS RELEASE           blocks on a multiprocessor; panels from the end when the next kernel may begin, 0: at once
//   GATED                    0; 1: y = silu(gate) up, rows `paired8`; 2: gelu(gate) up, tanh form
//   BIAS RESIDUAL            0 or 1
//   INTERLEAVE               blocks over which chunks are interleaved; 0: strips as they come
#include "mma16x16.cuh"
#include "wgmma.cuh"

struct BatchLinearArguments {
    TensorMap x_map;       // [rows, K], box TOKENS rows x 64, swizzled over 128 bytes; sm_90 and above
    const StepCounts* step;
    RowCount rows;
    Rows x, y, residual;   // rows of x start at multiples of 16 bytes
    const u8* weight;
    const float* scales;   // [strips x 16], per-channel schemes
    const float* zeros;
    const void* bias;      // [N]
#ifdef TRACE
    u64* trace;
#endif
};

namespace {
using namespace layout;
constexpr int threads = WARPS * 32, columns = TOKENS / 8;
constexpr int strips = (OUTPUTS + 15) / 16;
constexpr int clusters = GRID / CLUSTER;
constexpr int most = (strips + clusters - 1) / clusters;  // strips of a cluster
constexpr int splits = CLUSTER * GROUPS;                  // parts of K
constexpr int row_warps = WARPS / GROUPS;
constexpr int outputs = GATED ? OUTPUTS / 2 : OUTPUTS;
static_assert(TOKENS % 8 == 0 && GRID % CLUSTER == 0 && WARPS % GROUPS == 0, "whole parts");
static_assert(row_warps * STRIPS >= most, "a cluster's strips must have warps");
static_assert(!WGMMA || row_warps % 4 == 0 && (TOKENS == 16 || TOKENS == 32 || TOKENS == 64), "whole warpgroups");

// The ring: per strip and chunk of a warp its words, then 32 lanes' scales of each group.
constexpr int chunk_groups = grouped ? chunk_sums : 0;
constexpr int scale_bytes = has_zeros ? 8 : 4;
constexpr int steps = words / STEP, step_k = STEP * word_k;
constexpr int step_groups = chunk_groups / steps;
constexpr int place_bytes = words * 512 + chunk_groups * scale_bytes * 32;
constexpr int slot_bytes = STRIPS * place_bytes;
constexpr int ring_bytes = DEPTH * slot_bytes;
static_assert(words % STEP == 0 && chunk_groups % steps == 0, "a step must hold whole groups");

// Panels of x: boxes of 64 k, one group of warps after another. The eight 16-byte pieces of a row of a box
// change places by the row's lowest three bits, as the copy engine swizzles them.
constexpr int boxes = PANEL / 64, box_bytes = TOKENS * 128;
constexpr int group_panel_bytes = boxes * box_bytes;
constexpr int panel_bytes = GROUPS * group_panel_bytes;
constexpr int panel_chunks = PANEL / chunk_k;
constexpr int longest = (strip_chunks + splits - 1) / splits;  // chunks of a part of K
constexpr int panels = (longest + panel_chunks - 1) / panel_chunks;
#if __CUDA_ARCH__ >= 900
constexpr bool is_bulk = true;
#else
constexpr bool is_bulk = false;
#endif
static_assert(PANEL % chunk_k == 0 && PANEL % 64 == 0, "a panel must hold whole chunks and boxes");
static_assert(BUFFERS <= WARPS, "warps ask for the first panels");

constexpr bool needs_sums = quantized && !grouped && has_zeros;

// Shared memory, in bytes from its start; parts of sums take the place of x and the rings.
constexpr int rings_at = BUFFERS * panel_bytes;
constexpr int part_rows = most * TOKENS;  // of a part: 16 numbers for each strip and token
constexpr int part_bytes = part_rows * 64;
constexpr int parts_bytes = GROUPS * part_bytes;
// Each block of a cluster finishes a share of the rows, an even number of them.
constexpr int share = (part_rows + 2 * CLUSTER - 1) / (2 * CLUSTER) * 2;
constexpr int main_bytes = rings_at + WARPS * ring_bytes;
constexpr int barriers_at = main_bytes > parts_bytes ? main_bytes : parts_bytes;
constexpr int received_at = (barriers_at + (BUFFERS + 1) * 16 + 127) / 128 * 128;  // other blocks' parts of the share
constexpr int sums_at = received_at + (CLUSTER - 1) * share * 64;
constexpr int sums_bytes = needs_sums ? TOKENS * 4 : 0;  // sums of x: per group, the block's, other blocks'
constexpr int shared_bytes = sums_at + (GROUPS + CLUSTER) * sums_bytes;
extern __shared__ __align__(1024) u8 shared[];

/// First chunk of a part of K.
__device__ __forceinline__ int part_start(int part) { return strip_chunks * part / splits; }

// ---- PTX ------------------------------------------------------------------------------------------------

template <int BYTES> __device__ __forceinline__ void copy(u32 target, const void* source) {
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(target), "l"(source), "n"(BYTES)
                     : "memory");
    }
}
__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
__device__ __forceinline__ Word matrices(u32 address) {
    Word v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
    return v;
}
__device__ __forceinline__ int cluster_rank() {
#if CLUSTER > 1
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
#else
    return 0;
#endif
}
__device__ __forceinline__ void cluster_arrive() {
#if CLUSTER > 1
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if CLUSTER > 1
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
/// Copies bytes of this block's shared memory to another block of the cluster, whose barrier counts them.
__device__ __forceinline__ void send(u32 target, u32 source, u32 bytes, u32 barrier, int rank) {
#if CLUSTER > 1
    asm volatile(
        "{\n.reg .b32 t, b;\n"
        "mapa.shared::cluster.u32 t, %0, %4;\n"
        "mapa.shared::cluster.u32 b, %3, %4;\n"
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [t], [%1], %2, [b];\n}" ::"r"(target),
        "r"(source), "r"(bytes), "r"(barrier), "r"(rank) : "memory");
#endif
}
struct Four {
    float v[4];
};
__device__ __forceinline__ Four four_at(u32 address) {
    Four f;
    asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(f.v[0]), "=f"(f.v[1]), "=f"(f.v[2]), "=f"(f.v[3]) : "r"(address) : "memory");
    return f;
}
__device__ __forceinline__ void put_four(u32 address, const Four& f) {
    asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address), "f"(f.v[0]), "f"(f.v[1]), "f"(f.v[2]),
                 "f"(f.v[3]) : "memory");
}
__device__ __forceinline__ u32 pair_subtract(u32 a, u32 b) {
    u32 r;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
__device__ __forceinline__ u32 pair_fused(u32 a, u32 b, u32 c) {
    u32 r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
__device__ __forceinline__ u32 pair_multiply(u32 a, u32 b) {
    u32 r;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

// ---- Weights --------------------------------------------------------------------------------------------

/// Scales and zeros of a group as pairs, for rows g and g + 8 of a strip.
///
/// `low` and `high` are what codes less their zero need subtracted from 1024 + code, and from 64 + code.
struct GroupNumbers {
    u32 scale[2], low[2], high[2], minimum[2];

    __device__ __forceinline__ void load(u32 address) {
        constexpr u32 middle = WEIGHT == MARTLET_U4 ? 0x64086408 : 0x64806480;  // 1024 + 8, 1024 + 128
        u32 scales = 0, zeros = 0;
        if (!grouped) {
            low[0] = low[1] = middle;
            high[0] = high[1] = 0xd480d480;  // -72
            return;
        }
        if (has_zeros) {
            asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(scales), "=r"(zeros) : "r"(address));
        } else {
            asm volatile("ld.shared.u32 %0, [%1];" : "=r"(scales) : "r"(address));
        }
        scale[0] = __byte_perm(scales, scales, 0x1010);
        scale[1] = __byte_perm(scales, scales, 0x3232);
        u32 zero[2] = {__byte_perm(zeros, zeros, 0x1010), __byte_perm(zeros, zeros, 0x3232)};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if (ZERO == MARTLET_ZERO_INTEGER) {
                low[i] = pair_fused(zero[i], 0x3c003c00, 0x64006400);   // 1024 + zero
                high[i] = pair_fused(zero[i], 0xbc00bc00, 0xd400d400);  // -64 - zero
            } else {
                low[i] = ZERO == MARTLET_ZERO_NONE ? middle : 0x64006400;
                high[i] = ZERO == MARTLET_ZERO_NONE ? 0xd480d480 : 0xd400d400;
                minimum[i] = zero[i];
            }
        }
    }
    __device__ __forceinline__ u32 scaled(u32 code, int row8) const {
        if (!grouped) return code;
        if (ZERO == MARTLET_ZERO_MINIMUM) return pair_fused(code, scale[row8], minimum[row8]);
        return pair_multiply(code, scale[row8]);
    }
};

/// The operands of two tiles, 32 k: pair I of a step's words.
template <int I>
__device__ __forceinline__ void fragments(u32 (&a)[2][4], const Word (&w)[STEP], const GroupNumbers& n) {
#if WEIGHT == MARTLET_U4
    u32 tiles[2] = {I & 1 ? w[I / 2].z : w[I / 2].x, I & 1 ? w[I / 2].w : w[I / 2].y};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        u32 t = tiles[i], t8 = t >> 8;
        a[i][0] = n.scaled(pair_subtract(nibbles<0x000f000f>(t), n.low[0]), 0);
        a[i][1] = n.scaled(pair_subtract(nibbles<0x000f000f>(t8), n.low[1]), 1);
        // (1024 + 16 code) / 16
        a[i][2] = n.scaled(pair_fused(nibbles<0x00f000f0>(t), 0x2c002c00, n.high[0]), 0);
        a[i][3] = n.scaled(pair_fused(nibbles<0x00f000f0>(t8), 0x2c002c00, n.high[1]), 1);
    }
#elif WEIGHT == MARTLET_U8
    const u32 magic = 0x64646464;
    u32 tiles[4] = {w[I].x, w[I].y, w[I].z, w[I].w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        a[i / 2][i % 2 * 2] = n.scaled(pair_subtract(__byte_perm(tiles[i], magic, 0x4140), n.low[0]), 0);
        a[i / 2][i % 2 * 2 + 1] = n.scaled(pair_subtract(__byte_perm(tiles[i], magic, 0x4342), n.low[1]), 1);
    }
#else
    constexpr int last = 2 * I + 1 < STEP ? 2 * I + 1 : 2 * I;
    a[0][0] = w[2 * I].x, a[0][1] = w[2 * I].y, a[0][2] = w[2 * I].z, a[0][3] = w[2 * I].w;
    a[1][0] = w[last].x, a[1][1] = w[last].y, a[1][2] = w[last].z, a[1][3] = w[last].w;
#endif
}

/// A warp's strips along its part of K: what it has asked for, and the ring that this arrives in.
struct Stream {
    static constexpr int places = INTERLEAVE ? STRIPS : 1;
    const u8* at[places];  // this lane's bytes of the next chunk to ask for
    i64 stride[places];
    u32 words_at, scales_at;  // this lane's places in the ring
    int source_scales;        // from `at` to the lane's scales
    int have, left;           // strips; chunks to ask for

    __device__ __forceinline__ void begin(
        const BatchLinearArguments& a, int strip, int count, int from, int chunks) {
        const int lane = lane_index();
        have = count;
        left = chunks;
        words_at = shared_address(shared) + rings_at + warp_index() * ring_bytes + lane * 16;
        scales_at = words_at - lane * 16 + words * 512 + lane * scale_bytes;
        source_scales = words * 512 + (lane >> 2) * scale_bytes - lane * 16;
#pragma unroll
        for (int s = 0; s < places; ++s) {
            int place = min(strip + s, strips - 1);
            at[s] = a.weight + chunk_index(place, from) * chunk_bytes + lane * 16;
            stride[s] = INTERLEAVE ? (chunk_index(place, 1) - chunk_index(place, 0)) * chunk_bytes : chunk_bytes;
        }
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int i = 0; i < steps; ++i) ask(d * slot_bytes, i);
            advance();
        }
    }
    /// Asks for a step of the next chunk.
    __device__ __forceinline__ void ask(int slot, int step) {
        if (left > 0) {
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
                if (s >= have) continue;
                const u8* source = INTERLEAVE ? at[s % places] : at[0] + (i64)s * strip_chunks * chunk_bytes;
#pragma unroll
                for (int i = step * STEP; i < (step + 1) * STEP; ++i) {
                    copy<16>(words_at + slot + s * place_bytes + i * 512, source + i * 512);
                }
#pragma unroll
                for (int g = step * step_groups; g < (step + 1) * step_groups; ++g) {
                    copy<scale_bytes>(scales_at + slot + s * place_bytes + g * scale_bytes * 32,
                        source + source_scales + g * group_bytes);
                }
            }
        }
        copies_end();
    }
    __device__ __forceinline__ void advance() {
        --left;
#pragma unroll
        for (int s = 0; s < places; ++s) at[s] += stride[s];
    }
};

// ---- Rows of x ------------------------------------------------------------------------------------------

/// Panels of x: rows of the step, PANEL k of each part of K that this block sums.
struct Panels {
    int rank, rows;

    /// k of a group's part in a panel.
    __device__ __forceinline__ int length(int group, int panel) const {
        int part = rank * GROUPS + group;
        return max(min((part_start(part + 1) - part_start(part)) * chunk_k - panel * PANEL, PANEL), 0);
    }
    __device__ __forceinline__ int first_k(int group, int panel) const {
        return part_start(rank * GROUPS + group) * chunk_k + panel * PANEL;
    }
    /// Place of eight numbers of a row in a group's part of a panel.
    static __device__ __forceinline__ u32 place(int row, int piece) {
        return piece / 8 * box_bytes + row * 128 + ((piece ^ row) & 7) * 16;
    }
    static __device__ __forceinline__ u32 full(int panel) {
        return shared_address(shared) + barriers_at + panel % BUFFERS * 16;
    }
    static __device__ __forceinline__ u32 free(int panel) { return full(panel) + 8; }
    static __device__ __forceinline__ u32 turn(int panel) { return panel / BUFFERS & 1; }

    static __device__ __forceinline__ void begin() {
        if (!is_bulk || threadIdx.x > 0) return;
        for (int i = 0; i < BUFFERS; ++i) {
            barrier_init(full(i), 1);
            barrier_init(free(i), WARPS);
        }
    }
    /// One warp asks for a panel.
    __device__ __forceinline__ void ask(const BatchLinearArguments& a, int panel) const {
        if (panel >= BUFFERS) barrier_wait(free(panel), turn(panel) ^ 1);
        if (lane_index() == 0) {
            int count = 0;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) count += (length(g, panel) + 63) / 64;
            barrier_expect(full(panel), count * box_bytes);
        }
        __syncwarp();
        u32 target = shared_address(shared) + panel % BUFFERS * panel_bytes;
        for (int i = lane_index(); i < GROUPS * boxes; i += 32) {
            if (i % boxes * 64 < length(i / boxes, panel)) {
                copy_box(target + i * box_bytes, &a.x_map, first_k(i / boxes, panel) + i % boxes * 64, 0, full(panel));
            }
        }
    }
    /// What can be asked for at the start.
    __device__ __forceinline__ void first(const BatchLinearArguments& a) const {
        if (is_bulk && warp_index() < BUFFERS && warp_index() < panels) ask(a, warp_index());
    }
    /// Waits for a panel, and asks for a later one.
    __device__ __forceinline__ void wait(const BatchLinearArguments& a, int panel) const {
        if (is_bulk) {
            // With three buffers or more, in the place of the panel before the last one: all are done with it.
            constexpr int lag = BUFFERS > 2 ? 2 : 1;
            int next = panel - lag + BUFFERS;
            if (panel >= lag && next < panels && warp_index() == panel % WARPS) ask(a, next);
            barrier_wait(full(panel), turn(panel));
        } else {
            if (BUFFERS == 1 && panel > 0) __syncthreads();
            u32 target = shared_address(shared) + panel % BUFFERS * panel_bytes;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) {
                const int pieces = length(g, panel) / 8;
                const u16* source = (const u16*)a.x.base + first_k(g, panel);
                for (int i = threadIdx.x; i < pieces * rows; i += threads) {
                    int row = i / pieces, piece = i % pieces;
                    Word v = load_fresh(source + row * a.x.stride + piece * 8);
                    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(
                                     target + g * group_panel_bytes + place(row, piece)),
                        "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
                }
            }
            __syncthreads();
        }
    }
    /// Lets a panel's place be filled again.
    static __device__ __forceinline__ void leave(int panel) {
        if (!is_bulk || panel + BUFFERS >= panels) return;
        __syncwarp();
        if (lane_index() == 0) barrier_arrive(free(panel));
    }
    /// Adds a panel to the rows' sums of x; each row of each group belongs to one warp.
    __device__ __forceinline__ void add_sums(int panel) const {
        float* sums = (float*)(shared + sums_at);
        for (int item = warp_index(); item < GROUPS * TOKENS; item += WARPS) {
            u32 at = shared_address(shared) + panel % BUFFERS * panel_bytes
                + item / TOKENS * group_panel_bytes;
            float sum = 0;
            for (int piece = lane_index(); piece < length(item / TOKENS, panel) / 8; piece += 32) {
                Word v = shared_word(at + place(item % TOKENS, piece));
                sum += low_half<math>(v.x) + high_half<math>(v.x) + low_half<math>(v.y) + high_half<math>(v.y)
                    + low_half<math>(v.z) + high_half<math>(v.z) + low_half<math>(v.w) + high_half<math>(v.w);
            }
            sum = warp_sum(sum);
            if (lane_index() == 0) sums[item] = panel > 0 ? sums[item] + sum : sum;
        }
    }
};

// ---- Products -------------------------------------------------------------------------------------------

struct Products {
    float c[STRIPS][columns * 4];
    u32 operands[WGMMA ? 2 : 1][STRIPS][2][4];

    /// This lane's row of a matrix of x, K behind the place `x` of a chunk's first k.
    template <int K> static __device__ __forceinline__ u32 x_at(u32 x) {
        return K / 64 * box_bytes + (K % 64 > 0 ? x ^ K % 64 * 2 : x);
    }

    /// Pairs of tiles from I on of a step whose x begins at `x`.
    template <int STEP_INDEX, int I>
    __device__ __forceinline__ void multiply(
        const Word (&w)[STRIPS][STEP], GroupNumbers (&n)[STRIPS], u32 x, u32 scales) {
        constexpr int pairs = (step_k + 31) / 32;
        if constexpr (I < pairs) {
            constexpr int k = STEP_INDEX * step_k + I * 32, group = grouped ? k / (GROUP > 0 ? GROUP : 1) : 0;
            constexpr bool is_whole = step_k >= 32;
            // Two sets: one is read by the matrix instructions under way while the other is made.
            u32 (&a)[STRIPS][2][4] = operands[WGMMA ? k / 32 & 1 : 0];
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
                if (grouped ? k % (GROUP > 0 ? GROUP : 1) == 0 : I == 0) {
                    n[s].load(scales + s * place_bytes + group * scale_bytes * 32);
                }
                fragments<I>(a[s], w[s], n[s]);
            }
            if constexpr (WGMMA) {
                u64 b = swizzled_matrix(x + k / 64 * box_bytes + k % 64 * 2);
                wgmma_fence();
#pragma unroll
                for (int i = 0; i < (is_whole ? 2 : 1); ++i) {
#pragma unroll
                    for (int s = 0; s < STRIPS; ++s) wgmma_registers<math, TOKENS>(c[s], a[s][i], b + i * 2);
                }
                wgmma_commit();
                wgmma_wait<1>();
            } else {
                constexpr int wide = columns % 2 == 0 ? 2 : 1;
#pragma unroll
                for (int j = 0; j < columns; j += wide) {
                    Word b[wide];
#pragma unroll
                    for (int i = 0; i < wide; ++i) b[i] = matrices(x_at<k>(x) + (j + i) * 1024);
#pragma unroll
                    for (int i = 0; i < wide; ++i) {
#pragma unroll
                        for (int s = 0; s < STRIPS; ++s) multiply_tile(s, j + i, a[s][0], b[i].x, b[i].y);
                    }
                    if (!is_whole) continue;
#pragma unroll
                    for (int i = 0; i < wide; ++i) {
#pragma unroll
                        for (int s = 0; s < STRIPS; ++s) multiply_tile(s, j + i, a[s][1], b[i].z, b[i].w);
                    }
                }
            }
            multiply<STEP_INDEX, I + 1>(w, n, x, scales);
        }
    }
    __device__ __forceinline__ void multiply_tile(int s, int j, const u32 (&a)[4], u32 b0, u32 b1) {
        float (&sums)[4] = *(float (*)[4])&c[s][j * 4];
        mma<math>(sums, a[0], a[1], a[2], a[3], b0, b1);
    }

    /// Steps of a chunk in a slot of the ring; each is asked for again once it has been used.
    template <int STEP_INDEX>
    __device__ __forceinline__ void chunk(Stream& stream, int slot, u32 x) {
        if constexpr (STEP_INDEX < steps) {
            copies_wait<DEPTH * steps - 1>();
            Word w[STRIPS][STEP];
            GroupNumbers n[STRIPS];
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
#pragma unroll
                for (int i = 0; i < STEP; ++i) {
                    w[s][i] = shared_word(
                        stream.words_at + slot + s * place_bytes + (STEP_INDEX * STEP + i) * 512);
                }
            }
            multiply<STEP_INDEX, 0>(w, n, x, stream.scales_at + slot);
            stream.ask(slot, STEP_INDEX);
            chunk<STEP_INDEX + 1>(stream, slot, x);
        }
    }
};

// ---- Results --------------------------------------------------------------------------------------------

constexpr int quads = GATED ? 2 : 4;  // fours of rows that a strip and token have
constexpr int item_turns = (share * quads + threads - 1) / threads;

/// Place of four numbers in a part, spread over the banks.
__device__ __forceinline__ int place_of(int part_row, int row) {
    return ((part_row * 16 + row) ^ ((part_row >> 1 & 3) << 3)) * 4;
}

/// Four results of a token, one below the other in the weight.
struct Result {
    int part_row, strip, token, quad, n;
    bool is_there;
    Four residual;

    __device__ __forceinline__ Result(int item, int rank, int first, int count, int rows) {
        quad = item % quads;
        part_row = rank * share + item / quads;
        token = part_row % TOKENS;
        strip = part_row / TOKENS;
        n = (first + strip) * (GATED ? 8 : 16) + quad * 4;
        is_there = item < share * quads && strip < count && token < rows && n < outputs;
    }
    template <int TYPE> static __device__ __forceinline__ bool is_vector(const Rows& rows) {
        constexpr int size = sizeof(typename Number<TYPE>::storage);
        return (((u64)rows.base & (size * 4 - 1)) | (rows.stride & 3)) == 0;
    }
    __device__ __forceinline__ void load_residual(const BatchLinearArguments& a) {
        if (!RESIDUAL || !is_there) return;
        const u16* p = (const u16*)a.residual.base + token * a.residual.stride + n;
        if (n + 4 <= outputs && is_vector<ACTIVATION>(a.residual)) {
            u32 low, high;
            asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(low), "=r"(high) : "l"(p));
            residual = {{low_half<ACTIVATION>(low), high_half<ACTIVATION>(low), low_half<ACTIVATION>(high),
                high_half<ACTIVATION>(high)}};
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                residual.v[i] = n + i < outputs ? Number<ACTIVATION>::get(load_fresh_16(p + i)) : 0;
            }
        }
    }
    /// Sums of this token and four rows from `row` of the strip on: all parts, in their order.
    __device__ __forceinline__ Four sum(int rank, int row) const {
        const u32 own = shared_address(shared) + place_of(part_row, row);
        Four total = {{0, 0, 0, 0}};
#pragma unroll
        for (int r = 0; r < CLUSTER; ++r) {
            u32 other = own - rank * share * 64 + received_at + (r - (r > rank)) * share * 64;
#pragma unroll
            for (int g = 0; g < (CLUSTER > 1 ? 1 : GROUPS); ++g) {
                Four f = four_at(r == rank ? own + g * part_bytes : other);
#pragma unroll
                for (int i = 0; i < 4; ++i) total.v[i] += f.v[i];
            }
        }
        return total;
    }
    /// Scales and bias of rows from `n_weight` on, of which `n_bias` is the first's bias.
    __device__ __forceinline__ void finish(
        const BatchLinearArguments& a, Four& f, int n_weight, int n_bias, float x_sum) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float v = f.v[i];
            if (quantized && !grouped) {
                float scale = __ldg(a.scales + n_weight + i);
                if (has_zeros) {
                    constexpr float middle = WEIGHT == MARTLET_U4 ? 8 : 128;
                    float zero = __ldg(a.zeros + n_weight + i);
                    v = ZERO == MARTLET_ZERO_INTEGER ? scale * fmaf(middle - zero, x_sum, v)
                                                     : fmaf(scale, v, fmaf(middle, scale, zero) * x_sum);
                } else {
                    v *= scale;
                }
            }
            f.v[i] = BIAS && n + i < outputs ? v + load<ACTIVATION>(a.bias, n_bias + i) : v;
        }
    }
    __device__ __forceinline__ void write(const BatchLinearArguments& a, const Four& f) const {
        constexpr int size = sizeof(typename Number<RESULT>::storage);
        u8* p = (u8*)a.y.base + (token * a.y.stride + n) * size;
        if (n + 4 <= outputs && is_vector<RESULT>(a.y)) {
            if (size == 4) {
                asm volatile("st.global.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(p), "f"(f.v[0]), "f"(f.v[1]),
                    "f"(f.v[2]), "f"(f.v[3]) : "memory");
            } else {
                asm volatile("st.global.v2.u32 [%0], {%1,%2};" ::"l"(p), "r"(pack_pair<RESULT>(f.v[0], f.v[1])),
                    "r"(pack_pair<RESULT>(f.v[2], f.v[3])) : "memory");
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (n + i < outputs) store<RESULT>(p, i, f.v[i]);
            }
        }
    }
};

__device__ __forceinline__ float gated(float gate, float up) {
    if (GATED == 1) return __fdividef(gate, 1 + __expf(-gate)) * up;
    float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
    return gate * (1 - __fdividef(1, 1 + __expf(2 * inner))) * up;
}

/// A row's sum of x over the cluster.
__device__ __forceinline__ float x_sum(int token, int rank) {
    const float* sums = (const float*)(shared + sums_at) + GROUPS * TOKENS + token;
    float sum = 0;
#pragma unroll
    for (int r = 0; r < CLUSTER; ++r) sum += sums[(r == rank ? 0 : r + (r < rank)) * TOKENS];
    return sum;
}

/// Barrier that counts the bytes which other blocks send.
__device__ __forceinline__ u32 received() { return shared_address(shared) + barriers_at + BUFFERS * 16; }

/// Rows of a block's share.
__device__ __forceinline__ int share_rows(int rank) { return max(min(part_rows - rank * share, share), 0); }

/// The block's parts of sums, of all warps, in shared memory in one part per group.
__device__ __forceinline__ void put_parts(const Products& products, int count) {
    const int warp = warp_index(), lane = lane_index(), g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) {
        int strip = warp % row_warps * STRIPS + s;
        if (strip >= count) continue;
        float* part = (float*)(shared + warp / row_warps * part_bytes) + (strip * TOKENS + 2 * t) * 16 + g;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            // As place_of: bit 3 of the place is the half of the strip, bit 4 the lowest of the token.
            int place = (((i & 1) << 1 | i >> 1) ^ t) << 3;
#pragma unroll
            for (int j = 0; j < columns; ++j) part[j * 128 + place] = products.c[s][j * 4 + i];
        }
    }
}

/// Sends the other blocks of the cluster their shares of this block's parts, and waits for its own.
__device__ __forceinline__ void exchange(int rank) {
    const u32 base = shared_address(shared);
    if (GROUPS > 1 && CLUSTER > 1) {
        __syncthreads();
        for (int i = threadIdx.x; i < part_bytes / 16; i += threads) {
            Four total = four_at(base + i * 16);
#pragma unroll
            for (int g = 1; g < GROUPS; ++g) {
                Four f = four_at(base + g * part_bytes + i * 16);
#pragma unroll
                for (int j = 0; j < 4; ++j) total.v[j] += f.v[j];
            }
            put_four(base + i * 16, total);
        }
    }
    if (needs_sums && threadIdx.x < TOKENS) {
        float* sums = (float*)(shared + sums_at) + threadIdx.x;
        float sum = 0;
        for (int g = 0; g < GROUPS; ++g) sum += sums[g * TOKENS];
        sums[GROUPS * TOKENS] = sum;
    }
#if CLUSTER > 1
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    cluster_wait();  // all barriers are there
    __syncthreads();
    const int other = threadIdx.x;
    if (other < CLUSTER && other != rank) {
        const int slot = rank - (rank > other);
        if (share_rows(other) > 0) {
            send(base + received_at + slot * share * 64, base + other * share * 64, share_rows(other) * 64, received(),
                other);
        }
        if (needs_sums) {
            u32 own = base + sums_at + GROUPS * sums_bytes;
            send(own + (1 + slot) * sums_bytes, own, sums_bytes, received(), other);
        }
    }
    barrier_wait(received(), 0);
    cluster_arrive();
#else
    __syncthreads();
#endif
}

/// Parts of all warps and blocks of the cluster become results.
__device__ __forceinline__ void finish(const BatchLinearArguments& a, const Products& products, int rank,
    int first, int count, int rows) {
    Result early(threadIdx.x, rank, first, count, rows);
    early.load_residual(a);
    __syncthreads();
    put_parts(products, count);
    exchange(rank);
    MARTLET_TRACE(4);
    constexpr int batch = item_turns < 4 ? item_turns : 4;
#pragma unroll 1
    for (int turn = 0; turn < item_turns; turn += batch) {
        Four sums[batch][GATED ? 2 : 1];
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            Result result((turn + i) * threads + threadIdx.x, rank, first, count, rows);
            if (!result.is_there) continue;
            sums[i][0] = result.sum(rank, result.quad * 4);
            if (GATED) sums[i][GATED ? 1 : 0] = result.sum(rank, 8 + result.quad * 4);
        }
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            Result result((turn + i) * threads + threadIdx.x, rank, first, count, rows);
            if (!result.is_there) continue;
            if (turn + i == 0) {
                result.residual = early.residual;
            } else {
                result.load_residual(a);
            }
            int n = (first + result.strip) * 16 + result.quad * 4;
            float x = needs_sums ? x_sum(result.token, rank) : 0;
            result.finish(a, sums[i][0], n, result.n, x);
            if (GATED) {
                Four& up = sums[i][GATED ? 1 : 0];
                result.finish(a, up, n + 8, outputs + result.n, x);
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][0].v[j] = gated(sums[i][0].v[j], up.v[j]);
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (RESIDUAL) sums[i][0].v[j] += result.residual.v[j];
            }
            result.write(a, sums[i][0]);
        }
    }
    cluster_wait();  // no block leaves while another may read what it sent
}
}  // namespace

/// Bytes of shared memory, threads, blocks.
extern "C" __device__ const u32 linear_batch_launch[3] = {shared_bytes, threads, GRID};

#if CLUSTER > 1
#define MARTLET_CLUSTER __cluster_dims__(CLUSTER, 1, 1)
#else
#define MARTLET_CLUSTER
#endif

extern "C" __global__ void MARTLET_CLUSTER __launch_bounds__(threads, BLOCKS)
    linear_batch(const __grid_constant__ BatchLinearArguments a) {
    if (RELEASE == 0) release_dependents();
    MARTLET_TRACE(0);
    const int rank = cluster_rank(), cluster = blockIdx.x / CLUSTER, warp = warp_index();
    const int first = (int)((i64)strips * cluster / clusters);
    const int count = (int)((i64)strips * (cluster + 1) / clusters) - first;
    const int part = rank * GROUPS + warp / row_warps, own = warp % row_warps * STRIPS;
    const int from = part_start(part), chunks = part_start(part + 1) - from;
    Stream stream;
    stream.begin(a, first + own, max(min(STRIPS, count - own), 0), from, chunks);
    // No kernel writes the counts.
    const Panels panel_source{rank, min(a.rows.of(a.step), TOKENS)};
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) asm volatile("prefetch.tensormap [%0];" ::"l"(&a.x_map) : "memory");
#endif
    Panels::begin();
    if (CLUSTER > 1 && threadIdx.x == 0) {
        barrier_init(received(), 1);
        barrier_expect(received(), (CLUSTER - 1) * (share_rows(rank) * 64 + sums_bytes));
    }
    if (is_bulk && threadIdx.x == 0) barrier_init_fence();
    __syncthreads();
    cluster_arrive();
    MARTLET_TRACE(1);
    wait_for_producers();
    MARTLET_TRACE(2);
    panel_source.first(a);
    Products products;
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) {
#pragma unroll
        for (int i = 0; i < columns * 4; ++i) products.c[s][i] = 0;
    }
    int slot = 0;
    const int lane = lane_index();
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
        if (RELEASE > 0 && panel == panels - min(RELEASE, panels)) release_dependents();
        panel_source.wait(a, panel);
        if (needs_sums) panel_source.add_sums(panel);
        const u32 x = shared_address(shared) + panel % BUFFERS * panel_bytes + warp / row_warps * group_panel_bytes;
        const int left = stream.have > 0 || WGMMA ? min(panel_chunks, chunks - panel * panel_chunks) : 0;
#pragma unroll 1
        for (int i = 0; i < left; ++i) {
            u32 at = WGMMA ? i * chunk_k / 64 * box_bytes + i * chunk_k % 64 * 2
                           : Panels::place(lane & 7, i * (chunk_k / 8) + (lane >> 3));
            products.chunk<0>(stream, slot, x + at);
            stream.advance();
            slot = slot == ring_bytes - slot_bytes ? 0 : slot + slot_bytes;
        }
        if constexpr (WGMMA) wgmma_wait<0>();
        Panels::leave(panel);
    }
    MARTLET_TRACE(3);
    finish(a, products, rank, first, count, panel_source.rows);
    MARTLET_TRACE(5);
}
