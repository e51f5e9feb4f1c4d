// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Scalar instances of math.inc.h, and a logarithm in f64.

#ifndef MARTLET_SCALAR_MATH_H
#define MARTLET_SCALAR_MATH_H

#include "internal.h"

#define F float
#define I int32_t
#define MATH(name) martlet_scalar_##name
#include "math.inc.h"
#undef F
#undef I
#undef MATH

/// 1 / sqrt(x), rounded twice, without errno.
MARTLET_INLINE float martlet_reciprocal_root(float x) {
    return 1.0f / __builtin_elementwise_sqrt(x);
}

/// log(x) of a positive finite f64, within some 1e-15: 2 atanh((m - 1) / (m + 1)) + e log 2.
MARTLET_INLINE double martlet_log(double x) {
    uint64_t bits;
    martlet_copy(&bits, &x, 8);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffff) | 0x3ff0000000000000;
    double m;
    martlet_copy(&m, &bits, 8);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent += 1;
    }
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int i = 21; i >= 3; i -= 2) sum = (sum + 1.0 / i) * z;
    return 2 * s * (1 + sum) + (double)exponent * 0.69314718055994530942;
}

#endif
