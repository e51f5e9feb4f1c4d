// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Row operations in 16-lane vectors: int8g64, norms, gated activations, gather. Groups of 64
// numbers are four vectors; the order of operations is that of scalar/rows.c.

typedef struct {
    martlet_vf v[4];
} martlet_four;

/// Up to 64 numbers; missing ones are 0.
MARTLET_INLINE martlet_four martlet_load_four(const float *p, size_t count) {
    martlet_four x;
    MARTLET_UNROLL for (size_t i = 0; i < 4; i++) {
        x.v[i] = (martlet_vf)0.0f;
        if (count > 16 * i) x.v[i] = martlet_load_part(p + 16 * i, count - 16 * i);
    }
    return x;
}

MARTLET_INLINE void martlet_store_four(float *p, martlet_four x, size_t count) {
    MARTLET_UNROLL for (size_t i = 0; i < 4; i++) {
        if (count > 16 * i) martlet_store_part(p + 16 * i, x.v[i], count - 16 * i);
    }
}

MARTLET_INLINE float martlet_fold64(martlet_four x) {
    return martlet_fold16((x.v[0] + x.v[1]) + (x.v[2] + x.v[3]));
}

MARTLET_INLINE int32_t martlet_largest_bits(martlet_vi v) { return __builtin_reduce_max(v); }

/// Codes and numbers of one group of 64 (missing numbers are 0).
MARTLET_INLINE void martlet_quantize_group(
    martlet_four x, int8_t *codes, martlet_int8g64_group *numbers) {
    martlet_vi bits = (martlet_vi)0;
    MARTLET_UNROLL for (int i = 0; i < 4; i++) {
        martlet_vi magnitude = martlet_vector_bits(x.v[i]) & (martlet_vi)0x7fffffff;
        bits = __builtin_elementwise_max(bits, magnitude);
    }
    // Compared as integers NaN is above infinity, so that it is never lost.
    int32_t largest = martlet_largest_bits(bits);
    float amax = martlet_float_of_bits((uint32_t)largest), inverse = 127.0f / amax;
    int is_finite = largest < 0x7f800000, is_zero = amax < 0x1p-100f;
    int32_t sums[2] = {0, 0};
    if (is_finite && !is_zero) {
        martlet_vi c[4];
        MARTLET_UNROLL for (int i = 0; i < 4; i++) {
            c[i] = martlet_vector_round(x.v[i] * (martlet_vf)inverse);
            martlet_vc narrow = __builtin_convertvector(c[i], martlet_vc);
            martlet_copy(codes + 16 * i, &narrow, 16);
        }
        sums[0] = __builtin_reduce_add(c[0] + c[1]);
        sums[1] = __builtin_reduce_add(c[2] + c[3]);
    } else {
        for (int i = 0; i < 64; i++) codes[i] = 0;
    }
    float scale = !is_finite ? __builtin_nanf("") : is_zero ? 0 : amax / 127.0f;
    *numbers = (martlet_int8g64_group){
        .scale = scale,
        .negated_sum = -(sums[0] + sums[1]),
        .negated_half_sums = {-sums[0], -sums[1]},
        .weighted_sum = (float)(sums[0] + sums[1]) * scale,
        .weighted_half_sums = {(float)sums[0] * scale, (float)sums[1] * scale},
    };
}

MARTLET_INLINE martlet_int8g64_group *martlet_row_groups(uint8_t *row, size_t inputs) {
    return (martlet_int8g64_group *)(row + martlet_int8g64_inputs(inputs));
}

void ISA(quantize_int8g64)(
    const float *x, size_t x_stride, size_t input_count, uint8_t *y, size_t y_stride,
    size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) {
        uint8_t *to = y + row * y_stride;
        martlet_int8g64_group *groups = martlet_row_groups(to, input_count);
        for (size_t k = 0; k < input_count; k += 64) {
            martlet_quantize_group(
                martlet_load_four(x + row * x_stride + k, input_count - k), (int8_t *)to + k,
                &groups[k / 64]);
        }
    }
}

void ISA(dequantize_int8g64)(
    const uint8_t *x, size_t x_stride, size_t input_count, float *y, size_t y_stride,
    size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) {
        const uint8_t *from = x + row * x_stride;
        const martlet_int8g64_group *groups = martlet_int8g64_groups(from, input_count);
        for (size_t k = 0; k < input_count; k += 16) {
            martlet_vc codes;
            martlet_copy(&codes, from + k, 16);
            martlet_vf values = __builtin_convertvector(codes, martlet_vf)
                * (martlet_vf)groups[k / 64].scale;
            martlet_store_part(y + row * y_stride + k, values, input_count - k);
        }
    }
}

void ISA(row_sums32)(
    const float *x, size_t x_stride, size_t input_count, float *sums, size_t sums_stride,
    size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) {
        for (size_t k = 0; k < input_count; k += 32) {
            sums[row * sums_stride + k / 32] =
                martlet_sum32(x + row * x_stride + k, input_count - k);
        }
    }
}

/// Stores numbers from column k of a row in the forms that the caller wants; missing ones are 0.
MARTLET_INLINE void martlet_put(
    const martlet_row_output *to, size_t inputs, size_t row, size_t k, martlet_four y) {
    if (to->f32) martlet_store_four(to->f32 + row * to->f32_stride + k, y, inputs - k);
    if (!to->int8g64) return;
    uint8_t *codes = to->int8g64 + row * to->int8g64_stride;
    martlet_quantize_group(y, (int8_t *)codes + k, &martlet_row_groups(codes, inputs)[k / 64]);
}

/// Lanes at or beyond `count` become 0.
MARTLET_INLINE martlet_four martlet_clear_from(martlet_four x, size_t count) {
    if (count >= 64) return x;
    float lanes[64];
    martlet_store_four(lanes, x, 64);
    for (size_t i = count; i < 64; i++) lanes[i] = 0;
    return martlet_load_four(lanes, 64);
}

MARTLET_INLINE void martlet_norm_row(
    const martlet_norm_arguments *a, size_t row, const int is_centred) {
    size_t count = a->count;
    const float *x = a->x + row * a->x_stride;
    const float *residual = a->residual ? a->residual + row * a->residual_stride : NULL;
    martlet_four lanes = {{(martlet_vf)0.0f, (martlet_vf)0.0f, (martlet_vf)0.0f, (martlet_vf)0.0f}};
    martlet_four squares = lanes;
    float mean = 0;
    for (size_t k = 0; k < count; k += 64) {
        martlet_four v = martlet_load_four(x + k, count - k);
        if (residual) {
            martlet_four r = martlet_load_four(residual + k, count - k);
            MARTLET_UNROLL for (int i = 0; i < 4; i++) v.v[i] += r.v[i];
        }
        MARTLET_UNROLL for (int i = 0; i < 4; i++) {
            if (is_centred) {
                lanes.v[i] += v.v[i];
            } else {
                squares.v[i] = martlet_vector_fma(v.v[i], v.v[i], squares.v[i]);
            }
        }
    }
    if (is_centred) {
        mean = martlet_fold64(lanes) / (float)count;
        for (size_t k = 0; k < count; k += 64) {
            martlet_four v = martlet_load_four(x + k, count - k);
            if (residual) {
                martlet_four r = martlet_load_four(residual + k, count - k);
                MARTLET_UNROLL for (int i = 0; i < 4; i++) v.v[i] += r.v[i];
            }
            MARTLET_UNROLL for (int i = 0; i < 4; i++) v.v[i] -= (martlet_vf)mean;
            v = martlet_clear_from(v, count - k);
            MARTLET_UNROLL for (int i = 0; i < 4; i++)
                squares.v[i] = martlet_vector_fma(v.v[i], v.v[i], squares.v[i]);
        }
    }
    float inverse = martlet_reciprocal_root(martlet_fold64(squares) / (float)count + a->epsilon);
    for (size_t k = 0; k < count; k += 64) {
        martlet_four v = martlet_load_four(x + k, count - k);
        if (residual) {
            martlet_four r = martlet_load_four(residual + k, count - k);
            MARTLET_UNROLL for (int i = 0; i < 4; i++) v.v[i] += r.v[i];
        }
        if (a->sum) martlet_store_four(a->sum + row * a->sum_stride + k, v, count - k);
        MARTLET_UNROLL for (int i = 0; i < 4; i++) {
            if (is_centred) v.v[i] -= (martlet_vf)mean;
            v.v[i] *= (martlet_vf)inverse;
        }
        if (a->weight) {
            martlet_four weight = martlet_load_four(a->weight + k, count - k);
            MARTLET_UNROLL for (int i = 0; i < 4; i++) v.v[i] *= weight.v[i];
        }
        if (a->bias) {
            martlet_four bias = martlet_load_four(a->bias + k, count - k);
            MARTLET_UNROLL for (int i = 0; i < 4; i++) v.v[i] += bias.v[i];
        }
        martlet_put(&a->output, count, row, k, martlet_clear_from(v, count - k));
    }
}

void ISA(rms_norm)(const martlet_norm_arguments *a, size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) martlet_norm_row(a, row, 0);
}

void ISA(layer_norm)(const martlet_norm_arguments *a, size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++) martlet_norm_row(a, row, 1);
}

MARTLET_INLINE void martlet_gated(
    const martlet_gated_arguments *a, size_t row_begin, size_t row_end,
    const martlet_activation activation) {
    for (size_t row = row_begin; row < row_end; row++) {
        const float *gate = a->gate + row * a->gate_stride;
        for (size_t k = 0; k < a->count; k += 64) {
            martlet_four y = martlet_load_four(gate + k, a->count - k);
            // Every activation maps 0 to 0, so missing lanes stay 0.
            MARTLET_UNROLL for (int i = 0; i < 4; i++)
                y.v[i] = martlet_vector_activate(y.v[i], activation);
            if (a->up) {
                martlet_four up =
                    martlet_load_four(a->up + row * a->up_stride + k, a->count - k);
                MARTLET_UNROLL for (int i = 0; i < 4; i++) y.v[i] *= up.v[i];
            }
            martlet_put(&a->output, a->count, row, k, y);
        }
    }
}

void ISA(gated_activation)(const martlet_gated_arguments *a, size_t row_begin, size_t row_end) {
    switch (a->activation) {
    case MARTLET_ACTIVATION_SILU:
        martlet_gated(a, row_begin, row_end, MARTLET_ACTIVATION_SILU);
        break;
    case MARTLET_ACTIVATION_GELU_ERF:
        martlet_gated(a, row_begin, row_end, MARTLET_ACTIVATION_GELU_ERF);
        break;
    case MARTLET_ACTIVATION_GELU_TANH:
        martlet_gated(a, row_begin, row_end, MARTLET_ACTIVATION_GELU_TANH);
        break;
    case MARTLET_ACTIVATION_RELU:
        martlet_gated(a, row_begin, row_end, MARTLET_ACTIVATION_RELU);
        break;
    default:
        martlet_gated(a, row_begin, row_end, MARTLET_ACTIVATION_IDENTITY);
    }
}

/// Row r of a quantized panel.
MARTLET_INLINE void martlet_gather_quantized(
    const martlet_weight *w, const uint8_t *panel, size_t r, float *y) {
    const int is_u4 = w->kind == MARTLET_WEIGHT_U4;
    size_t extent = martlet_group_extent(w), step = is_u4 ? 8 : 4;
    const uint8_t *group = panel;
    for (size_t k0 = 0; k0 < w->input_count; k0 += extent, group += martlet_group_bytes(w)) {
        const uint8_t *scales = group + martlet_group_code_bytes(w);
        const uint8_t *zeros = scales + 16 * martlet_float_bytes(w->scale_type);
        float scale = martlet_load_float(scales, w->scale_type, r), z = 0;
        if (w->zero != MARTLET_ZERO_NONE) z = martlet_load_float(zeros, w->scale_type, r);
        float offset = w->zero == MARTLET_ZERO_NONE ? (float)martlet_middle_code(w)
            : w->zero == MARTLET_ZERO_INTEGER       ? z
                                                    : 0;
        size_t end = martlet_min(k0 + extent, w->input_count);
        for (size_t k = k0; k < end; k += step) {
            uint32_t word = martlet_load_u32(group + (k - k0) / step * 64 + 4 * r);
            for (size_t j = 0; j < step && k + j < end; j++) {
                uint32_t byte = word >> (j % 4 * 8);
                float code = (float)(is_u4 ? byte >> (j < 4 ? 0 : 4) & 15 : byte & 255);
                float value = (code - offset) * scale;
                y[k + j] = w->zero == MARTLET_ZERO_MINIMUM ? value + z : value;
            }
        }
    }
}

void ISA(gather_rows)(
    const martlet_weight *w, const int32_t *ids, float *y, size_t y_stride, size_t begin,
    size_t end) {
    for (size_t i = begin; i < end; i++) {
        float *to = y + i * y_stride;
        if (ids[i] < 0 || (size_t)ids[i] >= w->row_count) {
            for (size_t k = 0; k < w->input_count; k++) to[k] = __builtin_nanf("");
            continue;
        }
        const uint8_t *panel = martlet_panel(w, (size_t)ids[i] / 16);
        size_t r = (size_t)ids[i] % 16;
        switch (w->kind) {
        case MARTLET_WEIGHT_F32:
            for (size_t k = 0; k < w->input_count; k++)
                to[k] = martlet_load_float(panel, MARTLET_FLOAT_F32, k * 16 + r);
            break;
        case MARTLET_WEIGHT_F16:
            for (size_t k = 0; k < w->input_count; k++)
                to[k] = martlet_load_float(panel, MARTLET_FLOAT_F16, k * 16 + r);
            break;
        case MARTLET_WEIGHT_BF16:
            for (size_t k = 0; k < w->input_count; k++)
                to[k] = martlet_load_float(panel, MARTLET_FLOAT_BF16, k * 16 + r);
            break;
        default:
            martlet_gather_quantized(w, panel, r, to);
        }
    }
}
