// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Shared by the scalar kernels: target (FMA and F16C on x86-64, which every table needs), names.
// Each file ends with MARTLET_TARGET_END.

#ifndef MARTLET_SCALAR_H
#define MARTLET_SCALAR_H

#include "../include/martlet_microkernels.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("fma,f16c,sse4.2"))), apply_to = function)
#define MARTLET_TARGET_END _Pragma("clang attribute pop")
#else
#define MARTLET_TARGET_END
#endif

#include "../shared/internal.h"
#include "../shared/scalar_math.h"

/// Sum of up to 32 numbers in the order of `row_sums32`.
MARTLET_INLINE float martlet_scalar_sum32(const float *x, size_t count) {
    float lanes[16];
    for (size_t j = 0; j < 16; j++) {
        lanes[j] = (j < count ? x[j] : 0) + (16 + j < count ? x[16 + j] : 0);
    }
    for (size_t half = 8; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++) lanes[j] += lanes[j + half];
    }
    return lanes[0];
}

/// Folds 64 lanes to one: (0+1)+(2+3) of the four 16s, then halves.
MARTLET_INLINE float martlet_scalar_fold64(const float lanes[64]) {
    float sum[16];
    for (size_t j = 0; j < 16; j++) {
        sum[j] = (lanes[j] + lanes[16 + j]) + (lanes[32 + j] + lanes[48 + j]);
    }
    for (size_t half = 8; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++) sum[j] += sum[j + half];
    }
    return sum[0];
}

void martlet_linear_quantized_int8g64_scalar(
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,
    size_t token_end);
void martlet_linear_quantized_exact_scalar(
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,
    size_t token_end);
void martlet_linear_plain_exact_scalar(
    const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end, size_t token_begin,
    size_t token_end);
void martlet_attention_scalar(
    const martlet_attention_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end);
void martlet_kv_write_scalar(
    const martlet_kv_write_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end);
void martlet_rotary_scalar(
    const martlet_rotary_arguments *a, size_t token_begin, size_t token_end);
void martlet_gather_rows_scalar(
    const martlet_weight *w, const int32_t *ids, float *y, size_t y_stride, size_t begin,
    size_t end);
void martlet_row_sums32_scalar(
    const float *x, size_t x_stride, size_t input_count, float *sums, size_t sums_stride,
    size_t row_begin, size_t row_end);
void martlet_quantize_int8g64_scalar(
    const float *x, size_t x_stride, size_t input_count, uint8_t *y, size_t y_stride,
    size_t row_begin, size_t row_end);
void martlet_dequantize_int8g64_scalar(
    const uint8_t *x, size_t x_stride, size_t input_count, float *y, size_t y_stride,
    size_t row_begin, size_t row_end);
void martlet_rms_norm_scalar(const martlet_norm_arguments *a, size_t row_begin, size_t row_end);
void martlet_layer_norm_scalar(const martlet_norm_arguments *a, size_t row_begin, size_t row_end);
void martlet_gated_activation_scalar(
    const martlet_gated_arguments *a, size_t row_begin, size_t row_end);
uint32_t martlet_crc32c_scalar(uint32_t seed, const void *bytes, size_t count);

#endif
