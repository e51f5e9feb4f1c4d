// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// linear_{u8,u4,f32,f16,bf16}_exact_{gemv,panel}_neon: y = W x with f32 activations, tile of
// 1 panel x 6 tokens. Order of operations: martlet_linear_arguments.

#include "../shared/internal.h"

#if MARTLET_ARM

#include "neon.h"
#include "../shared/linear_exact.inc.h"

#endif
