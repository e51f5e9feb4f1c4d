// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// greedy_decode: each row's token from the candidates that the head's blocks left. One warp per row.
#include "martlet.cuh"

struct Candidate {
    float value;
    i32 index;
};

struct GreedyArguments {
    const Candidate* best;  // [rows][count]
    i32* tokens;            // [rows]
    i32 count, rows;
};

MARTLET_KERNEL __launch_bounds__(32) greedy_decode(const __grid_constant__ GreedyArguments a) {
    wait_for_producers();
    Candidate best = {-MARTLET_INFINITY, 0x7fffffff};
    for (int i = lane_index(); i < a.count; i += 32) {
        Candidate other = a.best[blockIdx.x * a.count + i];
        if (other.value > best.value || (other.value == best.value && other.index < best.index)) best = other;
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        float value = __shfl_xor_sync(~0u, best.value, offset);
        int index = __shfl_xor_sync(~0u, best.index, offset);
        if (value > best.value || (value == best.value && index < best.index)) best = {value, index};
    }
    if (lane_index() == 0) a.tokens[blockIdx.x] = best.index;
}
