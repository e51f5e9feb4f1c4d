// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Row operations, attention, reductions, conversions and the table of AVX-512.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx512.h"
#include "../shared/rows.inc.h"

/// Attention: accumulators, rows of a tile, and vectors of V per row and pass.
enum { ATTENTION_SUMS = 16, ATTENTION_ROWS = 8, MIX_VECTORS = 4 };
#include "../shared/attention.inc.h"
#include "../shared/crc32c_sse42.h"

static uint64_t probe_read(const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    __m512i sums[8];
    for (int j = 0; j < 8; j++) sums[j] = _mm512_setzero_si512();
    for (size_t i = 0; i + 512 <= count; i += 512) {
        MARTLET_UNROLL for (int j = 0; j < 8; j++) {
            _mm_prefetch((const char *)p + i + 2048 + 64 * j, _MM_HINT_T0);
            sums[j] = _mm512_add_epi64(sums[j], _mm512_loadu_si512(p + i + 64 * j));
        }
    }
    for (int j = 1; j < 8; j++) sums[0] = _mm512_add_epi64(sums[0], sums[j]);
    return (uint64_t)_mm512_reduce_add_epi64(sums[0]);
}

static double probe_int8(size_t iterations) {
    __m512i sums[16], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    for (int j = 0; j < 16; j++) sums[j] = _mm512_set1_epi32(j);
    for (size_t i = 0; i < iterations; i++) {
        MARTLET_UNROLL for (int j = 0; j < 16; j++)
            __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sums[j]) : "v"(a), "v"(b));
    }
    return (double)iterations * 16 * 64 * 2;
}

static double probe_f32(size_t iterations) {
    __m512 sums[16], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1);
    for (int j = 0; j < 16; j++) sums[j] = _mm512_set1_ps((float)j);
    for (size_t i = 0; i < iterations; i++) {
        MARTLET_UNROLL for (int j = 0; j < 16; j++)
            __asm__ volatile("vfmadd213ps %2, %1, %0" : "+v"(sums[j]) : "v"(a), "v"(b));
    }
    return (double)iterations * 16 * 16 * 2;
}

#define ISA_ID MARTLET_ISA_AVX512
#define ISA_NAME "avx512"
#define CRC32C martlet_crc32c_sse42
#define PROBE_READ probe_read
#define PROBE_INT8 probe_int8
#define PROBE_F32 probe_f32
#include "../shared/elementwise.inc.h"

MARTLET_TARGET_END

#endif
