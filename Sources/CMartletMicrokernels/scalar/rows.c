// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Row operations, plain loops: norms, gated activations, int8g64, gather. The readable reference.

#include "scalar.h"

static void quantize_group(const float *x, size_t count, int8_t *codes, martlet_int8g64_group *n) {
    uint32_t bits = 0;
    for (size_t i = 0; i < count; i++) {
        // Compared as integers NaN is above infinity, so that it is never lost.
        uint32_t magnitude = martlet_bits_of_float(x[i]) & 0x7fffffff;
        bits = magnitude > bits ? magnitude : bits;
    }
    float amax = martlet_float_of_bits(bits), inverse = 127.0f / amax;
    int is_finite = bits < 0x7f800000, is_zero = amax < 0x1p-100f;
    int32_t sums[2] = {0, 0};
    for (size_t i = 0; i < 64; i++) {
        int32_t code = 0;
        if (i < count && is_finite && !is_zero) code = martlet_scalar_round(x[i] * inverse);
        codes[i] = (int8_t)code;
        sums[i / 32] += code;
    }
    n->scale = !is_finite ? __builtin_nanf("") : is_zero ? 0 : amax / 127.0f;
    n->negated_sum = -(sums[0] + sums[1]);
    n->weighted_sum = (float)(sums[0] + sums[1]) * n->scale;
    for (size_t half = 0; half < 2; half++) {
        n->negated_half_sums[half] = -sums[half];
        n->weighted_half_sums[half] = (float)sums[half] * n->scale;
    }
    n->reserved = 0;
}

void martlet_quantize_int8g64_scalar(
    const float *x, size_t x_stride, size_t input_count, uint8_t *y, size_t y_stride,
    size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) {
        uint8_t *to = y + row * y_stride;
        martlet_int8g64_group *groups =
            (martlet_int8g64_group *)(to + martlet_int8g64_inputs(input_count));
        for (size_t k = 0; k < input_count; k += 64) {
            size_t count = martlet_min(64, input_count - k);
            quantize_group(x + row * x_stride + k, count, (int8_t *)to + k, &groups[k / 64]);
        }
    }
}

void martlet_dequantize_int8g64_scalar(
    const uint8_t *x, size_t x_stride, size_t input_count, float *y, size_t y_stride,
    size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) {
        const uint8_t *from = x + row * x_stride;
        const martlet_int8g64_group *groups = martlet_int8g64_groups(from, input_count);
        for (size_t k = 0; k < input_count; k++) {
            y[row * y_stride + k] = (float)((const int8_t *)from)[k] * groups[k / 64].scale;
        }
    }
}

void martlet_row_sums32_scalar(
    const float *x, size_t x_stride, size_t input_count, float *sums, size_t sums_stride,
    size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) {
        for (size_t k = 0; k < input_count; k += 32) {
            sums[row * sums_stride + k / 32] =
                martlet_scalar_sum32(x + row * x_stride + k, input_count - k);
        }
    }
}

/// Stores up to 64 numbers from column k of a row in the forms that the caller wants.
static void put(const martlet_row_output *to, size_t inputs, size_t row, size_t k, const float *y) {
    size_t count = martlet_min(64, inputs - k);
    for (size_t i = 0; i < count && to->f32; i++) to->f32[row * to->f32_stride + k + i] = y[i];
    if (!to->int8g64) return;
    uint8_t *codes = to->int8g64 + row * to->int8g64_stride;
    martlet_int8g64_group *groups =
        (martlet_int8g64_group *)(codes + martlet_int8g64_inputs(inputs));
    quantize_group(y, count, (int8_t *)codes + k, &groups[k / 64]);
}

typedef struct {
    const float *x, *residual;
    float *sum;
} norm_row;

static float value(const norm_row *row, size_t k) {
    return row->residual ? row->x[k] + row->residual[k] : row->x[k];
}

static void norm(const martlet_norm_arguments *a, size_t row, int centred) {
    norm_row r = {
        .x = a->x + row * a->x_stride,
        .residual = a->residual ? a->residual + row * a->residual_stride : NULL,
    };
    float lanes[64] = {0}, mean = 0;
    for (size_t k = 0; k < a->count && centred; k++) lanes[k % 64] += value(&r, k);
    if (centred) mean = martlet_scalar_fold64(lanes) / (float)a->count;
    for (size_t j = 0; j < 64; j++) lanes[j] = 0;
    for (size_t k = 0; k < a->count; k++) {
        float d = centred ? value(&r, k) - mean : value(&r, k);
        lanes[k % 64] = martlet_scalar_fma(d, d, lanes[k % 64]);
    }
    float mean_square = martlet_scalar_fold64(lanes) / (float)a->count;
    float inverse = martlet_reciprocal_root(mean_square + a->epsilon);
    for (size_t k = 0; k < a->count; k += 64) {
        float y[64];
        for (size_t i = k; i < martlet_min(k + 64, a->count); i++) {
            float v = value(&r, i);
            if (a->sum) a->sum[row * a->sum_stride + i] = v;
            v = (centred ? v - mean : v) * inverse;
            if (a->weight) v *= a->weight[i];
            y[i - k] = a->bias ? v + a->bias[i] : v;
        }
        put(&a->output, a->count, row, k, y);
    }
}

void martlet_rms_norm_scalar(const martlet_norm_arguments *a, size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) norm(a, row, 0);
}

void martlet_layer_norm_scalar(const martlet_norm_arguments *a, size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) norm(a, row, 1);
}

void martlet_gated_activation_scalar(
    const martlet_gated_arguments *a, size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) {
        for (size_t k = 0; k < a->count; k += 64) {
            float y[64];
            for (size_t i = k; i < martlet_min(k + 64, a->count); i++) {
                float v = martlet_scalar_activate(a->gate[row * a->gate_stride + i], a->activation);
                y[i - k] = a->up ? v * a->up[row * a->up_stride + i] : v;
            }
            put(&a->output, a->count, row, k, y);
        }
    }
}

/// The value of input k of row r in a panel.
static float weight_at(const martlet_weight *w, const uint8_t *panel, size_t r, size_t k) {
    switch (w->kind) {
    case MARTLET_WEIGHT_F32: return martlet_load_float(panel, MARTLET_FLOAT_F32, k * 16 + r);
    case MARTLET_WEIGHT_F16: return martlet_load_float(panel, MARTLET_FLOAT_F16, k * 16 + r);
    case MARTLET_WEIGHT_BF16: return martlet_load_float(panel, MARTLET_FLOAT_BF16, k * 16 + r);
    default: break;
    }
    size_t extent = martlet_group_extent(w), i = k % extent;
    const uint8_t *group = panel + k / extent * martlet_group_bytes(w);
    const uint8_t *scales = group + martlet_group_code_bytes(w);
    const uint8_t *zeros = scales + 16 * martlet_float_bytes(w->scale_type);
    float scale = martlet_load_float(scales, w->scale_type, r);
    int code;
    if (w->kind == MARTLET_WEIGHT_U8) {
        code = group[i / 4 * 64 + r * 4 + i % 4];
    } else {
        code = group[i / 8 * 64 + r * 4 + i % 4] >> (i % 8 < 4 ? 0 : 4) & 15;
    }
    if (w->zero == MARTLET_ZERO_NONE) return (float)(code - martlet_middle_code(w)) * scale;
    float z = martlet_load_float(zeros, w->scale_type, r);
    return w->zero == MARTLET_ZERO_INTEGER ? ((float)code - z) * scale : (float)code * scale + z;
}

void martlet_gather_rows_scalar(
    const martlet_weight *w, const int32_t *ids, float *y, size_t y_stride, size_t begin,
    size_t end) {
    for (size_t i = begin; i < end; i++) {
        int is_valid = ids[i] >= 0 && (size_t)ids[i] < w->row_count;
        size_t n = is_valid ? (size_t)ids[i] : 0;
        for (size_t k = 0; k < w->input_count; k++) {
            y[i * y_stride + k] =
                is_valid ? weight_at(w, martlet_panel(w, n / 16), n % 16, k) : __builtin_nanf("");
        }
    }
}

MARTLET_TARGET_END
