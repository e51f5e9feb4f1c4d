// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Rows of x of linear_batch: panels in shared memory, filled by the copy engine, or by threads below sm_90.
#pragma once
#include "linear_shape.cuh"

namespace {
/// Counts of the step, which no kernel writes: asked for before the weights, behind which they would wait.
__device__ __forceinline__ StepCounts early_counts(const StepCounts* step) {
    StepCounts counts;
    asm volatile("ld.global.u32 %0, [%3];\nld.global.u32 %1, [%4];\nld.global.u32 %2, [%5];"
                 : "=r"(counts.tokens), "=r"(counts.requests), "=r"(counts.logit_rows)
                 : "l"(&step->tokens), "l"(&step->requests), "l"(&step->logit_rows));
    return counts;
}

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
}  // namespace
