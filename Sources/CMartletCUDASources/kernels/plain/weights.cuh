// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Weights in the layout `rows`: codes row by row as in a canonical quantized tensor, or plain numbers.
#pragma once
#include "martlet.cuh"

struct RowWeight {
    const void* codes;   // [N][K], 4-bit codes two to a byte, even k in the low half, rows of whole bytes
    const void* scales;  // [N][groups]
    const void* zeros;   // [N][groups]
    i32 outputs, inputs, group_size;
    i32 group_stride;    // groups of a row; 0 where the whole tensor has one scale

    /// Weight [n][k]. No fused operations, so that look-ups equal the CPU's bit for bit.
    __device__ __forceinline__ float get(i64 n, int k) const {
#if WEIGHT == MARTLET_U4 || WEIGHT == MARTLET_U8
#if WEIGHT == MARTLET_U4
        u8 pair = ((const u8*)codes)[n * ((inputs + 1) / 2) + k / 2];
        int code = k & 1 ? pair >> 4 : pair & 15;
        const int middle = 8;
#else
        int code = ((const u8*)codes)[n * inputs + k];
        const int middle = 128;
#endif
        i64 group = n * group_stride + k / group_size;
        float scale = load<SCALE>(scales, group);
#if ZERO == MARTLET_ZERO_NONE
        return __fmul_rn((float)(code - middle), scale);
#elif ZERO == MARTLET_ZERO_INTEGER
        return __fmul_rn((float)(code - (int)((const u8*)zeros)[group]), scale);
#else
        return __fadd_rn(__fmul_rn((float)code, scale), load<SCALE>(zeros, group));
#endif
#else
        return load<WEIGHT>(codes, n * inputs + k);
#endif
    }
};
