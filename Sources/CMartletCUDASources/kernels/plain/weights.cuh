// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// One weight at a time, in the layouts `rows` (LAYOUT 0), `mma16x16` (1) and `mma16x16.paired8` (2); chunks
// interleaved over INTERLEAVE blocks if it is not 0.
#pragma once
#include "martlet.cuh"

#ifndef LAYOUT
#define LAYOUT 0
#endif
#ifndef INTERLEAVE
#define INTERLEAVE 0
#endif
#if WEIGHT == MARTLET_U4 || WEIGHT == MARTLET_U8
#define IS_CODED 1
#else
#define IS_CODED 0
#endif

struct PlainWeight {
    // rows: codes row by row as in a canonical quantized tensor (4-bit codes two to a byte, even k in the
    // low half, rows of whole bytes), or plain numbers. mma16x16: chunks, see mma16x16.cuh.
    const void* codes;
    const void* scales;  // rows: [N][groups]; mma16x16: [strips x 16] f32 where scales are per channel
    const void* zeros;
    i32 outputs, inputs, group_size;
    i32 group_stride;  // rows: groups of a row; 0 where the whole tensor has one scale
    i32 chunk_words;   // mma16x16: words of 512 bytes in a chunk
    i32 group_bytes;   // mma16x16: bytes of a group's scales and zeros; 0 for scales per channel

    /// Weight [n][k]. No fused operations, so that look-ups equal the CPU's bit for bit.
    __device__ __forceinline__ float get(i64 n, int k) const {
#if LAYOUT == 0
#if IS_CODED
        i64 group = n * group_stride + k / group_size;
        float zero = 0;
        if (ZERO == MARTLET_ZERO_INTEGER) zero = ((const u8*)zeros)[group];
        if (ZERO == MARTLET_ZERO_MINIMUM) zero = load<SCALE>(zeros, group);
        int code = WEIGHT == MARTLET_U4
            ? ((const u8*)codes)[n * ((inputs + 1) / 2) + k / 2] >> (k & 1) * 4 & 15
            : ((const u8*)codes)[n * inputs + k];
        return value(code, load<SCALE>(scales, group), zero);
#else
        return load<WEIGHT>(codes, n * inputs + k);
#endif
#else
        // The strip and the place in it, then the lane that holds it and where.
        int half = outputs / 2;
        i64 strip = LAYOUT == 1 ? n / 16 : n % half / 8;
        int place = LAYOUT == 1 ? n % 16 : n % half % 8 + (n < half ? 0 : 8);
        const int word_k = WEIGHT == MARTLET_U4 ? 64 : WEIGHT == MARTLET_U8 ? 32 : 16;
        int chunk_k = word_k * chunk_words, chunk = k / chunk_k, in_chunk = k % chunk_k;
        int groups = group_bytes > 0 ? chunk_k / group_size : 0;
        const u8* at = (const u8*)codes
            + chunk_index(strip, chunk, inputs / chunk_k, LAYOUT == 1 ? (outputs + 15) / 16 : (half + 7) / 8)
                * (chunk_words * 512 + groups * group_bytes);
        const u8* scale_at = at + chunk_words * 512;
        at += in_chunk / word_k * 512;
        int in_word = in_chunk % word_k, tile = in_word / 16, in_tile = in_word % 16;
        int lane = place % 8 * 4 + in_tile % 8 / 2, phase = in_tile / 8, high = place / 8, e = k & 1;
        at += lane * 16;
#if !IS_CODED
        return load<WEIGHT>(at, phase * 4 + high * 2 + e);
#else
        int code = WEIGHT == MARTLET_U4
            ? ((const u32*)at)[tile] >> (e * 4 + high * 2 + phase) * 4 & 15
            : at[tile * 8 + phase * 4 + high * 2 + e];
        float scale, zero = 0;
        if (group_bytes > 0) {
            const u16* pair = (const u16*)(scale_at + in_chunk / group_size * group_bytes
                + place % 8 * (ZERO == MARTLET_ZERO_NONE ? 4 : 8));
            scale = f16_to_f32(pair[high]);
            if (ZERO != MARTLET_ZERO_NONE) zero = f16_to_f32(pair[2 + high]);
        } else {
            scale = ((const float*)scales)[strip * 16 + place];
            if (ZERO != MARTLET_ZERO_NONE) zero = ((const float*)zeros)[strip * 16 + place];
        }
        return value(code, scale, zero);
#endif
#endif
    }

    /// Which chunk of the weight is the i-th of a strip; as `layout::chunk_index`.
    static __device__ __forceinline__ i64 chunk_index(i64 strip, int i, int strip_chunks, int strips) {
#if INTERLEAVE
        int few = strips / INTERLEAVE, longer = strips % INTERLEAVE, even = few * strip_chunks;
        bool is_longer = strip < longer * (few + 1);
        int block = is_longer ? strip / (few + 1) : (strip - longer) / (few > 0 ? few : 1);
        int j = (strip - (is_longer ? block * (few + 1) : longer + block * few)) * strip_chunks + i;
        return j < even ? (i64)j * INTERLEAVE + block
                        : (i64)even * INTERLEAVE + (i64)(j - even) * longer + block;
#else
        return strip * strip_chunks + i;
#endif
    }

    static __device__ __forceinline__ float value(int code, float scale, float zero) {
        if (ZERO == MARTLET_ZERO_MINIMUM) return __fadd_rn(__fmul_rn((float)code, scale), zero);
        int middle = ZERO == MARTLET_ZERO_INTEGER ? (int)zero : WEIGHT == MARTLET_U4 ? 8 : 128;
        return __fmul_rn((float)(code - middle), scale);
    }
};
