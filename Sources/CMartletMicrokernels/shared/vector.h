// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Vectors of 16 lanes in the compiler's own vector extension: one zmm under AVX-512, two ymm under
// AVX2, four q registers under NEON. The .inc files beside this one are written in them once and
// compiled for each ISA, with the target pragma in force; every lane's operations are the same.

#ifndef MARTLET_VECTOR_H
#define MARTLET_VECTOR_H

#include "internal.h"

// Vectors pass between functions that are always inlined, so no calling convention is involved.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float martlet_vf __attribute__((ext_vector_type(16)));
typedef int32_t martlet_vi __attribute__((ext_vector_type(16)));
typedef uint32_t martlet_vu __attribute__((ext_vector_type(16)));
typedef uint16_t martlet_vh __attribute__((ext_vector_type(16)));
typedef _Float16 martlet_vhalf __attribute__((ext_vector_type(16)));
typedef int8_t martlet_vc __attribute__((ext_vector_type(16)));

#include "scalar_math.h"

#define F martlet_vf
#define I martlet_vi
#define MATH(name) martlet_vector_##name
#include "math.inc.h"
#undef F
#undef I
#undef MATH

#define MARTLET_UNROLL _Pragma("clang loop unroll(full)")

MARTLET_INLINE martlet_vf martlet_load16(const void *p) {
    martlet_vf v;
    martlet_copy(&v, p, 64);
    return v;
}

MARTLET_INLINE martlet_vi martlet_load16i(const void *p) {
    martlet_vi v;
    martlet_copy(&v, p, 64);
    return v;
}

MARTLET_INLINE void martlet_store16(void *p, martlet_vf v) { martlet_copy(p, &v, 64); }

/// Lanes `count ...` are 0.
MARTLET_INLINE martlet_vf martlet_load_part(const float *p, size_t count) {
    if (count >= 16) return martlet_load16(p);
    float lanes[16] = {0};
    for (size_t i = 0; i < count; i++) lanes[i] = p[i];
    return martlet_load16(lanes);
}

MARTLET_INLINE void martlet_store_part(float *p, martlet_vf v, size_t count) {
    if (count >= 16) {
        martlet_store16(p, v);
        return;
    }
    float lanes[16];
    martlet_store16(lanes, v);
    for (size_t i = 0; i < count; i++) p[i] = lanes[i];
}

/// 16 numbers of a stored float type.
MARTLET_INLINE martlet_vf martlet_load16_of(const void *p, martlet_float_type type) {
    if (type == MARTLET_FLOAT_F32) return martlet_load16(p);
    if (type == MARTLET_FLOAT_F16) {
        martlet_vhalf half;
        martlet_copy(&half, p, 32);
        return __builtin_convertvector(half, martlet_vf);
    }
    martlet_vh bits;
    martlet_copy(&bits, p, 32);
    return martlet_vector_from_bits(__builtin_convertvector(bits, martlet_vi) << 16);
}

/// Folds halves: 16 lanes to one.
MARTLET_INLINE float martlet_fold16(martlet_vf v) {
    __auto_type a = v.lo + v.hi;
    __auto_type b = a.lo + a.hi;
    __auto_type c = b.lo + b.hi;
    return c.x + c.y;
}

/// The sum of up to 32 numbers in the order of `row_sums32`.
MARTLET_INLINE float martlet_sum32(const float *x, size_t count) {
    martlet_vf low = martlet_load_part(x, count);
    martlet_vf high = count > 16 ? martlet_load_part(x + 16, count - 16) : (martlet_vf)0.0f;
    return martlet_fold16(low + high);
}

MARTLET_INLINE martlet_vf martlet_vector_max(martlet_vf a, martlet_vf b) { return a > b ? a : b; }

/// The largest lane; NaN is ignored unless all are.
MARTLET_INLINE float martlet_vector_largest(martlet_vf v) {
    float m = -__builtin_inff();
    MARTLET_UNROLL for (int i = 0; i < 16; i++) m = v[i] > m ? v[i] : m;
    return m;
}

/// The parameters of a linear kernel.
#define MARTLET_RANGE                                                                              \
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,   \
        size_t token_end

#endif
