// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_{u8,u4}_int8g64_{gemv,panel}_neon: y = W x. sdot where the compiler may use it (ARMv8.2
// dot product, on by default on Apple's chips), else widening products and pairwise sums.

#include "../shared/internal.h"

#if MARTLET_ARM

#include "neon.h"

enum { TOKENS = 4 };

/// Adds the products of four signed bytes per lane.
MARTLET_INLINE int32x4_t martlet_dot4(int32x4_t sum, int8x16_t a, int8x16_t b) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, a, b);
#else
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    int16x8_t high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}

MARTLET_INLINE void martlet_dot_block(
    martlet_vi *dots, const uint8_t *codes, const int bits, const int8_t *x, size_t x_stride,
    const int tokens, int block) {
    int32x4_t sums[TOKENS][4];
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
        // Codes of 8 bits go in as code - 128: 128 times the sum of x gives it back.
        int32x4_t sum = vdupq_n_s32(0);
        for (int k = 0; k < block && bits == 8; k += 16)
            sum = martlet_dot4(sum, vld1q_s8(x + (size_t)t * x_stride + k), vdupq_n_s8(1));
        int32x4_t start = vdupq_n_s32(128 * vaddvq_s32(sum));
        MARTLET_UNROLL for (int i = 0; i < 4; i++) sums[t][i] = start;
    }
    for (int k4 = 0; k4 < block / 4; k4++) {
        int8x16_t w[4];
        MARTLET_UNROLL for (int i = 0; i < 4; i++) {
            uint8x16_t packed = vld1q_u8(codes + (bits == 8 ? k4 : k4 / 2) * 64 + 16 * i);
            if (bits == 8) {
                packed = veorq_u8(packed, vdupq_n_u8(128));
            } else {
                packed = k4 % 2 ? vshrq_n_u8(packed, 4) : vandq_u8(packed, vdupq_n_u8(15));
            }
            w[i] = vreinterpretq_s8_u8(packed);
        }
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            int8x16_t input = vreinterpretq_s8_u32(
                vdupq_n_u32(martlet_load_u32(x + (size_t)t * x_stride + k4 * 4)));
            MARTLET_UNROLL for (int i = 0; i < 4; i++)
                sums[t][i] = martlet_dot4(sums[t][i], w[i], input);
        }
    }
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) martlet_copy(&dots[t], sums[t], 64);
}

#include "../shared/linear_int8g64_simple.inc.h"

#endif
