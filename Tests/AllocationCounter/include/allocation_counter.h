// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#ifndef MARTLET_ALLOCATION_COUNTER_H
#define MARTLET_ALLOCATION_COUNTER_H

#include <stdint.h>

/// Calls of malloc and its kin by this thread so far; -1 where they are not counted.
int64_t martlet_allocation_count(void);

#endif
