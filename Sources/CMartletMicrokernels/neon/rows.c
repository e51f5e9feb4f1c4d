// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Row operations, attention, reductions, conversions and the table of NEON.

#include "../shared/internal.h"

#if MARTLET_ARM

#include "neon.h"
#include "../shared/rows.inc.h"

/// Attention: accumulators, rows of a tile, and vectors of V per row and pass.
enum { ATTENTION_SUMS = 8, ATTENTION_ROWS = 8, MIX_VECTORS = 2 };
#include "../shared/attention.inc.h"

static uint64_t probe_read(const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    uint64x2_t sums[8];
    for (int j = 0; j < 8; j++) sums[j] = vdupq_n_u64(0);
    for (size_t i = 0; i + 128 <= count; i += 128) {
        MARTLET_UNROLL for (int j = 0; j < 8; j++)
            sums[j] = vaddq_u64(sums[j], vreinterpretq_u64_u8(vld1q_u8(p + i + 16 * j)));
    }
    for (int j = 1; j < 8; j++) sums[0] = vaddq_u64(sums[0], sums[j]);
    return vaddvq_u64(sums[0]);
}

static double probe_int8(size_t iterations) {
    int32x4_t sums[16];
    int8x16_t a = vdupq_n_s8(3);
    for (int j = 0; j < 16; j++) sums[j] = vdupq_n_s32(j);
    for (size_t i = 0; i < iterations; i++) {
        MARTLET_UNROLL for (int j = 0; j < 16; j++) {
#if defined(__ARM_FEATURE_DOTPROD)
            sums[j] = vdotq_s32(sums[j], a, a);
#else
            sums[j] = vpadalq_s16(sums[j], vmull_s8(vget_low_s8(a), vget_high_s8(a)));
#endif
            __asm__ volatile("" : "+w"(sums[j]), "+w"(a));
        }
    }
#if defined(__ARM_FEATURE_DOTPROD)
    return (double)iterations * 16 * 16 * 2;
#else
    return (double)iterations * 16 * 8 * 2;
#endif
}

static double probe_f32(size_t iterations) {
    float32x4_t sums[16], a = vdupq_n_f32(0.5f);
    for (int j = 0; j < 16; j++) sums[j] = vdupq_n_f32((float)j);
    for (size_t i = 0; i < iterations; i++) {
        MARTLET_UNROLL for (int j = 0; j < 16; j++) {
            sums[j] = vfmaq_f32(sums[j], sums[j], a);
            __asm__ volatile("" : "+w"(sums[j]));
        }
    }
    return (double)iterations * 16 * 4 * 2;
}

uint32_t martlet_crc32c_scalar(uint32_t seed, const void *bytes, size_t count);

/// CRC32C by ARM's instruction where the compiler may use it, else by table.
static uint32_t crc32c(uint32_t seed, const void *bytes, size_t count) {
#if defined(__ARM_FEATURE_CRC32)
    const uint8_t *p = bytes;
    uint32_t crc = ~seed;
    for (; count >= 8; count -= 8, p += 8) {
        uint64_t word;
        martlet_copy(&word, p, 8);
        crc = __builtin_arm_crc32cd(crc, word);
    }
    for (; count > 0; count--) crc = __builtin_arm_crc32cb(crc, *p++);
    return ~crc;
#else
    return martlet_crc32c_scalar(seed, bytes, count);
#endif
}

#define ISA_ID MARTLET_ISA_NEON
#define ISA_NAME "neon"
#define CRC32C crc32c
#define PROBE_READ probe_read
#define PROBE_INT8 probe_int8
#define PROBE_F32 probe_f32
#include "../shared/elementwise.inc.h"

#endif
