// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Linears on f32 activations ("exact"), in 16-lane vectors: lane = row of the panel.
// Include with the register tile in PANEL_TILE panels x TOKEN_TILE tokens (CODE_TOKEN_TILE where
// weights are decoded). See martlet_linear_arguments for the order of operations: it does not
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
        size_t count = martlet_min(extent, inputs - k0);
        size_t whole = count / (size_t)step * (size_t)step;
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
                    martlet_vi packed = martlet_load16i(
                        group + (size_t)p * w->panel_stride + k / (size_t)step * 64);
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
                martlet_vi packed = martlet_load16i(
                    group + (size_t)p * w->panel_stride + whole / (size_t)step * 64);
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

/// What is known at compile time about a weight.
typedef struct {
    /// Bits of codes; 0: plain numbers of `type`.
    int bits;
    martlet_zero_kind zero;
    martlet_float_type type;
} martlet_exact_case;

MARTLET_INLINE void martlet_exact_tile(
    const martlet_linear_arguments *a, size_t panel, size_t token, const int panels,
    const int tokens, const martlet_exact_case kind) {
    if (kind.bits) {
        martlet_exact_quantized_tile(a, panel, token, panels, tokens, kind.bits, kind.zero);
    } else {
        martlet_exact_plain_tile(a, panel, token, panels, tokens, kind.type);
    }
}

/// Streams weights once per 4, 2 or 1 tokens; few tokens take several panels, to hide latency.
MARTLET_INLINE void martlet_exact_gemv(MARTLET_RANGE, const martlet_exact_case kind) {
    for (size_t t = token_begin; t < token_end;) {
        size_t left = token_end - t, p = panel_begin;
        if (left >= 4) {
            for (; p < panel_end; p++) martlet_exact_tile(a, p, t, 1, 4, kind);
            t += 4;
        } else if (left >= 2) {
            for (; p + 2 <= panel_end; p += 2) martlet_exact_tile(a, p, t, 2, 2, kind);
            for (; p < panel_end; p++) martlet_exact_tile(a, p, t, 1, 2, kind);
            t += 2;
        } else {
            for (; p + 4 <= panel_end; p += 4) martlet_exact_tile(a, p, t, 4, 1, kind);
            for (; p < panel_end; p++) martlet_exact_tile(a, p, t, 1, 1, kind);
            t += 1;
        }
    }
}

/// Panels outside, tiles of tokens inside, per chunk of tokens that stays in cache.
MARTLET_INLINE void martlet_exact_panel(MARTLET_RANGE, const martlet_exact_case kind) {
    const int tile = kind.bits || kind.type != MARTLET_FLOAT_F32 ? CODE_TOKEN_TILE : TOKEN_TILE;
    const size_t step = (size_t)tile;
    size_t chunk = martlet_exact_token_chunk(&a->weight) / step * step;
    for (size_t t0 = token_begin; t0 < token_end; t0 += chunk) {
        size_t t_end = martlet_min(t0 + chunk, token_end), p = panel_begin;
        for (; p + PANEL_TILE <= panel_end; p += PANEL_TILE) {
            size_t t = t0;
            for (; t + step <= t_end; t += step)
                martlet_exact_tile(a, p, t, PANEL_TILE, tile, kind);
            for (; t + 4 <= t_end; t += 4) martlet_exact_tile(a, p, t, PANEL_TILE, 4, kind);
            for (; t < t_end; t++) martlet_exact_tile(a, p, t, PANEL_TILE, 1, kind);
        }
        for (; PANEL_TILE > 1 && p < panel_end; p++) {
            size_t t = t0;
            for (; t + step <= t_end; t += step) martlet_exact_tile(a, p, t, 1, tile, kind);
            for (; t + 4 <= t_end; t += 4) martlet_exact_tile(a, p, t, 1, 4, kind);
            for (; t < t_end; t++) martlet_exact_tile(a, p, t, 1, 1, kind);
        }
    }
}

#define MARTLET_EXACT(name, BITS, ZERO, TYPE)                                                      \
    static void martlet_exact_gemv_##name(MARTLET_RANGE) {                                         \
        martlet_exact_gemv(                                                                        \
            a, panel_begin, panel_end, token_begin, token_end,                                     \
            (martlet_exact_case){BITS, MARTLET_ZERO_##ZERO, MARTLET_FLOAT_##TYPE});                \
    }                                                                                              \
    static void martlet_exact_panel_##name(MARTLET_RANGE) {                                        \
        martlet_exact_panel(                                                                       \
            a, panel_begin, panel_end, token_begin, token_end,                                     \
            (martlet_exact_case){BITS, MARTLET_ZERO_##ZERO, MARTLET_FLOAT_##TYPE});                \
    }

MARTLET_EXACT(u8_none, 8, NONE, F32)
MARTLET_EXACT(u8_integer, 8, INTEGER, F32)
MARTLET_EXACT(u8_minimum, 8, MINIMUM, F32)
MARTLET_EXACT(u4_none, 4, NONE, F32)
MARTLET_EXACT(u4_integer, 4, INTEGER, F32)
MARTLET_EXACT(u4_minimum, 4, MINIMUM, F32)
MARTLET_EXACT(f32, 0, NONE, F32)
MARTLET_EXACT(f16, 0, NONE, F16)
MARTLET_EXACT(bf16, 0, NONE, BF16)

/// An entry of the table that picks by the kind of zero.
#define MARTLET_EXACT_BY_ZERO(form, variant)                                                     \
    void ISA(linear_##form##_exact_##variant)(MARTLET_RANGE) {                                   \
        static const martlet_linear_function cases[3] = {                                          \
            martlet_exact_##variant##_##form##_none,                                             \
            martlet_exact_##variant##_##form##_integer,                                          \
            martlet_exact_##variant##_##form##_minimum,                                          \
        };                                                                                         \
        cases[a->weight.zero](a, panel_begin, panel_end, token_begin, token_end);                  \
    }
#define MARTLET_EXACT_PLAIN(form, variant)                                                       \
    void ISA(linear_##form##_exact_##variant)(MARTLET_RANGE) {                                   \
        martlet_exact_##variant##_##form(a, panel_begin, panel_end, token_begin, token_end);     \
    }

MARTLET_EXACT_BY_ZERO(u8, gemv)
MARTLET_EXACT_BY_ZERO(u8, panel)
MARTLET_EXACT_BY_ZERO(u4, gemv)
MARTLET_EXACT_BY_ZERO(u4, panel)
MARTLET_EXACT_PLAIN(f32, gemv)
MARTLET_EXACT_PLAIN(f32, panel)
MARTLET_EXACT_PLAIN(f16, gemv)
MARTLET_EXACT_PLAIN(f16, panel)
MARTLET_EXACT_PLAIN(bf16, gemv)
MARTLET_EXACT_PLAIN(bf16, panel)
