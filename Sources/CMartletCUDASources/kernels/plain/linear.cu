// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// linear_plain, embedding_plain: any weight format in any layout, decoded on the fly.
//
// linear: one warp per output and tile of 8 rows; lane l takes k = l, l + 32, ...; sums in f32, then over
// the lanes in a fixed order, so a row's result does not depend on the rows beside it. Bytes: the weight
// once per 8 rows. Meant to be right everywhere, not fast.
#include "weights.cuh"

struct LinearArguments {
    const StepCounts* step;
    Rows x, y;
    PlainWeight w;
    Vector bias;
    RowCount rows;
};

MARTLET_KERNEL __launch_bounds__(256) linear_plain(const __grid_constant__ LinearArguments a) {
    begin_in_chain();
    const int tile = 8;
    int rows = a.rows.of(a.step);
    int first = blockIdx.y * tile;
    i64 n = (i64)blockIdx.x * (blockDim.x / 32) + warp_index();
    if (n >= a.w.outputs || first >= rows) return;
    int count = min(tile, rows - first);
    float sums[tile];
#pragma unroll
    for (int r = 0; r < tile; ++r) sums[r] = 0;
    for (int k = lane_index(); k < a.w.inputs; k += 32) {
        float w = a.w.get(n, k);
#pragma unroll
        for (int r = 0; r < tile; ++r) {
            if (r < count) sums[r] = fmaf(a.x.get<ACTIVATION>(first + r, k), w, sums[r]);
        }
    }
    float bias = a.bias.base ? a.bias.get(n) : 0;
#pragma unroll
    for (int r = 0; r < tile; ++r) {
        float sum = warp_sum(sums[r]);
        if (r < count && lane_index() == 0) a.y.put<RESULT>(first + r, n, sum + bias);
    }
}

struct EmbeddingArguments {
    const StepCounts* step;
    const i32* sources;      // [T] an id; -1 - k: row k of `previous`; from the smallest number on: given rows
    const i32* previous;     // tokens that the step before sampled
    const float* given;      // rows given as embeddings
    Rows y;
    PlainWeight w;
};

MARTLET_KERNEL __launch_bounds__(256) embedding_plain(const __grid_constant__ EmbeddingArguments a) {
    begin_in_chain();
    int row = blockIdx.x;
    if (row >= a.step->tokens) return;
    int id = a.sources[row];
    int given = -1;
    if (id < -(1 << 30)) {
        given = id - (int)0x80000000;
    } else if (id < 0) {
        id = a.previous[-1 - id];
    }
    for (int k = blockIdx.y * blockDim.x + threadIdx.x; k < a.w.inputs; k += gridDim.y * blockDim.x) {
        float x;
        if (given >= 0) {
            x = a.given[(i64)given * a.w.inputs + k];
        } else {
            // A row that failed before has no token: its numbers end its own request.
            x = id < 0 || id >= a.w.outputs ? MARTLET_NAN : a.w.get(id, k);
        }
        a.y.put<RESULT>(row, k, x);
    }
}
