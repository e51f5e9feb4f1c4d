// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_u4_int8g64_{gemv,panel}_avx512: y = W x, W in 4-bit codes of layout panel16, x in int8g64.
// Order of operations: martlet_linear_arguments.

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
