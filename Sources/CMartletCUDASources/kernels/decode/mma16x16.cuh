// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// The weight layout `mma16x16` and how its codes become operands of the matrix instruction.
//
// Strips of 16 rows, one after the other (the last one padded with zeros). A strip is a sequence of chunks
// along k; a chunk is `words` x 512 bytes, then its groups' scales. Of each 512 bytes lane l = 4 g + t owns
// 16: with rows g, g + 8 and k pairs p = 2t, 2t + 1 and p' = p + 8 of a 16 x 16 tile, in this order
//   16 bits: (g,p) (g+8,p) (g,p') (g+8,p')                          one tile, 16 k
//   8 bits:  bytes in the same order                                two tiles, 32 k
//   4 bits:  one 32-bit number per tile, nibbles from the lowest    four tiles, 64 k
//            (g,2t) (g,2t+8) (g+8,2t) (g+8,2t+8) (g,2t+1) (g,2t+9) (g+8,2t+1) (g+8,2t+9)
// A chunk has 4 words if they divide the strip, else 2, else 1. Scales: per group, for g = 0...7, f16
// (g, g + 8), and behind them the zeros likewise if there are any. Per-channel scales and zeros are f32 in
// planes of their own, padded to whole strips.
// `mma16x16.paired8`: rows 0...7 of a strip are gate rows, 8...15 the up rows of the same outputs.
// `mma16x16.interleaveN` (-DINTERLEAVE=N): N blocks own whole strips, those with one more come first; chunk
// j of block b lies at j N + b, so that all blocks together read memory in order.
#pragma once
#include "mma.cuh"

namespace layout {
constexpr bool quantized = WEIGHT == MARTLET_U4 || WEIGHT == MARTLET_U8;
// Codes become exact f16 numbers, or exact bf16 ones beside x in bf16 (MATH, the type of x); f16 and bf16 weights are multiplied in their own type.
#ifndef MATH
#define MATH MARTLET_F16
#endif
constexpr int math = quantized ? MATH : WEIGHT;
constexpr int word_k = WEIGHT == MARTLET_U4 ? 64 : WEIGHT == MARTLET_U8 ? 32 : 16;
constexpr int strip_words = INPUTS / word_k;
constexpr int words = strip_words % 4 == 0 ? 4 : strip_words % 2 == 0 ? 2 : 1;
constexpr int chunk_k = words * word_k;
constexpr int strip_chunks = INPUTS / chunk_k;
constexpr bool grouped = quantized && GROUP > 0;
constexpr bool has_zeros = quantized && ZERO != MARTLET_ZERO_NONE;
// Biases of codes are subtracted, from sums of x, once per so many k.
constexpr int sum_k = grouped ? GROUP : chunk_k < 128 ? chunk_k : 128;
constexpr int chunk_sums = quantized ? chunk_k / sum_k : 0;
constexpr int group_bytes = has_zeros ? 64 : 32;
constexpr int chunk_bytes = words * 512 + (grouped ? chunk_sums * group_bytes : 0);
static_assert(INPUTS % word_k == 0, "inputs must fill whole words of the layout");
static_assert(!grouped || chunk_k % GROUP == 0, "a chunk must hold whole groups");
static_assert(!quantized || sum_k % 32 == 0, "groups of 32, 64 or 128");

/// Makes bf16 pairs of a group's f16 scales and zeros. A minimum becomes that of codes less their middle: it is small then,
/// and so is its rounding.
__device__ __forceinline__ void round_scales(u32& scales, u32& zeros) {
    constexpr float middle = ZERO != MARTLET_ZERO_MINIMUM ? 0 : WEIGHT == MARTLET_U4 ? 8 : 128;
    const float s[2] = {low_half<MARTLET_F16>(scales), high_half<MARTLET_F16>(scales)};
    scales = pack_pair<MARTLET_BF16>(s[0], s[1]);
    if (!has_zeros) return;
    zeros = pack_pair<MARTLET_BF16>(
        fmaf(middle, s[0], low_half<MARTLET_F16>(zeros)), fmaf(middle, s[1], high_half<MARTLET_F16>(zeros)));
}

/// Which chunk of the weight is the i-th of a strip.
__device__ __forceinline__ i64 chunk_index(int strip, int i) {
#if INTERLEAVE
    constexpr int strips = (OUTPUTS + 15) / 16, few = strips / INTERLEAVE, longer = strips % INTERLEAVE;
    constexpr int even = few * strip_chunks, least = few > 0 ? few : 1;
    bool is_longer = strip < longer * (few + 1);
    int block = is_longer ? strip / (few + 1) : (strip - longer) / least;
    int j = (strip - (is_longer ? block * (few + 1) : longer + block * few)) * strip_chunks + i;
    return j < even ? (i64)j * INTERLEAVE + block : (i64)even * INTERLEAVE + (i64)(j - even) * longer + block;
#else
    return (i64)strip * strip_chunks + i;
#endif
}
}  // namespace layout

/// A chunk as one lane holds it.
struct Chunk {
    Word words[layout::words];
    u32 groups[layout::grouped ? layout::chunk_sums * (layout::has_zeros ? 2 : 1) : 1];

    __device__ __forceinline__ void load(const u8* p, int lane) {
#pragma unroll
        for (int i = 0; i < layout::words; ++i) words[i] = load_once(p + i * 512 + lane * 16);
        if (!layout::grouped) return;
        const u8* at = p + layout::words * 512 + (lane >> 2) * (layout::has_zeros ? 8 : 4);
#pragma unroll
        for (int i = 0; i < layout::chunk_sums; ++i) {
            if (layout::has_zeros) {
                asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];"
                             : "=r"(groups[2 * i]), "=r"(groups[2 * i + 1])
                             : "l"(at + i * layout::group_bytes));
            } else {
                asm volatile("ld.global.nc.u32 %0, [%1];"
                             : "=r"(groups[i]) : "l"(at + i * layout::group_bytes));
            }
        }
    }
    __device__ __forceinline__ u32 scales(int group) const {
        return groups[group * (layout::has_zeros ? 2 : 1)];
    }
    __device__ __forceinline__ u32 zeros(int group) const { return groups[group * 2 + 1]; }
};

/// Multiplies tiles 2i and 2i + 1 of a chunk's 32 k by x = (b0, b1) of both tiles.
///
/// In 4-bit chunks the second half of each tile counts 16 times: x holds a sixteenth there.
template <int I, int N>
__device__ __forceinline__ void multiply_pair(float (&c)[2][4], const Word (&w)[N], const Word& x) {
    constexpr int type = layout::math;
#if WEIGHT == MARTLET_U4
    u32 g = I & 1 ? w[I / 2].z : w[I / 2].x, h = I & 1 ? w[I / 2].w : w[I / 2].y;
    u32 g8 = g >> 8, h8 = h >> 8;
    mma<type>(c[0], nibbles<0x000f000f>(g), nibbles<0x000f000f>(g8), nibbles<0x00f000f0>(g),
        nibbles<0x00f000f0>(g8), x.x, x.y);
    mma<type>(c[1], nibbles<0x000f000f>(h), nibbles<0x000f000f>(h8), nibbles<0x00f000f0>(h),
        nibbles<0x00f000f0>(h8), x.z, x.w);
#elif WEIGHT == MARTLET_U8
    const u32 magic = 0x64646464;
    mma<type>(c[0], __byte_perm(w[I].x, magic, 0x4140), __byte_perm(w[I].x, magic, 0x4342),
        __byte_perm(w[I].y, magic, 0x4140), __byte_perm(w[I].y, magic, 0x4342), x.x, x.y);
    mma<type>(c[1], __byte_perm(w[I].z, magic, 0x4140), __byte_perm(w[I].z, magic, 0x4342),
        __byte_perm(w[I].w, magic, 0x4140), __byte_perm(w[I].w, magic, 0x4342), x.z, x.w);
#else
    mma<type>(c[0], w[2 * I].x, w[2 * I].y, w[2 * I].z, w[2 * I].w, x.x, x.y);
    if (2 * I + 1 < N) {
        constexpr int next = 2 * I + 1 < N ? 2 * I + 1 : 0;
        mma<type>(c[1], w[next].x, w[next].y, w[next].z, w[next].w, x.z, x.w);
    }
#endif
}
