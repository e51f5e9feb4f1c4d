// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_{u8,u4}_int8g64_{gemv,panel}_avx2: y = W x. Codes and inputs are widened to 16 bits (even
// and odd k apart) for vpmaddwd, since vpmaddubsw saturates on u8 x s8.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx2.h"

enum { TOKENS = 4 };

MARTLET_INLINE void martlet_dot_block(
    martlet_vi *dots, const uint8_t *codes, const int bits, const int8_t *x, size_t x_stride,
    const int tokens, int block) {
    const __m256i even = _mm256_set1_epi16(255), low = _mm256_set1_epi8(15);
    __m256i sums[TOKENS][2];
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
        sums[t][0] = _mm256_setzero_si256();
        sums[t][1] = _mm256_setzero_si256();
    }
    for (int k4 = 0; k4 < block / 4; k4++) {
        __m256i w_even[2], w_odd[2];
        MARTLET_UNROLL for (int h = 0; h < 2; h++) {
            const uint8_t *from = codes + (bits == 8 ? k4 : k4 / 2) * 64 + 32 * h;
            __m256i w = _mm256_loadu_si256((const __m256i *)from);
            if (bits == 4) {
                if (k4 % 2) w = _mm256_srli_epi16(w, 4);
                w = _mm256_and_si256(w, low);
            }
            w_even[h] = _mm256_and_si256(w, even);
            w_odd[h] = _mm256_srli_epi16(w, 8);
        }
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            __m256i input =
                _mm256_set1_epi32((int)martlet_load_u32(x + (size_t)t * x_stride + k4 * 4));
            __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(input, 8), 8);
            __m256i x_odd = _mm256_srai_epi16(input, 8);
            MARTLET_UNROLL for (int h = 0; h < 2; h++) {
                __m256i products = _mm256_add_epi32(
                    _mm256_madd_epi16(w_even[h], x_even), _mm256_madd_epi16(w_odd[h], x_odd));
                sums[t][h] = _mm256_add_epi32(sums[t][h], products);
            }
        }
    }
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) martlet_copy(&dots[t], sums[t], 64);
}

#include "../shared/linear_int8g64_simple.inc.h"

MARTLET_TARGET_END

#endif
