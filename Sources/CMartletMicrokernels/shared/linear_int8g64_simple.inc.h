// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Linears on int8g64 activations for ISAs without vpdpbusd: tiles of one panel, TOKENS tokens or 1.
// Include with TOKENS and martlet_dot_block(dots, codes, bits, x, x_stride, tokens, block), which
// sets dots[t] to the integer dots of a block of codes (codes as unsigned) with token t.
// Order of operations: martlet_linear_arguments.

MARTLET_INLINE void martlet_int8_tile(
    const martlet_linear_arguments *a, size_t panel, size_t token, const int tokens,
    const int bits) {
    const martlet_weight *w = &a->weight;
    const int block = w->group_size % 64 ? 32 : 64;
    size_t extent = martlet_group_extent(w), code_bytes = martlet_group_code_bytes(w);
    const uint8_t *x = (const uint8_t *)a->x + token * a->x_stride;
    const uint8_t *group = martlet_panel(w, panel);
    martlet_vf acc[TOKENS], inner[TOKENS];
    float m[TOKENS];
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) acc[t] = (martlet_vf)0.0f;
    for (size_t k0 = 0; k0 < w->input_count; k0 += extent, group += martlet_group_bytes(w)) {
        const uint8_t *codes = group, *tail = group + code_bytes;
        martlet_vf scale = martlet_load16_of(tail, w->scale_type), zeros = (martlet_vf)0.0f;
        martlet_vi subtracted = (martlet_vi)0;
        if (w->zero == MARTLET_ZERO_NONE) subtracted = (martlet_vi)(1 << (bits - 1));
        if (w->zero != MARTLET_ZERO_NONE)
            zeros = martlet_load16_of(
                tail + 16 * martlet_float_bytes(w->scale_type), w->scale_type);
        if (w->zero == MARTLET_ZERO_INTEGER)
            subtracted = __builtin_convertvector(zeros, martlet_vi);
        size_t k_end = martlet_min(k0 + extent, w->input_count);
        for (size_t k = k0; k < k_end; k += (size_t)block, codes += block * 2 * bits) {
            martlet_vi dots[TOKENS];
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) dots[t] = (martlet_vi)0;
            martlet_dot_block(dots, codes, bits, (const int8_t *)x + k, a->x_stride, tokens, block);
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                const martlet_int8g64_group *numbers =
                    martlet_int8g64_groups(x + (size_t)t * a->x_stride, w->input_count) + k / 64;
                size_t half = k / 32 % 2;
                int negated = block == 64 ? numbers->negated_sum : numbers->negated_half_sums[half];
                float sum = block == 64 ? numbers->weighted_sum : numbers->weighted_half_sums[half];
                martlet_vf dot = __builtin_convertvector(
                    dots[t] + subtracted * (martlet_vi)negated, martlet_vf);
                martlet_vf unit = (martlet_vf)numbers->scale;
                inner[t] = k == k0 ? dot * unit : martlet_vector_fma(dot, unit, inner[t]);
                m[t] = k == k0 ? sum : m[t] + sum;
            }
        }
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            acc[t] = martlet_vector_fma(inner[t], scale, acc[t]);
            if (w->zero == MARTLET_ZERO_MINIMUM)
                acc[t] = martlet_vector_fma((martlet_vf)m[t], zeros, acc[t]);
        }
    }
    size_t n = panel * 16, count = martlet_min(16, w->row_count - n);
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
        if (a->bias) acc[t] += martlet_load_part(a->bias + n, count);
        martlet_store_part(a->y + (token + (size_t)t) * a->y_stride + n, acc[t], count);
    }
}

MARTLET_INLINE void martlet_int8_range(MARTLET_RANGE, const int bits) {
    for (size_t p = panel_begin; p < panel_end; p++) {
        size_t t = token_begin;
        for (; t + TOKENS <= token_end; t += TOKENS) martlet_int8_tile(a, p, t, TOKENS, bits);
        for (; t < token_end; t++) martlet_int8_tile(a, p, t, 1, bits);
    }
}

void ISA(linear_u8_int8g64_gemv)(MARTLET_RANGE) {
    martlet_int8_range(a, panel_begin, panel_end, token_begin, token_end, 8);
}

void ISA(linear_u4_int8g64_gemv)(MARTLET_RANGE) {
    martlet_int8_range(a, panel_begin, panel_end, token_begin, token_end, 4);
}

/// Tokens in chunks that stay in a second-level cache while panels pass.
void ISA(linear_u8_int8g64_panel)(MARTLET_RANGE) {
    for (size_t t = token_begin; t < token_end; t += 64)
        martlet_int8_range(a, panel_begin, panel_end, t, martlet_min(t + 64, token_end), 8);
}

void ISA(linear_u4_int8g64_panel)(MARTLET_RANGE) {
    for (size_t t = token_begin; t < token_end; t += 64)
        martlet_int8_range(a, panel_begin, panel_end, t, martlet_min(t + 64, token_end), 4);
}
