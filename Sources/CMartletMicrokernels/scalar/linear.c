// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Linears, plain loops: the readable reference of every linear kernel. See martlet_linear_arguments
// for layout and order of operations. Speed is of no concern here (about 1 Gop/s).

#include "scalar.h"

/// One code of a group: row r, input k of the group.
static int code_of(const uint8_t *group, int is_u4, size_t r, size_t k) {
    if (!is_u4) return group[k / 4 * 64 + r * 4 + k % 4];
    uint8_t byte = group[k / 8 * 64 + r * 4 + k % 4];
    return k % 8 < 4 ? byte & 15 : byte >> 4;
}

typedef float (*group_function)(
    const martlet_linear_arguments *, const uint8_t *group, size_t r, size_t k_begin, size_t k_end,
    int zero, const void *x, const float *sums, float *m);

/// inner and m of one group, int8g64 activations.
static float group_int8g64(
    const martlet_linear_arguments *a, const uint8_t *group, size_t r, size_t k_begin, size_t k_end,
    int zero, const void *x, const float *sums, float *m) {
    (void)sums;
    const martlet_int8g64_group *numbers = martlet_int8g64_groups(x, a->weight.input_count);
    size_t block = a->weight.group_size % 64 ? 32 : 64;
    float inner = 0;
    for (size_t k = k_begin; k < k_end; k += block) {
        int32_t dot = 0;
        for (size_t i = k; i < k + block; i++) {
            int code = code_of(group, a->weight.kind == MARTLET_WEIGHT_U4, r, i - k_begin);
            dot += (code - zero) * ((const int8_t *)x)[i];
        }
        const martlet_int8g64_group *n = &numbers[k / 64];
        float weighted = block == 64 ? n->weighted_sum : n->weighted_half_sums[k / 32 % 2];
        inner = k == k_begin ? (float)dot * n->scale
                             : martlet_scalar_fma((float)dot, n->scale, inner);
        *m = k == k_begin ? weighted : *m + weighted;
    }
    return inner;
}

/// inner and the sum of x of one group, f32 activations.
static float group_exact(
    const martlet_linear_arguments *a, const uint8_t *group, size_t r, size_t k_begin, size_t k_end,
    int zero, const void *x, const float *sums, float *m) {
    const float *row = x;
    float inner = 0;
    for (size_t k = k_begin; k < k_end; k++) {
        int code = code_of(group, a->weight.kind == MARTLET_WEIGHT_U4, r, k - k_begin);
        inner = martlet_scalar_fma((float)(code - zero), row[k], inner);
    }
    if (a->weight.zero != MARTLET_ZERO_MINIMUM) return inner;
    for (size_t k = k_begin; k < k_end; k += 32) {
        float sum = sums ? sums[k / 32] : martlet_scalar_sum32(row + k, k_end - k);
        *m = k == k_begin ? sum : *m + sum;
    }
    return inner;
}

static void quantized(
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,
    size_t token_end, group_function function) {
    const martlet_weight *w = &a->weight;
    size_t extent = martlet_group_extent(w), groups = martlet_weight_group_count(w);
    size_t n_end = martlet_min(w->row_count, panel_end * 16);
    for (size_t t = token_begin; t < token_end; t++) {
        const void *x = (const uint8_t *)a->x + t * a->x_stride;
        const float *sums = a->x_sums ? a->x_sums + t * a->x_sums_stride : NULL;
        for (size_t n = panel_begin * 16; n < n_end; n++) {
            const uint8_t *group = martlet_panel(w, n / 16);
            float acc = 0;
            for (size_t g = 0; g < groups; g++, group += martlet_group_bytes(w)) {
                const uint8_t *scales = group + martlet_group_code_bytes(w);
                const uint8_t *zeros = scales + 16 * martlet_float_bytes(w->scale_type);
                size_t k_end = martlet_min(w->input_count, (g + 1) * extent);
                float scale = martlet_load_float(scales, w->scale_type, n % 16), z = 0, m = 0;
                if (w->zero != MARTLET_ZERO_NONE)
                    z = martlet_load_float(zeros, w->scale_type, n % 16);
                int zero = w->zero == MARTLET_ZERO_NONE ? martlet_middle_code(w)
                    : w->zero == MARTLET_ZERO_INTEGER   ? (int)z
                                                        : 0;
                float inner = function(a, group, n % 16, g * extent, k_end, zero, x, sums, &m);
                acc = martlet_scalar_fma(inner, scale, acc);
                if (w->zero == MARTLET_ZERO_MINIMUM) acc = martlet_scalar_fma(m, z, acc);
            }
            a->y[t * a->y_stride + n] = a->bias ? acc + a->bias[n] : acc;
        }
    }
}

void martlet_linear_quantized_int8g64_scalar(
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,
    size_t token_end) {
    quantized(a, panel_begin, panel_end, token_begin, token_end, group_int8g64);
}

void martlet_linear_quantized_exact_scalar(
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,
    size_t token_end) {
    quantized(a, panel_begin, panel_end, token_begin, token_end, group_exact);
}

void martlet_linear_plain_exact_scalar(
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,
    size_t token_end) {
    const martlet_weight *w = &a->weight;
    martlet_float_type type = w->kind == MARTLET_WEIGHT_F32 ? MARTLET_FLOAT_F32
        : w->kind == MARTLET_WEIGHT_F16                     ? MARTLET_FLOAT_F16
                                                            : MARTLET_FLOAT_BF16;
    size_t n_end = martlet_min(w->row_count, panel_end * 16);
    for (size_t t = token_begin; t < token_end; t++) {
        const float *x = (const float *)((const uint8_t *)a->x + t * a->x_stride);
        for (size_t n = panel_begin * 16; n < n_end; n++) {
            const uint8_t *panel = martlet_panel(w, n / 16);
            float acc = 0;
            for (size_t k = 0; k < w->input_count; k++) {
                float weight = martlet_load_float(panel, type, k * 16 + n % 16);
                acc = martlet_scalar_fma(weight, x[k], acc);
            }
            a->y[t * a->y_stride + n] = a->bias ? acc + a->bias[n] : acc;
        }
    }
}

MARTLET_TARGET_END
