// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Shared by the AVX-512 kernels: target, names, register tile. Files end with MARTLET_TARGET_END.

#ifndef MARTLET_AVX512_H
#define MARTLET_AVX512_H

#define ISA(name) martlet_##name##_avx512
#define MARTLET_TARGET_END _Pragma("clang attribute pop")

#include <immintrin.h>
#include "../include/martlet_microkernels.h"

#pragma clang attribute push(                                                                      \
    __attribute__((                                                                                \
        target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c,fma,sse4.2"))),            \
    apply_to = function)

#include "../shared/vector.h"
#include "../shared/declarations.h"

/// Register tile: 24 accumulators, 2 weights, 1 input of 32 registers.
enum { PANEL_TILE = 2, TOKEN_TILE = 12 };
/// The same where weights are decoded on the way.
enum { CODE_TOKEN_TILE = 8 };

/// Floats of the low four bits of each lane, minus `middle`: a table of 16 in one register.
MARTLET_INLINE martlet_vf martlet_nibbles_avx512(martlet_vu words, const int middle) {
    const martlet_vf table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    martlet_vf shifted = table - (martlet_vf)(float)middle;
    return (martlet_vf)_mm512_permutexvar_ps((__m512i)words, (__m512)shifted);
}
#define MARTLET_NIBBLES martlet_nibbles_avx512

#endif
