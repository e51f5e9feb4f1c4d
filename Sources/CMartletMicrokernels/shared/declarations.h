// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Declares the functions of one ISA's table, named by ISA(name).

#define MARTLET_DECLARE_LINEAR(name)                                                               \
    void ISA(name)(                                                                                \
        const martlet_linear_arguments *a, size_t panel_begin, size_t panel_end,                   \
        size_t token_begin, size_t token_end);

MARTLET_DECLARE_LINEAR(linear_u8_int8g64_gemv)
MARTLET_DECLARE_LINEAR(linear_u8_int8g64_panel)
MARTLET_DECLARE_LINEAR(linear_u4_int8g64_gemv)
MARTLET_DECLARE_LINEAR(linear_u4_int8g64_panel)
MARTLET_DECLARE_LINEAR(linear_u8_exact_gemv)
MARTLET_DECLARE_LINEAR(linear_u8_exact_panel)
MARTLET_DECLARE_LINEAR(linear_u4_exact_gemv)
MARTLET_DECLARE_LINEAR(linear_u4_exact_panel)
MARTLET_DECLARE_LINEAR(linear_f32_exact_gemv)
MARTLET_DECLARE_LINEAR(linear_f32_exact_panel)
MARTLET_DECLARE_LINEAR(linear_f16_exact_gemv)
MARTLET_DECLARE_LINEAR(linear_f16_exact_panel)
MARTLET_DECLARE_LINEAR(linear_bf16_exact_gemv)
MARTLET_DECLARE_LINEAR(linear_bf16_exact_panel)

void ISA(attention)(
    const martlet_attention_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end);
void ISA(kv_write)(
    const martlet_kv_write_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end);
void ISA(rotary)(const martlet_rotary_arguments *a, size_t token_begin, size_t token_end);
void ISA(gather_rows)(
    const martlet_weight *w, const int32_t *ids, float *y, size_t y_stride, size_t begin,
    size_t end);
void ISA(row_sums32)(
    const float *x, size_t x_stride, size_t input_count, float *sums, size_t sums_stride,
    size_t row_begin, size_t row_end);
void ISA(quantize_int8g64)(
    const float *x, size_t x_stride, size_t input_count, uint8_t *y, size_t y_stride,
    size_t row_begin, size_t row_end);
void ISA(dequantize_int8g64)(
    const uint8_t *x, size_t x_stride, size_t input_count, float *y, size_t y_stride,
    size_t row_begin, size_t row_end);
void ISA(rms_norm)(const martlet_norm_arguments *a, size_t row_begin, size_t row_end);
void ISA(layer_norm)(const martlet_norm_arguments *a, size_t row_begin, size_t row_end);
void ISA(gated_activation)(const martlet_gated_arguments *a, size_t row_begin, size_t row_end);
