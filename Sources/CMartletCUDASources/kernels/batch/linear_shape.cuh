// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// What linear_batch is specialised for: arguments, constants, places in shared memory; and PTX.
#pragma once
#define MATH ACTIVATION
#include "mma16x16.cuh"
#include "wgmma.cuh"
#include "linear_norm.cuh"

struct BatchLinearArguments {
    TensorMap x_map;       // [rows, K], box TOKENS rows x 64, swizzled over 128 bytes; sm_90 and above
    const StepCounts* step;
    RowCount rows;
    Rows x, y, residual;   // rows of x start at multiples of 16 bytes
    const u8* weight;
    const float* scales;   // [strips x 16], per-channel schemes
    const float* zeros;
    const void* bias;      // [N]
    SharedNorm norm;       // in front where FACTOR, behind where NEXT_NORM
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
static_assert(!WGMMA || row_warps % 4 == 0 && chunk_k % 64 == 0 && STEP * word_k >= 32
        && (TOKENS == 16 || TOKENS == 32 || TOKENS == 48 || TOKENS == 64),
    "whole warpgroups, whole boxes, whole pairs of tiles");

// The ring: per strip and chunk of a warp its words, then 32 lanes' scales of each group.
constexpr int chunk_groups = grouped ? chunk_sums : 0;
constexpr int scale_bytes = has_zeros ? 8 : 4;
constexpr int steps = words / STEP, step_k = STEP * word_k;
constexpr int step_groups = chunk_groups / steps;
constexpr int place_bytes = words * 512 + chunk_groups * scale_bytes * 32;
constexpr int slot_bytes = STRIPS * place_bytes;
constexpr int ring_bytes = DEPTH * slot_bytes;
// Chunks of the ring that are asked for before the kernel in front has ended; one stands behind x, which comes sooner so.
constexpr int early_chunks = DEPTH > 1 ? DEPTH - 1 : 1;
static_assert(words % STEP == 0 && chunk_groups % steps == 0, "a step must hold whole groups");

// Panels of x: boxes of 64 k, one group of warps after another. The eight 16-byte pieces of a row of a box
// change places by the row's lowest three bits, as the copy engine swizzles them.
constexpr int boxes = PANEL / 64, box_bytes = TOKENS * 128;
constexpr int group_panel_bytes = boxes * box_bytes;
constexpr int panel_bytes = GROUPS * group_panel_bytes;
constexpr int longest = (strip_chunks + splits - 1) / splits;  // chunks of a part of K
constexpr int panels = (longest * chunk_k + PANEL - 1) / PANEL;
constexpr int panel_chunks = PANEL > chunk_k ? PANEL / chunk_k : 1;
constexpr int chunk_panels = PANEL < chunk_k ? chunk_k / PANEL : 1;
#if __CUDA_ARCH__ >= 900
constexpr bool is_bulk = true;
#else
constexpr bool is_bulk = false;
#endif
static_assert(PANEL % 64 == 0 && (PANEL % chunk_k == 0 || chunk_k % PANEL == 0 && PANEL % step_k == 0),
    "a panel must hold whole boxes, and whole chunks or a chunk whole panels");
static_assert(BUFFERS <= WARPS, "warps ask for the first panels");

constexpr bool needs_sums = quantized && !grouped && has_zeros;
// Sums of long groups are scaled, instead of each code: a pair of 4-bit codes takes 2.75 instructions instead of 3.75.
// They stand in registers twice, so there must not be many.
constexpr bool late_scales = quantized && GROUP >= 128 && ZERO != MARTLET_ZERO_MINIMUM && !WGMMA
    && STRIPS * TOKENS <= (GATED && WARPS > 12 ? 16 : 32);

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
// Sums of squares: of the row in front, by so many threads each, and then its factor; of results, by strip and row.
constexpr int norm_at = sums_at + (GROUPS + CLUSTER) * sums_bytes;
constexpr int norm_parts = threads / TOKENS > 1 ? threads / TOKENS : 1;
constexpr int norm_bytes = FACTOR ? norm_parts * TOKENS * 4 : NEXT_NORM ? part_rows * 4 : 0;
// Scales and zeros per channel of the block's strips.
constexpr int channels_at = norm_at + norm_bytes;
constexpr int channels_bytes = quantized && !grouped ? most * 64 : 0;
constexpr int used_bytes = channels_at + (has_zeros ? 2 : 1) * channels_bytes;
static_assert(!NEXT_NORM || RESULT == MARTLET_BF16 && OUTPUTS % 16 == 0 && !GATED, "a norm behind whole strips in bf16");
// More than half of a multiprocessor's: else some get two blocks as they become free, and others none.
#if __CUDA_ARCH__ >= 900
constexpr int alone_bytes = 116 << 10;
#elif __CUDA_ARCH__ == 800
constexpr int alone_bytes = 84 << 10;
#else
constexpr int alone_bytes = 52 << 10;
#endif
constexpr int shared_bytes = used_bytes > alone_bytes ? used_bytes : alone_bytes;
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
/// A number that all lanes have, which the compiler cannot see.
__device__ __forceinline__ int in_all_lanes(int v) { return __shfl_sync(~0u, v, 0); }
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
    // A release would wait for all copies under way; what blocks send each other is counted by barriers.
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if CLUSTER > 1
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
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
}  // namespace
