// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Row operations, attention, reductions, conversions and the table of AVX2.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx2.h"
#include "../shared/rows.inc.h"

/// Attention: accumulators, rows of a tile, and vectors of V per row and pass.
enum { ATTENTION_SUMS = 6, ATTENTION_ROWS = 6, MIX_VECTORS = 2 };
#include "../shared/attention.inc.h"
#include "../shared/crc32c_sse42.h"

static uint64_t probe_read(const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    __m256i sums[8];
    for (int j = 0; j < 8; j++) sums[j] = _mm256_setzero_si256();
    for (size_t i = 0; i + 256 <= count; i += 256) {
        MARTLET_UNROLL for (int j = 0; j < 8; j++)
            sums[j] = _mm256_add_epi64(
                sums[j], _mm256_loadu_si256((const __m256i *)(p + i + 32 * j)));
    }
    for (int j = 1; j < 8; j++) sums[0] = _mm256_add_epi64(sums[0], sums[j]);
    uint64_t lanes[4];
    martlet_copy(lanes, &sums[0], 32);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

static double probe_int8(size_t iterations) {
    __m256i sums[12], a = _mm256_set1_epi16(3);
    for (int j = 0; j < 12; j++) sums[j] = _mm256_set1_epi32(j);
    for (size_t i = 0; i < iterations; i++) {
        MARTLET_UNROLL for (int j = 0; j < 12; j++) {
            __m256i product;
            __asm__ volatile("vpmaddwd %1, %1, %0" : "=x"(product) : "x"(a));
            sums[j] = _mm256_add_epi32(sums[j], product);
            __asm__ volatile("" : "+x"(sums[j]));
        }
    }
    return (double)iterations * 12 * 16 * 2;
}

static double probe_f32(size_t iterations) {
    __m256 sums[12], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1);
    for (int j = 0; j < 12; j++) sums[j] = _mm256_set1_ps((float)j);
    for (size_t i = 0; i < iterations; i++) {
        MARTLET_UNROLL for (int j = 0; j < 12; j++)
            __asm__ volatile("vfmadd213ps %2, %1, %0" : "+x"(sums[j]) : "x"(a), "x"(b));
    }
    return (double)iterations * 12 * 8 * 2;
}

#define ISA_ID MARTLET_ISA_AVX2
#define ISA_NAME "avx2"
#define CRC32C martlet_crc32c_sse42
#define PROBE_READ probe_read
#define PROBE_INT8 probe_int8
#define PROBE_F32 probe_f32
#include "../shared/elementwise.inc.h"

MARTLET_TARGET_END

#endif
