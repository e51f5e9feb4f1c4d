// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_u8_int8g64_{gemv,panel}_avx2: y = W x, W in 8-bit codes of layout panel16, x in int8g64.
// Codes and inputs are widened to 16 bits (even and odd k apart) for vpmaddwd, since vpmaddubsw
// saturates on u8 x s8. Order of operations: martlet_linear_arguments.
//
// Measured, AMD EPYC (Zen 3), 2-core VM with other work on it, 2026-11-26, K = 2048, per channel:
// panel, 128 tokens, one core 95 Gop/s, two 154. gemv from memory, one token: one thread 11-12 GB/s,
// two 16-19 GB/s.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx2.h"

#define BITS 8
#define GEMV_NAME ISA(linear_u8_int8g64_gemv)
#define PANEL_NAME ISA(linear_u8_int8g64_panel)

MARTLET_INLINE void martlet_half_dots(
    __m256i sums[][2], const uint8_t *codes, const int8_t *x, size_t x_stride, const int tokens) {
    const __m256i even = _mm256_set1_epi16(255);
    MARTLET_UNROLL for (int k4 = 0; k4 < 8; k4++) {
        __m256i w_even[2], w_odd[2];
        MARTLET_UNROLL for (int h = 0; h < 2; h++) {
            __m256i w = _mm256_loadu_si256((const __m256i *)(codes + k4 * 64 + 32 * h));
            w_even[h] = _mm256_and_si256(w, even);
            w_odd[h] = _mm256_srli_epi16(w, 8);
        }
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            __m256i input = martlet_spread_u32(x + (size_t)t * x_stride + k4 * 4);
            __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(input, 8), 8);
            __m256i x_odd = _mm256_srai_epi16(input, 8);
            MARTLET_UNROLL for (int h = 0; h < 2; h++) {
                __m256i products = _mm256_add_epi32(
                    _mm256_madd_epi16(w_even[h], x_even), _mm256_madd_epi16(w_odd[h], x_odd));
                sums[t][h] = k4 ? _mm256_add_epi32(sums[t][h], products) : products;
            }
        }
    }
}

#include "linear_int8g64.inc.h"

MARTLET_TARGET_END

#endif
