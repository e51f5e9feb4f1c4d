// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Linears on f32 activations ("exact"), in 16-lane vectors: lane = row of the panel.
// Include with LINEAR(weight, variant) naming the functions, and the register tile in PANEL_TILE
// panels x TOKEN_TILE tokens. See martlet_linear_arguments for the order of operations: it does not
// depend on the tile, since each accumulator belongs to one output.

enum { MAX_PANELS = 4 };

/// The codes at a bit position of a vector of packed words, minus what stands for zero. All steps
/// are exact: integers of at most nine bits.
MARTLET_INLINE martlet_vf martlet_exact_codes(
    martlet_vi packed, int shift, const int bits, martlet_zero_kind zero, martlet_vf zeros) {
    const int middle = zero == MARTLET_ZERO_NONE ? 1 << (bits - 1) : 0;
    martlet_vf numbers;
    martlet_vu words = (martlet_vu)packed >> (martlet_vu)(uint32_t)shift;
#if defined(MARTLET_NIBBLES)
    if (bits == 4) {
        numbers = MARTLET_NIBBLES(words, middle);
    } else
#endif
    {
        martlet_vi codes = (martlet_vi)words & (martlet_vi)((1 << bits) - 1);
        numbers = __builtin_convertvector(codes - (martlet_vi)middle, martlet_vf);
    }
    return zero == MARTLET_ZERO_INTEGER ? numbers - zeros : numbers;
}

/// Adds the sums of 32 of a group's inputs, ascending.
MARTLET_INLINE float martlet_exact_group_sum(
    const float *x, const float *sums, size_t k_begin, size_t k_end) {
    float total = 0;
    for (size_t k = k_begin; k < k_end; k += 32) {
        float sum = sums ? sums[k / 32] : martlet_sum32(x + k, k_end - k);
        total = k == k_begin ? sum : total + sum;
    }
    return total;
}

MARTLET_INLINE void martlet_exact_finish(
    const martlet_linear_arguments *a, size_t panel, size_t token, martlet_vf acc) {
    size_t n = panel * 16, count = martlet_min(16, a->weight.row_count - n);
    if (a->bias) acc += martlet_load_part(a->bias + n, count);
    martlet_store_part(a->y + token * a->y_stride + n, acc, count);
}

MARTLET_INLINE void martlet_exact_quantized_tile(
    const martlet_linear_arguments *a, size_t panel, size_t token, const int panels,
    const int tokens, const int bits, const martlet_zero_kind zero) {
    const martlet_weight *w = &a->weight;
    const int step = bits == 4 ? 8 : 4;
    size_t extent = martlet_group_extent(w), inputs = w->input_count;
    size_t code_bytes = martlet_group_code_bytes(w), group_bytes = martlet_group_bytes(w);
    size_t float_bytes = martlet_float_bytes(w->scale_type);
    const uint8_t *group = martlet_panel(w, panel);
    const float *x[TOKEN_TILE];
    martlet_vf acc[MAX_PANELS][TOKEN_TILE];
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
        x[t] = (const float *)((const uint8_t *)a->x + (token + (size_t)t) * a->x_stride);
        MARTLET_UNROLL for (int p = 0; p < panels; p++) acc[p][t] = (martlet_vf)0.0f;
    }
    for (size_t k0 = 0; k0 < inputs; k0 += extent, group += group_bytes) {
        size_t count = martlet_min(extent, inputs - k0), whole = count / (size_t)step * (size_t)step;
        martlet_vf inner[MAX_PANELS][TOKEN_TILE], scales[MAX_PANELS], zeros[MAX_PANELS];
        MARTLET_UNROLL for (int p = 0; p < panels; p++) {
            const uint8_t *tail = group + (size_t)p * w->panel_stride + code_bytes;
            scales[p] = martlet_load16_of(tail, w->scale_type);
            zeros[p] = (martlet_vf)0.0f;
            if (zero != MARTLET_ZERO_NONE)
                zeros[p] = martlet_load16_of(tail + 16 * float_bytes, w->scale_type);
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) inner[p][t] = (martlet_vf)0.0f;
        }
        for (size_t k = 0; k < whole; k += (size_t)step) {
            MARTLET_UNROLL for (int j = 0; j < step; j++) {
                martlet_vf code[MAX_PANELS];
                MARTLET_UNROLL for (int p = 0; p < panels; p++) {
                    martlet_vi packed =
                        martlet_load16i(group + (size_t)p * w->panel_stride + k / (size_t)step * 64);
                    code[p] = martlet_exact_codes(
                        packed, j < 4 ? 8 * j : 8 * (j - 4) + 4, bits, zero, zeros[p]);
                }
                MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                    martlet_vf input = (martlet_vf)x[t][k0 + k + (size_t)j];
                    MARTLET_UNROLL for (int p = 0; p < panels; p++)
                        inner[p][t] = martlet_vector_fma(code[p], input, inner[p][t]);
                }
            }
        }
        for (size_t k = whole; k < count; k++) {
            int j = (int)(k - whole), shift = j < 4 ? 8 * j : 8 * (j - 4) + 4;
            MARTLET_UNROLL for (int p = 0; p < panels; p++) {
                martlet_vi packed =
                    martlet_load16i(group + (size_t)p * w->panel_stride + whole / (size_t)step * 64);
                martlet_vf code =
                    martlet_exact_codes(packed, shift, bits, zero, zeros[p]);
                MARTLET_UNROLL for (int t = 0; t < tokens; t++)
                    inner[p][t] = martlet_vector_fma(code, (martlet_vf)x[t][k0 + k], inner[p][t]);
            }
        }
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            float sum = 0;
            if (zero == MARTLET_ZERO_MINIMUM)
                sum = martlet_exact_group_sum(
                    x[t],
                    a->x_sums ? a->x_sums + (token + (size_t)t) * a->x_sums_stride : NULL, k0,
                    k0 + count);
            MARTLET_UNROLL for (int p = 0; p < panels; p++) {
                acc[p][t] = martlet_vector_fma(inner[p][t], scales[p], acc[p][t]);
                if (zero == MARTLET_ZERO_MINIMUM)
                    acc[p][t] = martlet_vector_fma((martlet_vf)sum, zeros[p], acc[p][t]);
            }
        }
    }
    MARTLET_UNROLL for (int p = 0; p < panels; p++) {
        MARTLET_UNROLL for (int t = 0; t < tokens; t++)
            martlet_exact_finish(a, panel + (size_t)p, token + (size_t)t, acc[p][t]);
    }
}

MARTLET_INLINE void martlet_exact_plain_tile(
    const martlet_linear_arguments *a, size_t panel, size_t token, const int panels,
    const int tokens, const martlet_float_type type) {
    const martlet_weight *w = &a->weight;
    const uint8_t *from = martlet_panel(w, panel);
    const size_t bytes = type == MARTLET_FLOAT_F32 ? 64 : 32;
    const float *x[TOKEN_TILE];
    martlet_vf acc[MAX_PANELS][TOKEN_TILE];
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
        x[t] = (const float *)((const uint8_t *)a->x + (token + (size_t)t) * a->x_stride);
        MARTLET_UNROLL for (int p = 0; p < panels; p++) acc[p][t] = (martlet_vf)0.0f;
    }
#pragma clang loop unroll_count(4)
    for (size_t k = 0; k < w->input_count; k++) {
        martlet_vf weight[MAX_PANELS];
        MARTLET_UNROLL for (int p = 0; p < panels; p++)
            weight[p] = martlet_load16_of(from + (size_t)p * w->panel_stride + k * bytes, type);
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            martlet_vf input = (martlet_vf)x[t][k];
            MARTLET_UNROLL for (int p = 0; p < panels; p++)
                acc[p][t] = martlet_vector_fma(weight[p], input, acc[p][t]);
        }
    }
    MARTLET_UNROLL for (int p = 0; p < panels; p++) {
        MARTLET_UNROLL for (int t = 0; t < tokens; t++)
            martlet_exact_finish(a, panel + (size_t)p, token + (size_t)t, acc[p][t]);
    }
}

/// Tokens whose f32 rows take about half of a 1 MiB second-level cache, in whole tiles.
MARTLET_INLINE size_t martlet_exact_token_chunk(const martlet_weight *w) {
    size_t tiles = ((size_t)512 << 10) / (w->input_count * 4 * TOKEN_TILE);
    return (tiles ? tiles : 1) * TOKEN_TILE;
}

/// Runs TILE(panel, token, panels, tokens) over a range, weights streamed once per 4 tokens.
#define MARTLET_EXACT_GEMV(TILE, TOKENS)                                                                  \
    for (size_t t = token_begin; t < token_end;) {                                                 \
        size_t left = token_end - t, tokens = left >= 4 ? 4 : left >= 2 ? 2 : 1;                   \
        size_t p = panel_begin;                                                                    \
        if (tokens == 1) {                                                                         \
            for (; p + 4 <= panel_end; p += 4) TILE(p, t, 4, 1);                                   \
            for (; p < panel_end; p++) TILE(p, t, 1, 1);                                           \
        } else if (tokens == 2) {                                                                  \
            for (; p + 2 <= panel_end; p += 2) TILE(p, t, 2, 2);                                   \
            for (; p < panel_end; p++) TILE(p, t, 1, 2);                                           \
        } else {                                                                                   \
            for (; p < panel_end; p++) TILE(p, t, 1, 4);                                           \
        }                                                                                          \
        t += tokens;                                                                               \
    }

/// Runs TILE over a range, panels outside and tiles of tokens inside, per chunk of tokens.
#define MARTLET_EXACT_PANEL(TILE, TOKENS)                                                                 \
    size_t chunk = martlet_exact_token_chunk(&a->weight);                                          \
    for (size_t t0 = token_begin; t0 < token_end; t0 += chunk) {                                   \
        size_t t_end = martlet_min(t0 + chunk, token_end);                                         \
        for (size_t p = panel_begin; p < panel_end;) {                                             \
            size_t t = t0;                                                                         \
            int pair = PANEL_TILE == 2 && p + 2 <= panel_end;                                      \
            if (pair) {                                                                            \
                for (; t + TOKENS <= t_end; t += TOKENS) TILE(p, t, PANEL_TILE, TOKENS); \
                for (; t + 4 <= t_end; t += 4) TILE(p, t, PANEL_TILE, 4);                          \
                for (; t < t_end; t++) TILE(p, t, PANEL_TILE, 1);                                  \
            } else {                                                                               \
                for (; t + TOKENS <= t_end; t += TOKENS) TILE(p, t, 1, TOKENS);        \
                for (; t + 4 <= t_end; t += 4) TILE(p, t, 1, 4);                                   \
                for (; t < t_end; t++) TILE(p, t, 1, 1);                                           \
            }                                                                                      \
            p += pair ? 2 : 1;                                                                     \
        }                                                                                          \
    }

#define MARTLET_EXACT_QUANTIZED(BITS, ZERO, DRIVER)                                                \
    static void martlet_exact_##BITS##_##ZERO##_##DRIVER(MARTLET_RANGE) {                          \
        MARTLET_EXACT_##DRIVER(MARTLET_EXACT_TILE_##BITS##_##ZERO, CODE_TOKEN_TILE)                                 \
    }
#define MARTLET_EXACT_TILE_4_NONE(p, t, P, T)                                                      \
    martlet_exact_quantized_tile(a, p, t, P, T, 4, MARTLET_ZERO_NONE)
#define MARTLET_EXACT_TILE_4_INTEGER(p, t, P, T)                                                   \
    martlet_exact_quantized_tile(a, p, t, P, T, 4, MARTLET_ZERO_INTEGER)
#define MARTLET_EXACT_TILE_4_MINIMUM(p, t, P, T)                                                   \
    martlet_exact_quantized_tile(a, p, t, P, T, 4, MARTLET_ZERO_MINIMUM)
#define MARTLET_EXACT_TILE_8_NONE(p, t, P, T)                                                      \
    martlet_exact_quantized_tile(a, p, t, P, T, 8, MARTLET_ZERO_NONE)
#define MARTLET_EXACT_TILE_8_INTEGER(p, t, P, T)                                                   \
    martlet_exact_quantized_tile(a, p, t, P, T, 8, MARTLET_ZERO_INTEGER)
#define MARTLET_EXACT_TILE_8_MINIMUM(p, t, P, T)                                                   \
    martlet_exact_quantized_tile(a, p, t, P, T, 8, MARTLET_ZERO_MINIMUM)
#define MARTLET_EXACT_TILE_F32(p, t, P, T)                                                         \
    martlet_exact_plain_tile(a, p, t, P, T, MARTLET_FLOAT_F32)
#define MARTLET_EXACT_TILE_F16(p, t, P, T)                                                         \
    martlet_exact_plain_tile(a, p, t, P, T, MARTLET_FLOAT_F16)
#define MARTLET_EXACT_TILE_BF16(p, t, P, T)                                                        \
    martlet_exact_plain_tile(a, p, t, P, T, MARTLET_FLOAT_BF16)

#define MARTLET_EXACT_ENTRY(BITS, DRIVER, name)                                                    \
    MARTLET_EXACT_QUANTIZED(BITS, NONE, DRIVER)                                                    \
    MARTLET_EXACT_QUANTIZED(BITS, INTEGER, DRIVER)                                                 \
    MARTLET_EXACT_QUANTIZED(BITS, MINIMUM, DRIVER)                                                 \
    void name(MARTLET_RANGE) {                                                                     \
        switch (a->weight.zero) {                                                                  \
        case MARTLET_ZERO_NONE:                                                                    \
            martlet_exact_##BITS##_NONE_##DRIVER(a, panel_begin, panel_end, token_begin, token_end); \
            break;                                                                                 \
        case MARTLET_ZERO_INTEGER:                                                                 \
            martlet_exact_##BITS##_INTEGER_##DRIVER(                                               \
                a, panel_begin, panel_end, token_begin, token_end);                                \
            break;                                                                                 \
        default:                                                                                   \
            martlet_exact_##BITS##_MINIMUM_##DRIVER(                                               \
                a, panel_begin, panel_end, token_begin, token_end);                                \
        }                                                                                          \
    }

MARTLET_EXACT_ENTRY(8, GEMV, ISA(linear_u8_exact_gemv))
MARTLET_EXACT_ENTRY(8, PANEL, ISA(linear_u8_exact_panel))
MARTLET_EXACT_ENTRY(4, GEMV, ISA(linear_u4_exact_gemv))
MARTLET_EXACT_ENTRY(4, PANEL, ISA(linear_u4_exact_panel))

void ISA(linear_f32_exact_gemv)(MARTLET_RANGE) { MARTLET_EXACT_GEMV(MARTLET_EXACT_TILE_F32, TOKEN_TILE) }
void ISA(linear_f32_exact_panel)(MARTLET_RANGE) { MARTLET_EXACT_PANEL(MARTLET_EXACT_TILE_F32, TOKEN_TILE) }
void ISA(linear_f16_exact_gemv)(MARTLET_RANGE) { MARTLET_EXACT_GEMV(MARTLET_EXACT_TILE_F16, CODE_TOKEN_TILE) }
void ISA(linear_f16_exact_panel)(MARTLET_RANGE) { MARTLET_EXACT_PANEL(MARTLET_EXACT_TILE_F16, CODE_TOKEN_TILE) }
void ISA(linear_bf16_exact_gemv)(MARTLET_RANGE) { MARTLET_EXACT_GEMV(MARTLET_EXACT_TILE_BF16, CODE_TOKEN_TILE) }
void ISA(linear_bf16_exact_panel)(MARTLET_RANGE) { MARTLET_EXACT_PANEL(MARTLET_EXACT_TILE_BF16, CODE_TOKEN_TILE) }
