// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_u8_int8g64_{gemv,panel}_avx512: y = W x, W in 8-bit codes of layout panel16, x in int8g64.
// Order of operations: martlet_linear_arguments.
//
// Measured, AMD EPYC (Zen 4), one core of a shared 2-core VM, 2026-11-24, K = 4096, best of 100:
// panel, 96 tokens: per channel 404 Gop/s, 85 % of the vpdpbusd peak (473); g128 380 (80 %).
// gemv from memory, one token: 33 GB/s, the read bandwidth of one thread; from cache 74 GB/s.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx512.h"

#define BITS 8
#define GEMV_NAME ISA(linear_u8_int8g64_gemv)
#define PANEL_NAME ISA(linear_u8_int8g64_panel)
/// Bytes of software prefetch ahead of the stream.
enum { PREFETCH = 4096 };
#include "linear_int8g64.inc.h"

MARTLET_TARGET_END

#endif
