// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// How sums of `linear_prefill` become results: scaled, with bias, gate and residual, transposed through shared memory, so that
// 16 bytes of a token's row leave at once.
#pragma once
#include "hopper.cuh"
#include "linear_norm.cuh"
#include "weight_tiles.cuh"

namespace {
#if RESULT == MARTLET_F32
static_assert(!GATED && !BIAS && !RESIDUAL && !FACTOR, "f32 results are those of a head");
constexpr int staged_tokens = 32, staging_pitch = 64 * 4 + 16;  // 64 rows of a token, spread over the banks
#else
// Fewer at once where registers or shared memory are short.
constexpr int staged_tokens = tile_tokens % 64 || (FACTOR || NEXT_NORM) && tile_tokens == 256 ? 32 : 64, staging_pitch = 64 * 2 + 16;
#endif
constexpr int staging_bytes = staged_tokens * staging_pitch;  // of a warpgroup

#if RESULT == MARTLET_F32
/// Sums of a warpgroup's 64 rows and a tile's tokens become results, 32 tokens at a time.
template <class Arguments>
__device__ __forceinline__ void finish(const Arguments& a, float (&c)[tile_tokens / 2], u32 staging, u32 factors, int group,
    int first_place, int first_token, int tokens) {
    constexpr int vectors = 16, rounds = staged_tokens * vectors / 128;  // of four rows
    const int thread = threadIdx.x & 127, warp = thread >> 5, lane = thread & 31;
    float scale[2] = {1, 1};
    if (quantized && !grouped && first_place + warp < strips) {
        const int row = Strip(first_place + warp).index * 16 + (lane >> 2);
        scale[0] = a.scales[row];
        scale[1] = a.scales[row + 8];
    }
    const int own_place = first_place + thread % vectors / 4;
    const int first_column = Strip(own_place).index * 16 + thread % 4 * 4;
    const bool inside = own_place < strips && first_column < OUTPUTS;
    const u32 row_at = staging + (warp * 16 + (lane >> 2)) * 4;
#pragma unroll
    for (int part = 0; part < tile_tokens / staged_tokens; ++part) {
#pragma unroll
        for (int j = 0; j < staged_tokens / 8; ++j) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int token = j * 8 + (lane & 3) * 2 + (n & 1);
                asm volatile("st.shared.f32 [%0], %1;" ::"r"(row_at + token * staging_pitch + (n >> 1) * 32),
                    "f"(c[(part * (staged_tokens / 8) + j) * 4 + n] * scale[n >> 1]) : "memory");
            }
        }
        group_barrier(1 + group, 128);
#pragma unroll
        for (int i = 0; i < rounds; ++i) {
            const int token = i * (128 / vectors) + thread / vectors;
            const i64 y_row = first_token + part * staged_tokens + token;
            Word v = shared_word(staging + token * staging_pitch + thread % vectors * 16);
            if (y_row < tokens && inside) {
                asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(
                                 (u8*)a.y.base + (y_row * a.y.stride + first_column) * 4),
                    "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
            }
        }
        group_barrier(1 + group, 128);
    }
}
#else
/// Sums of a warpgroup's 64 rows and a tile's tokens become results.
///
/// `staged_tokens` at a time.
template <class Arguments>
__device__ __forceinline__ void finish(const Arguments& a, float (&c)[tile_tokens / 2], u32 staging, u32 factors, int group,
    int first_place, int first_token, int tokens) {
    constexpr int columns = GATED ? 32 : 64;  // results of a token in this warpgroup
    const int thread = threadIdx.x & 127, warp = thread >> 5, lane = thread & 31;
    const int outputs = GATED ? OUTPUTS / 2 : OUTPUTS;
    const int strip = Strip(first_place + warp).index;
    const bool is_strip = first_place + warp < strips;
    int row = strip * 16 + (lane >> 2);
    float scale[2] = {1, 1};
    if (quantized && !grouped && is_strip) {
        scale[0] = a.scales[row];
        scale[1] = a.scales[row + 8];
    }
    float bias[2] = {0, 0};
#if BIAS
    int place = GATED ? strip * 8 + (lane >> 2) : row;
    if (is_strip && place < outputs) bias[0] = load<RESULT>(a.bias, place);
    if (is_strip && (GATED ? place < outputs : row + 8 < outputs)) {
        bias[1] = load<RESULT>(a.bias, GATED ? outputs + place : row + 8);
    }
#endif
    constexpr int vectors = columns / 8, rounds = staged_tokens * vectors / 128;
    // A vector of 8 results is half a strip, or the whole one where gate and up became one.
    const int own_place = first_place + thread % vectors / (GATED ? 1 : 2);
    const int first_column =
        GATED ? Strip(own_place).index * 8 : Strip(own_place).index * 16 + thread % 2 * 8;
    const bool inside = own_place < strips && first_column < outputs;
    // A part's residuals are on their way while the part before is written.
    Word residual[RESIDUAL ? 2 : 1][rounds];
    auto fetch = [&](int part) {
#if RESIDUAL
#pragma unroll
        for (int i = 0; i < rounds; ++i) {
            i64 y_row = first_token + part * staged_tokens + i * (128 / vectors) + thread / vectors;
            if (y_row < tokens && inside) {
                residual[part & 1][i] = load_fresh(
                    (u8*)a.residual.base + (y_row * a.residual.stride + first_column) * 2);
            }
        }
#endif
    };
    fetch(0);
#if NEXT_NORM
    Word weights = {0, 0, 0, 0};
    if (inside) weights = load_once(a.norm.weight + first_column);
#endif
#pragma unroll
    for (int part = 0; part < tile_tokens / staged_tokens; ++part) {
        if (part + 1 < tile_tokens / staged_tokens) fetch(part + 1);
        // Transposed stores of 8 x 8: lane l gives the address of row l % 8 of matrix l / 8.
#pragma unroll
        for (int j = 0; j < staged_tokens / 8; j += (GATED ? 4 : 2)) {
            u32 pair[4];
#pragma unroll
            for (int n = 0; n < (GATED ? 4 : 2); ++n) {
                float* s = &c[(part * (staged_tokens / 8) + j + n) * 4];
#if FACTOR
                float factor[2];
                asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(factor[0]), "=f"(factor[1])
                             : "r"(factors + ((part * (staged_tokens / 8) + j + n) * 8 + (lane & 3) * 2) * 4));
#pragma unroll
                for (int i = 0; i < 4; ++i) s[i] *= factor[i & 1];
#endif
                float low[2] = {s[0] * scale[0] + bias[0], s[1] * scale[0] + bias[0]};
                float high[2] = {s[2] * scale[1] + bias[1], s[3] * scale[1] + bias[1]};
                if (GATED) {
                    pair[n] = pack_pair<RESULT>(gated(low[0], high[0]), gated(low[1], high[1]));
                } else {
                    pair[2 * n] = pack_pair<RESULT>(low[0], low[1]);
                    pair[2 * n + 1] = pack_pair<RESULT>(high[0], high[1]);
                }
            }
            int matrix = lane >> 3;
            int token = (j + (GATED ? matrix : matrix >> 1)) * 8 + (lane & 7);
            int column = GATED ? warp * 8 : warp * 16 + (matrix & 1) * 8;
            asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                             staging + token * staging_pitch + column * 2),
                "r"(pair[0]), "r"(pair[1]), "r"(pair[2]), "r"(pair[3]) : "memory");
        }
        group_barrier(1 + group, 128);
#pragma unroll
        for (int i = 0; i < rounds; ++i) {
            int token = i * (128 / vectors) + thread / vectors;
            i64 y_row = first_token + part * staged_tokens + token;
            Word v = shared_word(staging + token * staging_pitch + thread % vectors * 16);
            if (y_row < tokens && inside) {
                u8* target = (u8*)a.y.base + (y_row * a.y.stride + first_column) * 2;
#if RESIDUAL
                u32* to = &v.x;
                const u32* from = &residual[part & 1][i].x;
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    to[k] = pack_pair<RESULT>(low_half<RESULT>(to[k]) + low_half<RESULT>(from[k]),
                        high_half<RESULT>(to[k]) + high_half<RESULT>(from[k]));
                }
#endif
                asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(target), "r"(v.x), "r"(v.y),
                    "r"(v.z), "r"(v.w) : "memory");
            }
#if NEXT_NORM
            float squares = 0;
            if (y_row < tokens && inside) {
                Word p = {scaled_pair(v.x, weights.x, squares), scaled_pair(v.y, weights.y, squares),
                    scaled_pair(v.z, weights.z, squares), scaled_pair(v.w, weights.w, squares)};
                asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(
                                 (u16*)a.norm.scaled.base + y_row * a.norm.scaled.stride + first_column),
                    "r"(p.x), "r"(p.y), "r"(p.z), "r"(p.w) : "memory");
            }
            // The eight threads of a token are neighbours.
#pragma unroll
            for (int other = 1; other < vectors; other *= 2) squares += __shfl_xor_sync(~0u, squares, other);
            if (thread % vectors == 0 && y_row < tokens) {
                a.norm.squares[(i64)(first_place / 4) * a.norm.stride + y_row] = squares;
            }
#endif
        }
        group_barrier(1 + group, 128);
    }
}
#endif
}  // namespace
