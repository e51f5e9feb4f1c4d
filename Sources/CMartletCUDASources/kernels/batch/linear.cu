// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// linear_batch: y = epilogue(x W^T) for 8 to 64 rows of x, weights in the layout `mma16x16`.
//
// Bytes: the packed weight once; FLOP 2 T K N; floor: weight bytes / copy bandwidth (C).
// Measured on an H100 80GB, linears of a layer in order with the two norms that they share, % of C: baichuan2-7b bf16 8 rows
// 98.4, 16 97.0, 32 94.1, 48 91.5, 64 89.9; int8 8 89.9, 16 85.6, 32 81.3, 48 76.8, 64 71.7; int4 g128 against the decode kernel's one row (43 us): 8 1.13,
// 16 1.21, 32 1.45, 48 1.54, 64 1.74. What bounds which: scripts/kernel-lab/NOTES.md.
// A cluster of blocks owns whole strips and cuts K between its blocks, and each block between groups of its
// warps: x is read clusters times instead of once per block. A warp keeps its strips' sums for all rows in
// registers, so each weight fragment is loaded once. Weights come through a ring of asynchronous copies in
// which each thread reads only what it copied itself: no barriers, and the first chunks are on their way
// before the kernel waits for its producers. x comes in panels of PANEL k per group, by the copy engine.
// At the end parts of sums are added in a fixed order, across the cluster through distributed shared memory.
// A row's result does not depend on the rows beside it; between kernels of other TOKENS the order of additions may differ.
// Weights are multiplied in the type of x. Norms: linear_norm.cuh, or a kernel of its own in front.
// Numerics: f32 sums; 8- and 4-bit codes become numbers of that type (exact; those of groups are scaled and rounded
// once, beside bf16 their scales too, but where `late_scales` scales sums in f32).
//
//   WEIGHT GROUP ZERO        format of the weight (mma16x16.cuh); GROUP 0: per channel
//   ACTIVATION RESULT        types of x, bias and residual; of y
//   INPUTS OUTPUTS           K, and rows of the weight (gate and up together count twice)
//   TOKENS                   most rows of x, a multiple of 8; rows above the step's are not touched
//   GRID CLUSTER             blocks; blocks of a cluster, 1 below sm_90
//   WARPS GROUPS             warps of a block; groups of warps that cut the block's k
//   STRIPS                   strips of a warp; strips of a cluster <= WARPS / GROUPS x STRIPS
//   WGMMA                    1: warpgroup matrix instructions (sm_90a, 16, 32, 48 or 64 TOKENS, warps of a group by fours)
//   DEPTH STEP               chunks of a strip in a thread's ring; words that are waited for at once
//   PANEL BUFFERS            k of x per group in shared memory at once; how many of them
//   GATED                    0; 1: y = silu(gate) up, rows `paired8`; 2: gelu(gate) up, tanh form
//   BIAS RESIDUAL            0 or 1
//   INTERLEAVE               blocks over which chunks are interleaved; 0: strips as they come
//   FACTOR NEXT_NORM         0; 1: a norm in front or behind, without a kernel between (linear_norm.cuh)
#include "linear_results.cuh"

/// Bytes of shared memory, threads, blocks.
extern "C" __device__ const u32 linear_batch_launch[3] = {shared_bytes, threads, GRID};

#if CLUSTER > 1
#define MARTLET_CLUSTER __cluster_dims__(CLUSTER, 1, 1)
#else
#define MARTLET_CLUSTER
#endif

extern "C" __global__ void MARTLET_CLUSTER __launch_bounds__(threads, 1)
    linear_batch(const __grid_constant__ BatchLinearArguments a) {
    release_dependents();
    MARTLET_TRACE(0);
    const StepCounts counts = early_counts(a.step);
    const int rank = cluster_rank(), cluster = blockIdx.x / CLUSTER, warp = warp_index();
    const int first = (int)((i64)strips * cluster / clusters);
    const int count = (int)((i64)strips * (cluster + 1) / clusters) - first;
    const int part = rank * GROUPS + warp / row_warps, own = warp % row_warps * STRIPS;
    const int from = part_start(part), chunks = part_start(part + 1) - from;
    ask_channels(a, first, count);
    Stream stream;
    stream.begin(a, first + own, max(min(STRIPS, count - own), 0), from, chunks);
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
    const Panels panel_source{rank, min(a.rows.of(&counts), TOKENS)};
    panel_source.first(a);
    stream.fill<early_chunks, DEPTH>();
    if (FACTOR) gather_squares(a, panel_source.rows);
    Result early(threadIdx.x, rank, first, count, panel_source.rows);
    early.load_residual(a);
    Products products;
    products.begin();
    stream_products(a, panel_source, stream, products, chunks);
    products.end();
    MARTLET_TRACE(3);
    finish(a, products, rank, first, count, panel_source.rows, early);
    MARTLET_TRACE(5);
}
