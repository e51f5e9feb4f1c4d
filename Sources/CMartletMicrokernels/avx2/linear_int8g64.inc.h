// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Linears on int8g64 activations: tiles of one panel (two registers of 8 rows) and 4, 2 or 1
// tokens. Include with BITS 8 or 4, GEMV_NAME, PANEL_NAME and martlet_half_dots(sums, codes, x,
// x_stride, tokens), which sets sums[t] to the integer dots of 32 inputs, codes as unsigned. Order
// of operations: martlet_linear_arguments; integer dots are exact, so only the float steps after
// each block have an order, the same in every tile.

enum {
    MAX_TOKENS = 4,
    /// Bytes of software prefetch ahead of the stream, where one token leaves time for nothing else.
    PREFETCH = 1024,
    /// Tokens whose rows stay near while panels pass.
    TOKEN_CHUNK = 64,
};

/// What is known at compile time about a weight.
typedef struct {
    martlet_zero_kind zero;
    /// Inputs per block of activations: 64, or 32 for groups that 64 does not divide.
    int block;
} martlet_case;

MARTLET_INLINE __m256 martlet_load8_of(const uint8_t *p, martlet_float_type type) {
    if (type == MARTLET_FLOAT_F32) return _mm256_loadu_ps((const float *)p);
    __m128i bits = _mm_loadu_si128((const __m128i *)p);
    if (type == MARTLET_FLOAT_F16) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

MARTLET_INLINE __m256 martlet_spread_float(const void *p) {
    return _mm256_castsi256_ps(martlet_spread_u32(p));
}

/// One panel x `tokens` outputs over the whole of K.
MARTLET_INLINE void martlet_int8_tile(
    const martlet_linear_arguments *a, size_t panel, size_t token, const int tokens,
    const martlet_case kind) {
    const martlet_weight *w = &a->weight;
    const int block = kind.block;
    size_t inputs = w->input_count, extent = martlet_group_extent(w), x_stride = a->x_stride;
    size_t code_bytes = martlet_group_code_bytes(w), group_bytes = martlet_group_bytes(w);
    martlet_float_type type = w->scale_type;
    size_t float_bytes = martlet_float_bytes(type);
    const uint8_t *x = (const uint8_t *)a->x + token * x_stride;
    const uint8_t *groups = x + martlet_int8g64_inputs(inputs), *group = martlet_panel(w, panel);
    __m256 acc[MAX_TOKENS][2], inner[MAX_TOKENS][2];
    float m[MAX_TOKENS];
    MARTLET_UNROLL for (int t = 0; t < tokens; t++)
        acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    for (size_t k0 = 0; k0 < inputs; k0 += extent, group += group_bytes) {
        const uint8_t *codes = group, *tail = group + code_bytes;
        size_t k_end = martlet_min(k0 + extent, inputs);
        __m256 zeros[2];
        MARTLET_UNROLL for (int h = 0; h < 2; h++) {
            const uint8_t *at = tail + (16 + 8 * (size_t)h) * float_bytes;
            if (kind.zero != MARTLET_ZERO_NONE) zeros[h] = martlet_load8_of(at, type);
        }
        for (size_t k = k0; k < k_end; k += (size_t)block) {
            const uint8_t *numbers = groups + k / 64 * sizeof(martlet_int8g64_group);
            size_t half = block == 32 ? k / 32 % 2 * 4 : 0;
            const uint8_t *negated = numbers + half
                + (block == 64 ? offsetof(martlet_int8g64_group, negated_sum)
                               : offsetof(martlet_int8g64_group, negated_half_sums));
            const uint8_t *weighted = numbers + half
                + (block == 64 ? offsetof(martlet_int8g64_group, weighted_sum)
                               : offsetof(martlet_int8g64_group, weighted_half_sums));
            __m256i dots[MAX_TOKENS][2];
            for (int i = 0; i < block; i += 32, codes += 64 * BITS) {
                if (tokens == 1) {
                    MARTLET_UNROLL for (int j = 0; j < 64 * BITS; j += 64)
                        _mm_prefetch((const char *)codes + PREFETCH + j, _MM_HINT_T0);
                }
                __m256i sums[MAX_TOKENS][2];
                martlet_half_dots(sums, codes, (const int8_t *)x + k + i, x_stride, tokens);
                MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                    MARTLET_UNROLL for (int h = 0; h < 2; h++)
                        dots[t][h] = i ? _mm256_add_epi32(dots[t][h], sums[t][h]) : sums[t][h];
                }
            }
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                __m256i negated_sum = martlet_spread_u32(negated + (size_t)t * x_stride);
                __m256 scale = martlet_spread_float(numbers + (size_t)t * x_stride);
                __m256i middle = _mm256_slli_epi32(negated_sum, BITS - 1);
                __m256 subtracted = _mm256_cvtepi32_ps(negated_sum);
                MARTLET_UNROLL for (int h = 0; h < 2; h++) {
                    if (kind.zero == MARTLET_ZERO_NONE)
                        dots[t][h] = _mm256_add_epi32(dots[t][h], middle);
                    __m256 dot = _mm256_cvtepi32_ps(dots[t][h]);
                    // Exact: all three numbers and the sum are integers below 2^24.
                    if (kind.zero == MARTLET_ZERO_INTEGER)
                        dot = _mm256_fmadd_ps(zeros[h], subtracted, dot);
                    inner[t][h] = k == k0 ? _mm256_mul_ps(dot, scale)
                                          : _mm256_fmadd_ps(dot, scale, inner[t][h]);
                }
                if (kind.zero == MARTLET_ZERO_MINIMUM) {
                    float sum =
                        martlet_float_of_bits(martlet_load_u32(weighted + (size_t)t * x_stride));
                    m[t] = k == k0 ? sum : m[t] + sum;
                }
            }
        }
        MARTLET_UNROLL for (int h = 0; h < 2; h++) {
            __m256 scale = martlet_load8_of(tail + 8 * (size_t)h * float_bytes, type);
            MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
                acc[t][h] = _mm256_fmadd_ps(inner[t][h], scale, acc[t][h]);
                if (kind.zero == MARTLET_ZERO_MINIMUM)
                    acc[t][h] = _mm256_fmadd_ps(_mm256_set1_ps(m[t]), zeros[h], acc[t][h]);
            }
        }
    }
    size_t n = panel * 16, count = martlet_min(16, w->row_count - n);
    MARTLET_UNROLL for (int t = 0; t < tokens; t++) {
        martlet_vf y;
        martlet_copy(&y, acc[t], 64);
        if (a->bias) y += martlet_load_part(a->bias + n, count);
        martlet_store_part(a->y + (token + (size_t)t) * a->y_stride + n, y, count);
    }
}

typedef void (*martlet_tile)(const martlet_linear_arguments *a, size_t panel, size_t token);

/// Tiles of one case, by tokens.
typedef struct {
    martlet_tile four, two, one;
} martlet_tiles;

#define MARTLET_TILE(name, ZERO, BLOCK, size, tokens)                                              \
    static void martlet_tile_##name##_##size(                                                      \
        const martlet_linear_arguments *a, size_t panel, size_t token) {                           \
        martlet_int8_tile(                                                                         \
            a, panel, token, tokens, (martlet_case){MARTLET_ZERO_##ZERO, BLOCK});                  \
    }

#define MARTLET_TILES(name, ZERO, BLOCK)                                                           \
    MARTLET_TILE(name, ZERO, BLOCK, four, 4)                                                       \
    MARTLET_TILE(name, ZERO, BLOCK, two, 2)                                                        \
    MARTLET_TILE(name, ZERO, BLOCK, one, 1)                                                        \
    static const martlet_tiles martlet_tiles_##name = {                                            \
        martlet_tile_##name##_four, martlet_tile_##name##_two, martlet_tile_##name##_one};

MARTLET_TILES(none_32, NONE, 32)
MARTLET_TILES(none_64, NONE, 64)
MARTLET_TILES(integer_32, INTEGER, 32)
MARTLET_TILES(integer_64, INTEGER, 64)
MARTLET_TILES(minimum_32, MINIMUM, 32)
MARTLET_TILES(minimum_64, MINIMUM, 64)

static const martlet_tiles *const tiles_of_case[3][2] = {
    {&martlet_tiles_none_32, &martlet_tiles_none_64},
    {&martlet_tiles_integer_32, &martlet_tiles_integer_64},
    {&martlet_tiles_minimum_32, &martlet_tiles_minimum_64}};

/// All panels for each `chunk` tokens.
static void martlet_int8_range(MARTLET_RANGE, size_t chunk) {
    const martlet_tiles *tiles = tiles_of_case[a->weight.zero][a->weight.group_size % 64 == 0];
    for (size_t t0 = token_begin; t0 < token_end; t0 += chunk) {
        size_t t_end = martlet_min(t0 + chunk, token_end);
        for (size_t p = panel_begin; p < panel_end; p++) {
            size_t t = t0;
            for (; t + 4 <= t_end; t += 4) tiles->four(a, p, t);
            for (; t + 2 <= t_end; t += 2) tiles->two(a, p, t);
            if (t < t_end) tiles->one(a, p, t);
        }
    }
}

void GEMV_NAME(MARTLET_RANGE) {
    martlet_int8_range(a, panel_begin, panel_end, token_begin, token_end, MAX_TOKENS);
}

void PANEL_NAME(MARTLET_RANGE) {
    martlet_int8_range(a, panel_begin, panel_end, token_begin, token_end, TOKEN_CHUNK);
}
