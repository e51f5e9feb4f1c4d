// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// What stands between the large products of a prefill: norm_prefill and rotate_prefill. Each
// reads its rows once and writes its results once, 16 bytes a thread and access; floor: bytes / copy bandwidth.
//
//   ACTIVATION               type of rows: f16 or bf16
//   COLUMNS                  of norm, a multiple of 8
//   HEADS KV_HEADS HEAD_DIM  of rotate; HEAD_DIM a multiple of 8
//   ROTARY                   0: none; 1: halves; 2: neighbours
#include "martlet.cuh"

namespace {
/// Eight 16-bit numbers.
struct alignas(16) Eight {
    u16 x[8];
};
__device__ __forceinline__ Eight eight(const Rows& rows, i64 row, int column) {
    return *(const Eight*)((const u16*)rows.base + row * rows.stride + column);
}
__device__ __forceinline__ void put(const Rows& rows, i64 row, int column, const Eight& value) {
    *(Eight*)((u16*)rows.base + row * rows.stride + column) = value;
}

}  // namespace

#ifdef COLUMNS
struct RowNormArguments {
    const StepCounts* step;
    RowCount rows;
    Rows x, y;
    const u16* weight;  // [COLUMNS], of ACTIVATION's type
    float epsilon;
};

/// y = x / rms(x) weight; a block a row, which stays in registers.
MARTLET_KERNEL __launch_bounds__(256) norm_prefill(const __grid_constant__ RowNormArguments a) {
    constexpr int vectors = (COLUMNS / 8 + 255) / 256;
    // The linear behind asks for its first weights meanwhile.
    release_dependents();
    wait_for_producers();
    i64 row = blockIdx.x;
    if (row >= a.rows.of(a.step)) return;
    Eight x[vectors];
    float total = 0;
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
        int column = (v * 256 + threadIdx.x) * 8;
        if (column >= COLUMNS) break;
        x[v] = eight(a.x, row, column);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float value = Number<ACTIVATION>::get(x[v].x[i]);
            total += value * value;
        }
    }
    float factor = 1 / sqrtf(block_sum(total) / COLUMNS + a.epsilon);
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
        int column = (v * 256 + threadIdx.x) * 8;
        if (column >= COLUMNS) break;
        Eight weight = *(const Eight*)(a.weight + column), y;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float value = Number<ACTIVATION>::get(x[v].x[i]) * factor;
            y.x[i] = Number<ACTIVATION>::put(value * Number<ACTIVATION>::get(weight.x[i]));
        }
        put(a.y, row, column, y);
    }
}
#endif

#ifdef HEADS
struct RotateArguments {
    const StepCounts* step;
    const i32* positions;
    Rows q, k, v;
    Rows y;  // rotated q; absent where q is not rotated
    const float* cosines;
    const float* sines;
    i32 pairs, is_half;
    KVPages kv;
};

namespace {
/// Eight elements of a head from `d` on, rotated.
__device__ __forceinline__ Eight rotated(const RotateArguments& a, const Rows& x, i64 row, int start, int d) {
    Eight own = eight(x, row, start + d);
#if ROTARY
    if (d >= 2 * a.pairs) return own;
    i64 angles = (i64)a.positions[row] * a.pairs;
#if ROTARY == 1
    bool first = d < a.pairs;
    Eight beside = eight(x, row, start + (first ? d + a.pairs : d - a.pairs));
    angles += first ? d : d - a.pairs;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        float c = a.cosines[angles + i], s = a.sines[angles + i];
        float mine = Number<ACTIVATION>::get(own.x[i]), other = Number<ACTIVATION>::get(beside.x[i]);
        own.x[i] = Number<ACTIVATION>::put(first ? mine * c - other * s : mine * c + other * s);
    }
#else
    angles += d / 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        float c = a.cosines[angles + i], s = a.sines[angles + i];
        float even = Number<ACTIVATION>::get(own.x[2 * i]), odd = Number<ACTIVATION>::get(own.x[2 * i + 1]);
        own.x[2 * i] = Number<ACTIVATION>::put(even * c - odd * s);
        own.x[2 * i + 1] = Number<ACTIVATION>::put(odd * c + even * s);
    }
#endif
#endif
    return own;
}
}  // namespace

/// q and k rotated by their positions; k and v into their pages. A thread 8 elements of a token; not of requests of one token
/// in front of all others.
MARTLET_KERNEL __launch_bounds__(256) rotate_prefill(const __grid_constant__ RotateArguments a) {
    wait_for_producers();
    release_dependents();
    i64 row = blockIdx.x + a.step->singles;
    int index = blockIdx.y * 256 + threadIdx.x, head = index / (HEAD_DIM / 8), d = index % (HEAD_DIM / 8) * 8;
    if (row >= a.step->tokens || head >= HEADS + 2 * KV_HEADS) return;
    if (head < HEADS) {
        if (a.y.base) put(a.y, row, head * HEAD_DIM + d, rotated(a, a.q, row, head * HEAD_DIM, d));
        return;
    }
    int slot = a.kv.slot[row];
    if (slot < 0) return;
    bool is_value = head >= HEADS + KV_HEADS;
    head -= is_value ? HEADS + KV_HEADS : HEADS;
    Eight value = is_value ? eight(a.v, row, head * HEAD_DIM + d) : rotated(a, a.k, row, head * HEAD_DIM, d);
    u8* block = a.kv.block_of_slot(slot) + (is_value ? KV_HEADS * 64 * HEAD_DIM * 2 : 0);
    *(Eight*)(block + ((head * 64 + slot % 64) * HEAD_DIM + d) * 2) = value;
}
#endif
