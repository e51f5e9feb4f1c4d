// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_u4_int8g64_{gemv,panel}_avx512: y = W x, W in 4-bit codes of layout panel16, x in int8g64.
// Order of operations: martlet_linear_arguments.
//
// Measured, AMD EPYC (Zen 4), one core of a shared 2-core VM, 2026-11-24, K = 4096, best of 100:
// panel, 96 tokens, of the vpdpbusd peak (473 Gop/s): per channel 84 %, g64 79 %, g128 80 %,
// g128 with integer zeros 71 %, g32 78 %, g32 with minima 70 %; some 5 points less under load.
// gemv from memory, one token: 30-34 GB/s, the read bandwidth of one thread; from cache 61-67 GB/s.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx512.h"

#define BITS 4
#define GEMV_NAME ISA(linear_u4_int8g64_gemv)
#define PANEL_NAME ISA(linear_u4_int8g64_panel)
/// Bytes of software prefetch ahead of the stream.
enum { PREFETCH = 4096 };
#include "linear_int8g64.inc.h"

MARTLET_TARGET_END

#endif
