// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Ops from rows to rows: norm_plain, gated_plain, binary_plain, unary_plain, softmax_plain,
// normalize_plain, mean_plain, gather_plain. One block per row, or per row and 256 columns; each reads its
// operands once and writes its result once, but for the row statistics' second read, which the cache serves.
#include "martlet.cuh"

#define A ACTIVATION

// ---- Norms ----------------------------------------------------------------------------------------------

struct NormArguments {
    const StepCounts* step;
    Rows x, residual, sum, y;  // residual and sum may be absent
    Vector weight, bias;
    RowCount rows;
    i32 columns, is_layer;
    float epsilon;
};

MARTLET_KERNEL __launch_bounds__(256) norm_plain(const __grid_constant__ NormArguments a) {
    begin_in_chain();
    i64 row = blockIdx.x;
    if (row >= a.rows.of(a.step)) return;
    float total = 0;
    for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
        float x = a.x.get<A>(row, i);
        if (a.residual.base) x = Number<A>::get(Number<A>::put(x + a.residual.get<A>(row, i)));
        if (a.sum.base) a.sum.put<A>(row, i, x);
        total += a.is_layer ? x : x * x;
    }
    total = block_sum(total);
    float mean = 0;
    if (a.is_layer) {
        mean = total / a.columns;
        total = 0;
        for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
            float x = a.x.get<A>(row, i);
            if (a.residual.base) x = Number<A>::get(Number<A>::put(x + a.residual.get<A>(row, i)));
            total += (x - mean) * (x - mean);
        }
        total = block_sum(total);
    }
    float factor = 1 / sqrtf(total / a.columns + a.epsilon);
    for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
        float x = a.x.get<A>(row, i);
        if (a.residual.base) x = Number<A>::get(Number<A>::put(x + a.residual.get<A>(row, i)));
        x = (x - mean) * factor;
        if (a.weight.base) x *= a.weight.get(i);
        if (a.bias.base) x += a.bias.get(i);
        a.y.put<A>(row, i, x);
    }
}

// ---- Elements -------------------------------------------------------------------------------------------

__device__ __forceinline__ float activate(int kind, float x) {
    switch (kind) {
    case 0: return x / (1 + expf(-x));                           // silu
    case 1: return 0.5f * x * (1 + erff(x * 0.70710678f));       // gelu
    case 2:                                                      // geluTanh
        return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default: return x > 0 || x != x ? x : 0;                     // relu
    }
}

struct GatedArguments {
    const StepCounts* step;
    Rows gate, up, y;  // up may be absent
    RowCount rows;
    i32 columns, kind;
};

MARTLET_KERNEL __launch_bounds__(256) gated_plain(const __grid_constant__ GatedArguments a) {
    begin_in_chain();
    i64 row = blockIdx.x;
    int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= a.rows.of(a.step) || i >= a.columns) return;
    float y = activate(a.kind, a.gate.get<A>(row, i));
    if (a.up.base) y *= a.up.get<A>(row, i);
    a.y.put<A>(row, i, y);
}

struct BinaryArguments {
    const StepCounts* step;
    Rows a, b, y;  // b absent: the vector instead
    Vector vector;
    RowCount rows;
    i32 columns, multiplies;
};

MARTLET_KERNEL __launch_bounds__(256) binary_plain(const __grid_constant__ BinaryArguments a) {
    begin_in_chain();
    i64 row = blockIdx.x;
    int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= a.rows.of(a.step) || i >= a.columns) return;
    float x = a.a.get<A>(row, i);
    float y = a.b.base ? a.b.get<A>(row, i) : a.vector.get(i);
    a.y.put<A>(row, i, a.multiplies ? x * y : x + y);
}

struct UnaryArguments {
    const StepCounts* step;
    Rows x, y;
    RowCount rows;
    i32 columns, kind;  // 0 copy, 1 scale, 2 soft cap
    float factor;
    i32 reserved;
};

MARTLET_KERNEL __launch_bounds__(256) unary_plain(const __grid_constant__ UnaryArguments a) {
    begin_in_chain();
    i64 row = blockIdx.x;
    int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= a.rows.of(a.step) || i >= a.columns) return;
    float x = a.x.get<A>(row, i);
    if (a.kind == 1) x *= a.factor;
    if (a.kind == 2) x = a.factor * tanhf(x / a.factor);
    a.y.put<RESULT>(row, i, x);
}

// ---- Row statistics -------------------------------------------------------------------------------------

MARTLET_KERNEL __launch_bounds__(256) softmax_plain(const __grid_constant__ UnaryArguments a) {
    begin_in_chain();
    i64 row = blockIdx.x;
    if (row >= a.rows.of(a.step)) return;
    float greatest = -MARTLET_INFINITY, total = 0;
    for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
        greatest = fmaxf(greatest, a.x.get<A>(row, i));
    }
    greatest = block_max(greatest);
    for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
        total += expf(a.x.get<A>(row, i) - greatest);
    }
    total = block_sum(total);
    for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
        a.y.put<RESULT>(row, i, expf(a.x.get<A>(row, i) - greatest) / total);
    }
}

MARTLET_KERNEL __launch_bounds__(256) normalize_plain(const __grid_constant__ UnaryArguments a) {
    begin_in_chain();
    i64 row = blockIdx.x;
    if (row >= a.rows.of(a.step)) return;
    float total = 0;
    for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
        float x = a.x.get<A>(row, i);
        total += x * x;
    }
    total = block_sum(total);
    // A row of zeros stays zero.
    float factor = total == 0 ? 0 : 1 / sqrtf(total);
    for (int i = threadIdx.x; i < a.columns; i += blockDim.x) {
        a.y.put<RESULT>(row, i, a.x.get<A>(row, i) * factor);
    }
}

struct MeanArguments {
    const StepCounts* step;
    const i32* query_start;  // [B + 1]
    Rows x, y;
    i32 columns, reserved;
};

MARTLET_KERNEL __launch_bounds__(256) mean_plain(const __grid_constant__ MeanArguments a) {
    begin_in_chain();
    int request = blockIdx.x;
    int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (request >= a.step->requests || i >= a.columns) return;
    int first = a.query_start[request], end = a.query_start[request + 1];
    double total = 0;
    for (int row = first; row < end; ++row) total += a.x.get<A>(row, i);
    a.y.put<A>(request, i, (float)(total / max(end - first, 1)));
}

struct GatherArguments {
    const StepCounts* step;
    const i32* logit_rows;  // [O]
    Rows x, y;
    i32 columns, reserved;
};

MARTLET_KERNEL __launch_bounds__(256) gather_plain(const __grid_constant__ GatherArguments a) {
    begin_in_chain();
    i64 row = blockIdx.x;
    int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= a.step->logit_rows || i >= a.columns) return;
    a.y.put<A>(row, i, a.x.get<A>(a.logit_rows[row], i));
}
