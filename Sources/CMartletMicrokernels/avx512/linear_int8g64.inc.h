// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Linears on int8g64 activations by vpdpbusd: lane = row of the panel, u8 codes x s8 codes.
// Include with BITS 8 or 4. See martlet_linear_arguments for layout and order of operations;
// integer dots are exact, so only the float steps after each block have an order, the same in
// every tile.

#define MIDDLE (BITS == 4 ? 8 : 128)
enum { MAX_PANELS = 2 };

/// What is known at compile time about a weight.
typedef struct {
    martlet_zero_kind zero;
    /// k per block of activations: 64, or 32 for groups that 64 does not divide.
    int block;
    /// One block a group: no inner sum.
    int is_single;
} martlet_case;

typedef struct {
    __m512i lanes[MAX_PANELS][TOKEN_TILE];
} martlet_dots;

/// Adds the dots of one block; with one or two tokens by several chains, to hide latency.
MARTLET_INLINE void martlet_block_dots(
    martlet_dots *dots, const uint8_t *codes, size_t panel_stride, const int8_t *x, size_t x_stride,
    const int panels, const int tokens, const int block) {
    const int chains = panels * tokens == 1 ? 4 : panels * tokens == 2 ? 2 : 1;
    __m512i extra[3][MAX_PANELS][TOKEN_TILE];
    MARTLET_UNROLL for (int c = 1; c < chains; c++) {
        MARTLET_UNROLL for (int p = 0; p < panels; p++) {
            MARTLET_UNROLL for (int t = 0; t < tokens; t++)
                extra[c - 1][p][t] = _mm512_setzero_si512();
        }
    }
    const __m512i low = _mm512_set1_epi8(15);
    MARTLET_UNROLL for (int k4 = 0; k4 < block / 4; k4++) {
        __m512i w[MAX_PANELS];
        MARTLET_UNROLL for (int p = 0; p < panels; p++) {
            const uint8_t *from = codes + (size_t)p * panel_stride;
            if (BITS == 8) {
                w[p] = _mm512_loadu_si512(from + k4 * 64);
            } else {
                w[p] = _mm512_loadu_si512(from + k4 / 2 * 64);
                if (k4 % 2) w[p] = _mm512_srli_epi16(w[p], 4);
                w[p] = _mm512_and_si512(w[p], low);
            }
        }
        const int chain = k4 % chains;
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            __m512i input =
                _mm512_set1_epi32((int)martlet_load_u32(x + (size_t)t * x_stride + k4 * 4));
            MARTLET_UNROLL for (int p = 0; p < panels; p++) {
                __m512i *to = chain ? &extra[chain ? chain - 1 : 0][p][t] : &dots->lanes[p][t];
                *to = _mm512_dpbusd_epi32(*to, w[p], input);
            }
        }
    }
    MARTLET_UNROLL for (int c = 1; c < chains; c++) {
        MARTLET_UNROLL for (int p = 0; p < panels; p++) {
            MARTLET_UNROLL for (int t = 0; t < tokens; t++)
                dots->lanes[p][t] = _mm512_add_epi32(dots->lanes[p][t], extra[c - 1][p][t]);
        }
    }
}

MARTLET_INLINE __m512 martlet_scales(const uint8_t *p, martlet_float_type type) {
    if (type == MARTLET_FLOAT_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
    if (type == MARTLET_FLOAT_F32) return _mm512_loadu_ps(p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

/// `panels` x `tokens` outputs over the whole of K.
MARTLET_INLINE void martlet_int8_tile(
    const martlet_linear_arguments *a, size_t panel, size_t token, const int panels,
    const int tokens, const martlet_case kind) {
    const martlet_weight *w = &a->weight;
    const int block = kind.block;
    size_t inputs = w->input_count, extent = martlet_group_extent(w);
    size_t code_bytes = martlet_group_code_bytes(w), group_bytes = martlet_group_bytes(w);
    size_t float_bytes = martlet_float_bytes(w->scale_type), x_stride = a->x_stride;
    const uint8_t *x = (const uint8_t *)a->x + token * x_stride;
    const uint8_t *groups = x + martlet_int8g64_inputs(inputs);
    const uint8_t *group = martlet_panel(w, panel);
    __m512 acc[MAX_PANELS][TOKEN_TILE], inner[MAX_PANELS][TOKEN_TILE], zeros[MAX_PANELS];
    float m[TOKEN_TILE];
    MARTLET_UNROLL for (int p = 0; p < panels; p++) {
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) acc[p][t] = _mm512_setzero_ps();
    }
    for (size_t k0 = 0; k0 < inputs; k0 += extent, group += group_bytes) {
        const uint8_t *codes = group;
        size_t k_end = martlet_min(k0 + extent, inputs);
        MARTLET_UNROLL for (int p = 0; p < panels; p++) {
            const uint8_t *tail = group + (size_t)p * w->panel_stride + code_bytes;
            if (kind.zero == MARTLET_ZERO_INTEGER)
                zeros[p] = martlet_scales(tail + 16 * float_bytes, w->scale_type);
        }
        for (size_t k = k0; k < k_end; k += (size_t)block, codes += (size_t)block * 2 * BITS) {
            if (panels == 1) {
                MARTLET_UNROLL for (int p = 0; p < panels; p++) {
                    const uint8_t *ahead = codes + (size_t)p * w->panel_stride + PREFETCH;
                    MARTLET_UNROLL for (int i = 0; i < block * 2 * BITS; i += 64)
                        _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
                }
            }
            const uint8_t *numbers = groups + k / 64 * sizeof(martlet_int8g64_group);
            size_t half = block == 32 ? k / 32 % 2 * 4 : 0;
            const uint8_t *negated = numbers + half
                + (block == 64 ? offsetof(martlet_int8g64_group, negated_sum)
                               : offsetof(martlet_int8g64_group, negated_half_sums));
            const uint8_t *weighted = numbers + half
                + (block == 64 ? offsetof(martlet_int8g64_group, weighted_sum)
                               : offsetof(martlet_int8g64_group, weighted_half_sums));
            martlet_dots dots;
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                __m512i start = _mm512_setzero_si512();
                if (kind.zero == MARTLET_ZERO_NONE)
                    start = _mm512_slli_epi32(
                        _mm512_set1_epi32((int)martlet_load_u32(negated + (size_t)t * x_stride)),
                        BITS - 1);
                MARTLET_UNROLL for (int p = 0; p < panels; p++) dots.lanes[p][t] = start;
            }
            martlet_block_dots(
                &dots, codes, w->panel_stride, (const int8_t *)x + k, x_stride, panels, tokens,
                block);
            int is_first = kind.is_single || k == k0;
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                const uint8_t *at = numbers + (size_t)t * x_stride;
                __m512 scale = _mm512_set1_ps(martlet_float_of_bits(martlet_load_u32(at)));
                __m512 negated_sum = _mm512_cvtepi32_ps(_mm512_set1_epi32(
                    (int)martlet_load_u32(negated + (size_t)t * x_stride)));
                MARTLET_UNROLL for (int p = 0; p < panels; p++) {
                    __m512 dot = _mm512_cvtepi32_ps(dots.lanes[p][t]);
                    // Exact: all three numbers and the sum are integers below 2^24.
                    if (kind.zero == MARTLET_ZERO_INTEGER)
                        dot = _mm512_fmadd_ps(zeros[p], negated_sum, dot);
                    inner[p][t] = is_first ? _mm512_mul_ps(dot, scale)
                                           : _mm512_fmadd_ps(dot, scale, inner[p][t]);
                }
                if (kind.zero == MARTLET_ZERO_MINIMUM) {
                    float sum =
                        martlet_float_of_bits(martlet_load_u32(weighted + (size_t)t * x_stride));
                    m[t] = is_first ? sum : m[t] + sum;
                }
            }
        }
        MARTLET_UNROLL for (int p = 0; p < panels; p++) {
            const uint8_t *tail = group + (size_t)p * w->panel_stride + code_bytes;
            __m512 scale = martlet_scales(tail, w->scale_type);
            if (kind.zero == MARTLET_ZERO_MINIMUM)
                zeros[p] = martlet_scales(tail + 16 * float_bytes, w->scale_type);
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                acc[p][t] = _mm512_fmadd_ps(inner[p][t], scale, acc[p][t]);
                if (kind.zero == MARTLET_ZERO_MINIMUM)
                    acc[p][t] = _mm512_fmadd_ps(_mm512_set1_ps(m[t]), zeros[p], acc[p][t]);
            }
        }
    }
    MARTLET_UNROLL for (int p = 0; p < panels; p++) {
        size_t n = (panel + (size_t)p) * 16, count = martlet_min(16, w->row_count - n);
        __mmask16 rows = (__mmask16)((1u << count) - 1);
        __m512 bias = a->bias ? _mm512_maskz_loadu_ps(rows, a->bias + n) : _mm512_setzero_ps();
        MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
            float *to = a->y + (token + (size_t)t) * a->y_stride + n;
            _mm512_mask_storeu_ps(to, rows, a->bias ? _mm512_add_ps(acc[p][t], bias) : acc[p][t]);
        }
    }
}

/// Tokens whose rows take about half of a 1 MiB second-level cache, in whole tiles.
MARTLET_INLINE size_t martlet_int8_token_chunk(const martlet_linear_arguments *a) {
    size_t tiles = ((size_t)512 << 10) / (a->x_stride * TOKEN_TILE);
    return (tiles ? tiles : 1) * TOKEN_TILE;
}

MARTLET_INLINE void martlet_int8_gemv(MARTLET_RANGE, const martlet_case kind) {
    for (size_t t = token_begin; t < token_end;) {
        size_t left = token_end - t, p = panel_begin;
        if (left >= 4) {
            for (; p < panel_end; p++) martlet_int8_tile(a, p, t, 1, 4, kind);
            t += 4;
        } else if (left >= 2) {
            for (; p < panel_end; p++) martlet_int8_tile(a, p, t, 1, 2, kind);
            t += 2;
        } else {
            for (; p < panel_end; p++) martlet_int8_tile(a, p, t, 1, 1, kind);
            t += 1;
        }
    }
}

MARTLET_INLINE void martlet_int8_panel(MARTLET_RANGE, const martlet_case kind) {
    // Short groups: fewer tokens, so that the float accumulators stay in registers as well.
    const int tile = kind.block == 32 ? TOKEN_TILE / 2 : TOKEN_TILE;
    size_t chunk = martlet_int8_token_chunk(a);
    for (size_t t0 = token_begin; t0 < token_end; t0 += chunk) {
        size_t t_end = martlet_min(t0 + chunk, token_end), p = panel_begin;
        for (; p + 2 <= panel_end; p += 2) {
            size_t t = t0;
            for (; t + (size_t)tile <= t_end; t += (size_t)tile)
                martlet_int8_tile(a, p, t, 2, tile, kind);
            for (; t + 4 <= t_end; t += 4) martlet_int8_tile(a, p, t, 2, 4, kind);
            for (; t < t_end; t++) martlet_int8_tile(a, p, t, 2, 1, kind);
        }
        for (; p < panel_end; p++) {
            size_t t = t0;
            for (; t + 4 <= t_end; t += 4) martlet_int8_tile(a, p, t, 1, 4, kind);
            for (; t < t_end; t++) martlet_int8_tile(a, p, t, 1, 1, kind);
        }
    }
}

#define MARTLET_CASE(name, ZERO, BLOCK, SINGLE)                                                    \
    static void martlet_gemv_##name(MARTLET_RANGE) {                                               \
        martlet_int8_gemv(                                                                         \
            a, panel_begin, panel_end, token_begin, token_end,                                     \
            (martlet_case){MARTLET_ZERO_##ZERO, BLOCK, SINGLE});                                   \
    }                                                                                              \
    static void martlet_panel_##name(MARTLET_RANGE) {                                              \
        martlet_int8_panel(                                                                        \
            a, panel_begin, panel_end, token_begin, token_end,                                     \
            (martlet_case){MARTLET_ZERO_##ZERO, BLOCK, SINGLE});                                   \
    }

MARTLET_CASE(none_32, NONE, 32, 1)
MARTLET_CASE(none_64, NONE, 64, 1)
MARTLET_CASE(none_odd, NONE, 32, 0)
MARTLET_CASE(none_long, NONE, 64, 0)
MARTLET_CASE(integer_32, INTEGER, 32, 1)
MARTLET_CASE(integer_64, INTEGER, 64, 1)
MARTLET_CASE(integer_odd, INTEGER, 32, 0)
MARTLET_CASE(integer_long, INTEGER, 64, 0)
MARTLET_CASE(minimum_32, MINIMUM, 32, 1)
MARTLET_CASE(minimum_64, MINIMUM, 64, 1)
MARTLET_CASE(minimum_odd, MINIMUM, 32, 0)
MARTLET_CASE(minimum_long, MINIMUM, 64, 0)

#define MARTLET_CASES(variant, zero)                                                               \
    {                                                                                              \
        martlet_##variant##_##zero##_32, martlet_##variant##_##zero##_64,                          \
            martlet_##variant##_##zero##_odd, martlet_##variant##_##zero##_long                    \
    }

/// Column of the tables below: which kind of group.
static size_t group_case(const martlet_weight *w) {
    if (w->group_size == 32) return 0;
    if (w->group_size == 64) return 1;
    return w->group_size % 64 ? 2 : 3;
}

static const martlet_linear_function gemv_cases[3][4] = {
    MARTLET_CASES(gemv, none), MARTLET_CASES(gemv, integer), MARTLET_CASES(gemv, minimum)};
static const martlet_linear_function panel_cases[3][4] = {
    MARTLET_CASES(panel, none), MARTLET_CASES(panel, integer), MARTLET_CASES(panel, minimum)};

void GEMV_NAME(MARTLET_RANGE) {
    gemv_cases[a->weight.zero][group_case(&a->weight)](
        a, panel_begin, panel_end, token_begin, token_end);
}

void PANEL_NAME(MARTLET_RANGE) {
    panel_cases[a->weight.zero][group_case(&a->weight)](
        a, panel_begin, panel_end, token_begin, token_end);
}
