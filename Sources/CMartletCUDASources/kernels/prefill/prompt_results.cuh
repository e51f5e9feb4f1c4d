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
constexpr int most_staged = 32, staging_pitch = 64 * 4 + 16;  // 64 rows of a token, spread over the banks
#else
// Fewer at once where registers or shared memory are short.
constexpr int most_staged = (FACTOR || NEXT_NORM) && tile_tokens == 256 ? 32 : 64, staging_pitch = 64 * 2 + 16;
#endif
/// Tokens that leave at once.
constexpr int staged_tokens = tile_tokens % most_staged == 0 ? most_staged : tile_tokens % 32 == 0 ? 32 : 16;
constexpr int staging_bytes = staged_tokens * staging_pitch;  // of a warpgroup

/// A warpgroup's results: 64 rows of the weight of a tile.
template <class Arguments> struct Results {
    static constexpr int columns = GATED ? 32 : 64;  // results of a token
    static constexpr int outputs = GATED ? OUTPUTS / 2 : OUTPUTS;
    // Of 16 bytes: a quarter of a strip in f32, a half, or the whole one where gate and up became one.
    static constexpr int strip_vectors = RESULT == MARTLET_F32 ? 4 : GATED ? 1 : 2, vectors = 4 * strip_vectors;
    static constexpr int rounds = (staged_tokens * vectors + 127) / 128;  // of a thread, for the tokens that leave at once

    const Arguments& a;
    const u32 staging, factors;  // in shared memory
    const int tokens;
    const int thread, warp, lane;
    // Of a tile:
    int first_token, first_column;
    bool is_inside;  // this thread's columns
    float scale[2], bias[2];

    __device__ __forceinline__ Results(const Arguments& a, u32 staging, u32 factors, int tokens)
        : a(a), staging(staging), factors(factors), tokens(tokens), thread(threadIdx.x & 127), warp(thread >> 5),
          lane(thread & 31) {}

    /// Writes a tile's results; a part's residuals are on their way while the part before is written.
    __device__ __forceinline__ void put(float (&c)[tile_tokens / 2], const Tile& tile, int group) {
        begin(tile, group);
#if NEXT_NORM
        Word weights = {0, 0, 0, 0};
        if (is_inside) weights = load_once(a.norm.weight + first_column);
#endif
        constexpr int parts = tile_tokens / staged_tokens;
        Word residual[RESIDUAL ? 2 : 1][rounds];
        fetch(residual[0], 0);
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            if (part + 1 < parts) fetch(residual[RESIDUAL ? part + 1 & 1 : 0], (part + 1) * staged_tokens);
            stage(&c[part * staged_tokens / 2], part * staged_tokens);
            group_barrier(1 + group, 128);
#pragma unroll
            for (int i = 0; i < rounds; ++i) {
                const int token = token_of(i);
                const i64 row = first_token + part * staged_tokens + token;
                const bool is_there = this->is_there(token, row);
                Word v = shared_word(staging + token * staging_pitch + thread % vectors * 16);
                if (is_there) {
                    if constexpr (RESIDUAL != 0) add(v, residual[RESIDUAL ? part & 1 : 0][i]);
                    store((u8*)a.y.base + (row * a.y.stride + first_column) * (RESULT == MARTLET_F32 ? 4 : 2), v);
                }
#if NEXT_NORM
                float squares = 0;
                if (is_there) {
                    Word p = {scaled_pair(v.x, weights.x, squares), scaled_pair(v.y, weights.y, squares),
                        scaled_pair(v.z, weights.z, squares), scaled_pair(v.w, weights.w, squares)};
                    store((u16*)a.norm.scaled.base + row * a.norm.scaled.stride + first_column, p);
                }
                // The eight threads of a token are neighbours.
#pragma unroll
                for (int other = 1; other < vectors; other *= 2) squares += __shfl_xor_sync(~0u, squares, other);
                if (thread % vectors == 0 && is_there) {
                    a.norm.squares[(i64)(tile.place / 4 + group) * a.norm.stride + row] = squares;
                }
#endif
            }
            group_barrier(1 + group, 128);
        }
    }

  private:
    __device__ __forceinline__ void begin(const Tile& tile, int group) {
        const int first_place = tile.place + group * 4, strip = Strip(first_place + warp).index, row = strip * 16 + (lane >> 2);
        const bool is_strip = first_place + warp < strips;
        first_token = tile.token;
        scale[0] = scale[1] = 1;
        if (quantized && !grouped && is_strip) {
            scale[0] = a.scales[row];
            scale[1] = a.scales[row + 8];
        }
        bias[0] = bias[1] = 0;
#if BIAS
        const int place = GATED ? strip * 8 + (lane >> 2) : row;
        if (is_strip && place < outputs) bias[0] = load<RESULT>(a.bias, place);
        if (is_strip && (GATED ? place < outputs : row + 8 < outputs)) {
            bias[1] = load<RESULT>(a.bias, GATED ? outputs + place : row + 8);
        }
#endif
        const int own_place = first_place + thread % vectors / strip_vectors;
        first_column = Strip(own_place).index * (columns / 4) + thread % strip_vectors * (columns / vectors);
        is_inside = own_place < strips && first_column < outputs;
    }

    /// The token of this thread's vector among those that leave at once.
    __device__ __forceinline__ int token_of(int round) const { return round * (128 / vectors) + thread / vectors; }
    /// Whether there is such a vector, of a row of the step.
    __device__ __forceinline__ bool is_there(int token, i64 row) const {
        return (staged_tokens * vectors % 128 == 0 || token < staged_tokens) && row < tokens && is_inside;
    }

    __device__ __forceinline__ void fetch(Word (&residual)[rounds], int first) const {
#if RESIDUAL
#pragma unroll
        for (int i = 0; i < rounds; ++i) {
            const i64 row = first_token + first + token_of(i);
            if (is_there(token_of(i), row)) {
                residual[i] = load_fresh((u8*)a.residual.base + (row * a.residual.stride + first_column) * 2);
            }
        }
#endif
    }

    __device__ __forceinline__ static void add(Word& v, const Word& other) {
        u32* to = &v.x;
        const u32* from = &other.x;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            to[k] = pack_pair<RESULT>(
                low_half<RESULT>(to[k]) + low_half<RESULT>(from[k]), high_half<RESULT>(to[k]) + high_half<RESULT>(from[k]));
        }
    }
    __device__ __forceinline__ static void store(void* to, const Word& v) {
        asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
    }

#if RESULT == MARTLET_F32
    __device__ __forceinline__ void stage(const float* c, int) const {
        const u32 row_at = staging + (warp * 16 + (lane >> 2)) * 4;
#pragma unroll
        for (int j = 0; j < staged_tokens / 8; ++j) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int token = j * 8 + (lane & 3) * 2 + (n & 1);
                asm volatile("st.shared.f32 [%0], %1;" ::"r"(row_at + token * staging_pitch + (n >> 1) * 32),
                    "f"(c[j * 4 + n] * scale[n >> 1]) : "memory");
            }
        }
    }
#else
    /// Transposed stores of 8 x 8: lane l gives the address of row l % 8 of matrix l / 8.
    __device__ __forceinline__ void stage(float* c, int first) const {
        // Sums of 8 tokens that one store takes: two pairs of each, or one where gate and up became one.
        constexpr int together = GATED && staged_tokens % 32 == 0 ? 4 : 2;
#pragma unroll
        for (int j = 0; j < staged_tokens / 8; j += together) {
            u32 pair[4];
#pragma unroll
            for (int n = 0; n < together; ++n) {
                float* s = &c[(j + n) * 4];
#if FACTOR
                float factor[2];
                asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(factor[0]), "=f"(factor[1])
                             : "r"(factors + (first + (j + n) * 8 + (lane & 3) * 2) * 4));
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
            const int matrix = lane >> 3;
            const int token = (j + (GATED ? matrix % together : matrix >> 1)) * 8 + (lane & 7);
            const u32 to = staging + token * staging_pitch + (GATED ? warp * 8 : warp * 16 + (matrix & 1) * 8) * 2;
            if (GATED && together == 2) {
                asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1,%2};" ::"r"(to), "r"(pair[0]),
                    "r"(pair[1]) : "memory");
            } else {
                asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(to),
                    "r"(pair[0]), "r"(pair[1]), "r"(pair[2]), "r"(pair[3]) : "memory");
            }
        }
    }
#endif
};
}  // namespace
