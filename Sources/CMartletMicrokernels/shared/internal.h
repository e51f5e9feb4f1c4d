// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// What every kernel file needs: geometry of packed weights, small inline loads, entry names.

#ifndef MARTLET_INTERNAL_H
#define MARTLET_INTERNAL_H

#include "../include/martlet_microkernels.h"

// Bits must not depend on the compiler's choice: products and sums are fused only where written.
#pragma clang fp contract(off)

#if defined(__x86_64__)
#define MARTLET_X86 1
#elif defined(__aarch64__)
#define MARTLET_ARM 1
#endif

#define MARTLET_INLINE static inline __attribute__((always_inline, unused))

MARTLET_INLINE size_t martlet_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
MARTLET_INLINE size_t martlet_min(size_t a, size_t b) { return a < b ? a : b; }

/// Inputs that share a scale, as stored: g, or K rounded up to 64 for one group a row.
MARTLET_INLINE size_t martlet_group_extent(const martlet_weight *w) {
    return w->group_size ? w->group_size : martlet_round_up(w->input_count, 64);
}

MARTLET_INLINE size_t martlet_float_bytes(martlet_float_type type) {
    return type == MARTLET_FLOAT_F32 ? 4 : 2;
}

/// Bytes of the codes of a group in a panel.
MARTLET_INLINE size_t martlet_group_code_bytes(const martlet_weight *w) {
    return martlet_group_extent(w) * (w->kind == MARTLET_WEIGHT_U4 ? 8 : 16);
}

/// Bytes of a group in a panel: codes, scales, zeros.
MARTLET_INLINE size_t martlet_group_bytes(const martlet_weight *w) {
    size_t tail = 16 * martlet_float_bytes(w->scale_type);
    return martlet_group_code_bytes(w) + (w->zero == MARTLET_ZERO_NONE ? tail : 2 * tail);
}

MARTLET_INLINE const uint8_t *martlet_panel(const martlet_weight *w, size_t panel) {
    return (const uint8_t *)w->data + panel * w->panel_stride;
}

/// The middle code, which stands for zero in a symmetric scheme.
MARTLET_INLINE int martlet_middle_code(const martlet_weight *w) {
    return w->kind == MARTLET_WEIGHT_U4 ? 8 : 128;
}

/// Padded inputs of an int8g64 row.
MARTLET_INLINE size_t martlet_int8g64_inputs(size_t input_count) {
    return martlet_round_up(input_count, 64);
}

MARTLET_INLINE const martlet_int8g64_group *martlet_int8g64_groups(
    const void *row, size_t input_count) {
    return (const martlet_int8g64_group *)((const uint8_t *)row
                                           + martlet_int8g64_inputs(input_count));
}

/// Copies of a known size, which compile to loads and stores.
#define martlet_copy(to, from, n) __builtin_memcpy((to), (from), (n))

MARTLET_INLINE uint32_t martlet_load_u32(const void *p) {
    uint32_t v;
    martlet_copy(&v, p, 4);
    return v;
}

MARTLET_INLINE float martlet_float_of_bits(uint32_t bits) {
    float f;
    martlet_copy(&f, &bits, 4);
    return f;
}

MARTLET_INLINE uint32_t martlet_bits_of_float(float f) {
    uint32_t bits;
    martlet_copy(&bits, &f, 4);
    return bits;
}

/// bf16 of a float, to nearest even; NaN stays NaN.
MARTLET_INLINE uint16_t martlet_bf16_of_float(float f) {
    uint32_t bits = martlet_bits_of_float(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

MARTLET_INLINE float martlet_float_of_bf16(uint16_t h) {
    return martlet_float_of_bits((uint32_t)h << 16);
}

/// Number i of an array of a stored float type.
MARTLET_INLINE float martlet_load_float(const void *p, martlet_float_type type, size_t i) {
    if (type == MARTLET_FLOAT_F32) {
        float f;
        martlet_copy(&f, (const uint8_t *)p + 4 * i, 4);
        return f;
    }
    uint16_t h;
    martlet_copy(&h, (const uint8_t *)p + 2 * i, 2);
    if (type == MARTLET_FLOAT_BF16) return martlet_float_of_bf16(h);
    _Float16 half;
    martlet_copy(&half, &h, 2);
    return (float)half;
}

/// Stores number i of an array of a stored float type, to nearest even.
MARTLET_INLINE void martlet_store_float(void *p, martlet_float_type type, size_t i, float f) {
    if (type == MARTLET_FLOAT_F32) {
        martlet_copy((uint8_t *)p + 4 * i, &f, 4);
    } else if (type == MARTLET_FLOAT_BF16) {
        uint16_t h = martlet_bf16_of_float(f);
        martlet_copy((uint8_t *)p + 2 * i, &h, 2);
    } else {
        _Float16 h = (_Float16)f;
        martlet_copy((uint8_t *)p + 2 * i, &h, 2);
    }
}

extern const martlet_kernels martlet_kernels_scalar;
extern const martlet_kernels martlet_kernels_avx2;
extern const martlet_kernels martlet_kernels_avx512;
extern const martlet_kernels martlet_kernels_neon;

#endif
