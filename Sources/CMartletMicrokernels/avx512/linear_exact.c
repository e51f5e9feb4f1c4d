// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_{u8,u4,f32,f16,bf16}_exact_{gemv,panel}_avx512: y = W x with f32 activations, tile of
// 2 panels x 12 tokens. Order of operations: martlet_linear_arguments.

#include "../shared/internal.h"

#if MARTLET_X86

#include "avx512.h"
#include "../shared/linear_exact.inc.h"

MARTLET_TARGET_END

#endif
