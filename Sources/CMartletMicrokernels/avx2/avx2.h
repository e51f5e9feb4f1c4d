// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Shared by the AVX2 kernels: target, names, register tile. Files end with MARTLET_TARGET_END.

#ifndef MARTLET_AVX2_H
#define MARTLET_AVX2_H

#define ISA(name) martlet_##name##_avx2
#define MARTLET_TARGET_END _Pragma("clang attribute pop")

#include <immintrin.h>
#include "../include/martlet_microkernels.h"

#pragma clang attribute push(                                                                      \
    __attribute__((target("avx2,f16c,fma,sse4.2"))), apply_to = function)

#include "../shared/vector.h"
#include "../shared/declarations.h"

/// Register tile: a panel is two registers wide; 12 accumulators, 2 weights, 1 input of 16.
enum { PANEL_TILE = 1, TOKEN_TILE = 6, CODE_TOKEN_TILE = 4 };

/// Four bytes in each 32-bit lane.
MARTLET_INLINE __m256i martlet_spread_u32(const void *p) {
    return _mm256_set1_epi32((int)martlet_load_u32(p));
}

#endif
