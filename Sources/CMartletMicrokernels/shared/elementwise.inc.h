// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Elementwise operations, conversions and reductions of one row in 16-lane vectors, and the table.
// Include last, with ISA_ID, ISA_NAME, CRC32C, PROBE_READ, PROBE_INT8 and PROBE_F32 defined.

static void add(const float *a, const float *b, float *y, size_t count) {
    for (size_t i = 0; i < count; i += 16) {
        size_t left = count - i;
        martlet_store_part(
            y + i, martlet_load_part(a + i, left) + martlet_load_part(b + i, left), left);
    }
}

static void multiply(const float *a, const float *b, float *y, size_t count) {
    for (size_t i = 0; i < count; i += 16) {
        size_t left = count - i;
        martlet_store_part(
            y + i, martlet_load_part(a + i, left) * martlet_load_part(b + i, left), left);
    }
}

static void scale(const float *a, float factor, float *y, size_t count) {
    for (size_t i = 0; i < count; i += 16) {
        size_t left = count - i;
        martlet_store_part(y + i, martlet_load_part(a + i, left) * (martlet_vf)factor, left);
    }
}

static void f32_to_f16(const float *x, uint16_t *y, size_t count) {
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        martlet_vhalf half = __builtin_convertvector(martlet_load16(x + i), martlet_vhalf);
        martlet_copy(y + i, &half, 32);
    }
    for (; i < count; i++) martlet_store_float(y, MARTLET_FLOAT_F16, i, x[i]);
}

static void f16_to_f32(const uint16_t *x, float *y, size_t count) {
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        martlet_store16(y + i, martlet_load16_of(x + i, MARTLET_FLOAT_F16));
    for (; i < count; i++) y[i] = martlet_load_float(x, MARTLET_FLOAT_F16, i);
}

static void f32_to_bf16(const float *x, uint16_t *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = martlet_bf16_of_float(x[i]);
}

static void bf16_to_f32(const uint16_t *x, float *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = martlet_float_of_bf16(x[i]);
}

/// The largest number of a row; NaN is ignored.
static float largest(const float *x, size_t count) {
    martlet_vf best[4];
    MARTLET_UNROLL for (int j = 0; j < 4; j++) best[j] = (martlet_vf)-__builtin_inff();
    size_t i = 0;
    for (; i + 64 <= count; i += 64) {
        MARTLET_UNROLL for (int j = 0; j < 4; j++)
            best[j] = martlet_vector_max(martlet_load16(x + i + 16 * j), best[j]);
    }
    martlet_vf all = martlet_vector_max(
        martlet_vector_max(best[0], best[1]), martlet_vector_max(best[2], best[3]));
    float m = martlet_vector_largest(all);
    for (; i < count; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/// Sum of exp(x - m) in 64 lanes; y, if given, receives the terms.
static float sum_of_exponentials(const float *x, float m, float *y, size_t count) {
    martlet_four sums = {{(martlet_vf)0.0f, (martlet_vf)0.0f, (martlet_vf)0.0f, (martlet_vf)0.0f}};
    for (size_t i = 0; i < count; i += 64) {
        martlet_four v = martlet_load_four(x + i, count - i);
        MARTLET_UNROLL for (int j = 0; j < 4; j++)
            v.v[j] = martlet_vector_exp(v.v[j] - (martlet_vf)m);
        v = martlet_clear_from(v, count - i);
        if (y) martlet_store_four(y + i, v, count - i);
        MARTLET_UNROLL for (int j = 0; j < 4; j++) sums.v[j] += v.v[j];
    }
    return martlet_fold64(sums);
}

static void softmax(const float *x, float *y, size_t count) {
    float inverse = 1.0f / sum_of_exponentials(x, largest(x, count), y, count);
    scale(y, inverse, y, count);
}

static double log_sum_exp(const float *x, size_t count) {
    float m = largest(x, count), sum = sum_of_exponentials(x, m, NULL, count);
    if (!(sum > 0 && sum < __builtin_inff())) return (double)m + (double)sum;
    return (double)m + martlet_log((double)sum);
}

static size_t argmax(const float *x, size_t count) {
    float m = largest(x, count);
    for (size_t i = 0; i < count; i++) {
        if (x[i] == m) return i;
    }
    return 0;
}

static int all_finite(const float *x, size_t count) {
    martlet_vi bits = (martlet_vi)0;
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        bits = __builtin_elementwise_max(bits, martlet_load16i(x + i) & (martlet_vi)0x7fffffff);
    int is_finite = martlet_largest_bits(bits) < 0x7f800000;
    for (; i < count; i++)
        is_finite &= (martlet_bits_of_float(x[i]) & 0x7fffffff) < 0x7f800000;
    return is_finite;
}

const martlet_kernels ISA(kernels) = {
    .isa = ISA_ID,
    .name = ISA_NAME,
    .linear_u8_int8g64_gemv = ISA(linear_u8_int8g64_gemv),
    .linear_u8_int8g64_panel = ISA(linear_u8_int8g64_panel),
    .linear_u4_int8g64_gemv = ISA(linear_u4_int8g64_gemv),
    .linear_u4_int8g64_panel = ISA(linear_u4_int8g64_panel),
    .linear_u8_exact_gemv = ISA(linear_u8_exact_gemv),
    .linear_u8_exact_panel = ISA(linear_u8_exact_panel),
    .linear_u4_exact_gemv = ISA(linear_u4_exact_gemv),
    .linear_u4_exact_panel = ISA(linear_u4_exact_panel),
    .linear_f32_exact_gemv = ISA(linear_f32_exact_gemv),
    .linear_f32_exact_panel = ISA(linear_f32_exact_panel),
    .linear_f16_exact_gemv = ISA(linear_f16_exact_gemv),
    .linear_f16_exact_panel = ISA(linear_f16_exact_panel),
    .linear_bf16_exact_gemv = ISA(linear_bf16_exact_gemv),
    .linear_bf16_exact_panel = ISA(linear_bf16_exact_panel),
    .row_sums32 = ISA(row_sums32),
    .quantize_int8g64 = ISA(quantize_int8g64),
    .dequantize_int8g64 = ISA(dequantize_int8g64),
    .rms_norm = ISA(rms_norm),
    .layer_norm = ISA(layer_norm),
    .gated_activation = ISA(gated_activation),
    .add = add,
    .multiply = multiply,
    .scale = scale,
    .gather_rows = ISA(gather_rows),
    .rotary = ISA(rotary),
    .kv_write = ISA(kv_write),
    .attention = ISA(attention),
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .f32_to_bf16 = f32_to_bf16,
    .bf16_to_f32 = bf16_to_f32,
    .softmax = softmax,
    .argmax = argmax,
    .log_sum_exp = log_sum_exp,
    .all_finite = all_finite,
    .crc32c = CRC32C,
    .probe_read = PROBE_READ,
    .probe_int8 = PROBE_INT8,
    .probe_f32 = PROBE_F32,
};
