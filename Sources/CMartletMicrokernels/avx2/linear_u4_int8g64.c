// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_u4_int8g64_{gemv,panel}_avx2: y = W x, W in 4-bit codes of layout panel16, x in int8g64.
// vpmaddubsw of a code (at most 15) and an input (at most 127) is at most 3,810, so that eight of
// them, 32 inputs, add up in 16 bits; one vpmaddwd widens their sum.
// Order of operations: martlet_linear_arguments.
//
// Measured, AMD EPYC (Zen 3), 2-core VM with other work on it, 2026-11-26, K = 2048 and 5632, g128,
// best of 5: panel, 128 tokens, one core 115-164 Gop/s (pairs of vpmaddubsw and vpaddw reach 274),
// two 223-240, at least 1.8 times what codes widened for vpmaddwd gave in the same run. gemv from
// memory, one token: one thread 11 GB/s, two 17-20 GB/s (6 and 12 widened).

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx2.h"

#define BITS 4
#define GEMV_NAME ISA(linear_u4_int8g64_gemv)
#define PANEL_NAME ISA(linear_u4_int8g64_panel)

MARTLET_INLINE void martlet_half_dots(
    __m256i sums[][2], const uint8_t *codes, const int8_t *x, size_t x_stride, const int tokens) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    MARTLET_UNROLL for (int k4 = 0; k4 < 8; k4++) {
        __m256i w[2];
        MARTLET_UNROLL for (int h = 0; h < 2; h++) {
            w[h] = _mm256_loadu_si256((const __m256i *)(codes + k4 / 2 * 64 + 32 * h));
            if (k4 % 2) w[h] = _mm256_srli_epi16(w[h], 4);
            w[h] = _mm256_and_si256(w[h], low);
        }
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            __m256i input = martlet_spread_u32(x + (size_t)t * x_stride + k4 * 4);
            MARTLET_UNROLL for (int h = 0; h < 2; h++) {
                __m256i products = _mm256_maddubs_epi16(w[h], input);
                sums[t][h] = k4 ? _mm256_add_epi16(sums[t][h], products) : products;
                // Keeps the compiler from adding in another order, which spills registers.
                __asm__("" : "+x"(sums[t][h]));
            }
        }
    }
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
        MARTLET_UNROLL for (int h = 0; h < 2; h++)
            sums[t][h] = _mm256_madd_epi16(sums[t][h], ones);
    }
}

#include "linear_int8g64.inc.h"

MARTLET_TARGET_END

#endif
