// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Shared by the NEON kernels: names and register tile.

#ifndef MARTLET_NEON_H
#define MARTLET_NEON_H

#define ISA(name) martlet_##name##_neon

#include <arm_neon.h>
#include "../include/martlet_microkernels.h"
#include "../shared/vector.h"
#include "../shared/declarations.h"

/// Register tile: a panel is four registers wide; 24 accumulators, 4 weights, 1 input of 32.
enum { PANEL_TILE = 1, TOKEN_TILE = 6, CODE_TOKEN_TILE = 4 };

#endif
