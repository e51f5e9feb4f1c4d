// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// The scalar table, with its elementwise operations, reductions, conversions, CRC32C and probes.

#include "scalar.h"

static void add(const float *a, const float *b, float *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = a[i] + b[i];
}

static void multiply(const float *a, const float *b, float *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = a[i] * b[i];
}

static void scale(const float *a, float factor, float *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = a[i] * factor;
}

static void f32_to_f16(const float *x, uint16_t *y, size_t count) {
    for (size_t i = 0; i < count; i++) martlet_store_float(y, MARTLET_FLOAT_F16, i, x[i]);
}

static void f16_to_f32(const uint16_t *x, float *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = martlet_load_float(x, MARTLET_FLOAT_F16, i);
}

static void f32_to_bf16(const float *x, uint16_t *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = martlet_bf16_of_float(x[i]);
}

static void bf16_to_f32(const uint16_t *x, float *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = martlet_float_of_bf16(x[i]);
}

static float largest(const float *x, size_t count) {
    float m = -__builtin_inff();
    for (size_t i = 0; i < count; i++) m = x[i] > m ? x[i] : m;
    return m;
}

static float sum_of_exponentials(const float *x, float m, size_t count) {
    float lanes[64] = {0};
    for (size_t i = 0; i < count; i++) lanes[i % 64] += martlet_scalar_exp(x[i] - m);
    return martlet_scalar_fold64(lanes);
}

static void softmax(const float *x, float *y, size_t count) {
    float m = largest(x, count), inverse = 1.0f / sum_of_exponentials(x, m, count);
    for (size_t i = 0; i < count; i++) y[i] = martlet_scalar_exp(x[i] - m) * inverse;
}

static double log_sum_exp(const float *x, size_t count) {
    float m = largest(x, count), sum = sum_of_exponentials(x, m, count);
    if (!(sum > 0 && sum < __builtin_inff())) return (double)m + (double)sum;
    return (double)m + martlet_log((double)sum);
}

static size_t argmax(const float *x, size_t count) {
    size_t best = 0;
    float m = -__builtin_inff();
    int found = 0;
    for (size_t i = 0; i < count; i++) {
        if (x[i] > m || (!found && x[i] == m)) {
            m = x[i];
            best = i;
            found = 1;
        }
    }
    return best;
}

static int all_finite(const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if ((martlet_bits_of_float(x[i]) & 0x7fffffff) >= 0x7f800000) return 0;
    }
    return 1;
}

uint32_t martlet_crc32c_scalar(uint32_t seed, const void *bytes, size_t count) {
    // One nibble at a time: table[i] is the remainder of i << 28 bits, reflected.
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    const uint8_t *p = bytes;
    uint32_t crc = ~seed;
    for (size_t i = 0; i < count; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint64_t probe_read(const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    uint64_t sum = 0;
    for (size_t i = 0; i + 8 <= count; i += 8) {
        uint64_t v;
        martlet_copy(&v, p + i, 8);
        sum += v;
    }
    return sum;
}

static double probe_int8(size_t iterations) {
    int32_t sums[8] = {0};
    for (size_t i = 0; i < iterations; i++) {
        for (int j = 0; j < 8; j++) {
            __asm__ volatile("" : "+r"(sums[j]));
            sums[j] += (int8_t)i * (j + 1);
        }
    }
    return (double)iterations * 16;
}

static double probe_f32(size_t iterations) {
    float sums[8] = {0};
    for (size_t i = 0; i < iterations; i++) {
        for (int j = 0; j < 8; j++) {
            __asm__ volatile("" ::"r"(&sums[j]) : "memory");
            sums[j] = martlet_scalar_fma(sums[j], 0.5f, 1.0f);
        }
    }
    return (double)iterations * 16;
}

const martlet_kernels martlet_kernels_scalar = {
    .isa = MARTLET_ISA_SCALAR,
    .name = "scalar",
    .linear_u8_int8g64_gemv = martlet_linear_quantized_int8g64_scalar,
    .linear_u8_int8g64_panel = martlet_linear_quantized_int8g64_scalar,
    .linear_u4_int8g64_gemv = martlet_linear_quantized_int8g64_scalar,
    .linear_u4_int8g64_panel = martlet_linear_quantized_int8g64_scalar,
    .linear_u8_exact_gemv = martlet_linear_quantized_exact_scalar,
    .linear_u8_exact_panel = martlet_linear_quantized_exact_scalar,
    .linear_u4_exact_gemv = martlet_linear_quantized_exact_scalar,
    .linear_u4_exact_panel = martlet_linear_quantized_exact_scalar,
    .linear_f32_exact_gemv = martlet_linear_plain_exact_scalar,
    .linear_f32_exact_panel = martlet_linear_plain_exact_scalar,
    .linear_f16_exact_gemv = martlet_linear_plain_exact_scalar,
    .linear_f16_exact_panel = martlet_linear_plain_exact_scalar,
    .linear_bf16_exact_gemv = martlet_linear_plain_exact_scalar,
    .linear_bf16_exact_panel = martlet_linear_plain_exact_scalar,
    .row_sums32 = martlet_row_sums32_scalar,
    .quantize_int8g64 = martlet_quantize_int8g64_scalar,
    .dequantize_int8g64 = martlet_dequantize_int8g64_scalar,
    .rms_norm = martlet_rms_norm_scalar,
    .layer_norm = martlet_layer_norm_scalar,
    .gated_activation = martlet_gated_activation_scalar,
    .add = add,
    .multiply = multiply,
    .scale = scale,
    .gather_rows = martlet_gather_rows_scalar,
    .rotary = martlet_rotary_scalar,
    .kv_write = martlet_kv_write_scalar,
    .attention = martlet_attention_scalar,
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .f32_to_bf16 = f32_to_bf16,
    .bf16_to_f32 = bf16_to_f32,
    .softmax = softmax,
    .argmax = argmax,
    .log_sum_exp = log_sum_exp,
    .all_finite = all_finite,
    .crc32c = martlet_crc32c_scalar,
    .probe_read = probe_read,
    .probe_int8 = probe_int8,
    .probe_f32 = probe_f32,
};

MARTLET_TARGET_END
