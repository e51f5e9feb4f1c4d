// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_{u8,u4,f32,f16,bf16}_exact_{gemv,panel}_avx512: y = W x with f32 activations, tile of
// 2 panels x 12 tokens, 2 x 8 where weights are decoded. Order of operations:
// martlet_linear_arguments.
//
// Measured, AMD EPYC (Zen 4), one core of a shared 2-core VM, 2026-11-24, best of 60, of the f32
// FMA peak (118 GF/s), panel, 96 tokens, K = 4096: f32 84 % (K = 576: 97 %), f16 83 %, bf16 81 %,
// u8 81 %, u4 g64 85 %, u4 g32 with minima 73 %. gemv, one token: f32, f16 and bf16 at read
// bandwidth; from cache u8 26 GB/s, u4 17 GB/s.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx512.h"
#include "../shared/linear_exact.inc.h"

MARTLET_TARGET_END

#endif
