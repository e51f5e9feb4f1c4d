// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// A root-mean-square norm between two linears of many rows, without a kernel of its own: the linear in front (NEXT_NORM)
// also writes its results times the norm's weight, and each of its blocks sums of their squares; the one behind
// (FACTOR) multiplies these and applies 1 / rms to its sums. For bf16, whose range takes rows that are not normalized yet.
// Measured on an H100 (`bench_batch.py layer`), the four linears of a layer of baichuan2-7b with two norms, us with kernels
// between and without: 64 rows bf16 155, 153, int8 106, 103, int4 g128 86, 81.
#pragma once
#include "mma.cuh"

#ifndef NEXT_NORM
#define NEXT_NORM 0
#endif
#ifndef FACTOR
#define FACTOR 0
#endif

struct SharedNorm {
    Rows scaled;         // y times the weight; written
    const u16* weight;   // [N], of bf16
    float* squares;      // [parts][stride], a sum of squares of a row's part
    i32 stride, parts;
    float epsilon, reserved;
};

namespace {
/// Sum of a row's squares over all parts FROM, FROM + STEP ...; eight loads under way.
__device__ __forceinline__ float sum_of_squares(const SharedNorm& norm, int row, int from, int step) {
    float total = 0;
    for (int part = from; part < norm.parts; part += 8 * step) {
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            v[i] = 0;
            if (part + i * step < norm.parts) {
                asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v[i])
                             : "l"(norm.squares + (i64)(part + i * step) * norm.stride + row));
            }
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) total += v[i];
    }
    return total;
}
/// 1 / rms of a row.
__device__ __forceinline__ float norm_factor(const SharedNorm& norm, float squares, int columns) {
    return 1 / sqrtf(squares / columns + norm.epsilon);
}
/// A pair of results times the norm's weights; adds their squares to a sum.
__device__ __forceinline__ u32 scaled_pair(u32 pair, u32 weights, float& squares) {
    const float a = low_half<MARTLET_BF16>(pair), b = high_half<MARTLET_BF16>(pair);
    squares += a * a + b * b;
    return pack_pair<MARTLET_BF16>(a * low_half<MARTLET_BF16>(weights), b * high_half<MARTLET_BF16>(weights));
}
}  // namespace
