// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Paged attention, KV writes and rotary embedding in 16-lane vectors. A tile of query rows (tokens
// x heads of one kv head) shares each load of K and V; scores of 16 positions are one vector. Order
// of operations: martlet_attention_arguments, for every row as if it were alone.
//
// The ISA's file says how many accumulators, vectors of 16 lanes, fit its registers beside what they are
// fed with (ATTENTION_SUMS), how many rows a tile has at most (ATTENTION_ROWS), and how many vectors of V a
// row takes at once (MIX_VECTORS). An accumulator that does not fit waits for its own store in every turn.

enum { MARTLET_CHUNK = 512, MARTLET_ROWS = ATTENTION_ROWS };

typedef struct {
    const float *q[MARTLET_ROWS];
    float *output[MARTLET_ROWS];
    float slope[MARTLET_ROWS];
    /// First visible position and the end; of the chunk: `low`, `high`.
    size_t start[MARTLET_ROWS], end[MARTLET_ROWS], low[MARTLET_ROWS], high[MARTLET_ROWS];
    float m[MARTLET_ROWS];
    martlet_vf l[MARTLET_ROWS];
    float scores[MARTLET_ROWS][MARTLET_CHUNK];
} martlet_query_tile;

MARTLET_INLINE const uint8_t *martlet_kv_block(
    const martlet_attention_arguments *a, const void *base, size_t head, size_t position) {
    size_t block = (size_t)a->block_table[position / MARTLET_KV_BLOCK];
    return (const uint8_t *)base + block * a->kv.block_stride + head * a->kv.head_stride;
}

/// Scores of `blocks` blocks from `position` for `rows` rows: one accumulator each, d ascending.
MARTLET_INLINE void martlet_scores(
    const martlet_attention_arguments *a, martlet_query_tile *tile, size_t head, size_t position,
    size_t chunk, size_t last, const int rows, const int blocks, const martlet_float_type type) {
    // Few rows wait for memory: fetch the next keys, and these positions' values for later.
    const int is_fetching = rows <= 4;
    const uint8_t *keys[4], *next_keys[4], *values[4];
    martlet_vf s[MARTLET_ROWS][4];
    const size_t bytes = type == MARTLET_FLOAT_F32 ? 64 : 32;
    MARTLET_UNROLL for (int b = 0; b < blocks; b++) {
        keys[b] = martlet_kv_block(a, a->kv.keys, head, position + (size_t)b * MARTLET_KV_BLOCK);
        size_t next = position + (size_t)(b + blocks) * MARTLET_KV_BLOCK;
        if (is_fetching) {
            next_keys[b] = next < last ? martlet_kv_block(a, a->kv.keys, head, next) : keys[b];
            values[b] = martlet_kv_block(
                a, a->kv.values, head, position + (size_t)b * MARTLET_KV_BLOCK);
        }
        MARTLET_UNROLL for (int r = 0; r < rows; r++) s[r][b] = (martlet_vf)0.0f;
    }
    for (size_t d = 0; d < a->kv.head_dim; d++) {
        MARTLET_UNROLL for (int b = 0; b < blocks; b++) {
            if (is_fetching) {
                __builtin_prefetch(next_keys[b] + d * bytes);
                __builtin_prefetch(values[b] + d * bytes, 0, 2);
            }
            martlet_vf k = martlet_load16_of(keys[b] + d * bytes, type);
            MARTLET_UNROLL for (int r = 0; r < rows; r++)
                s[r][b] = martlet_vector_fma((martlet_vf)tile->q[r][d], k, s[r][b]);
        }
    }
    MARTLET_UNROLL for (int b = 0; b < blocks; b++) {
        MARTLET_UNROLL for (int r = 0; r < rows; r++)
            martlet_store16(
                &tile->scores[r][position - chunk + (size_t)b * MARTLET_KV_BLOCK], s[r][b]);
    }
}

/// Lanes whose position is visible to row r in this chunk: all bits set.
MARTLET_INLINE martlet_vi martlet_visible(const martlet_query_tile *tile, int r, size_t position) {
    const martlet_vi lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    martlet_vi p = lanes + (martlet_vi)(int32_t)position;
    return (p >= (martlet_vi)(int32_t)tile->low[r]) & (p < (martlet_vi)(int32_t)tile->high[r]);
}

/// Scores to weights: scale, cap and bias, new maximum, exponentials; rescales earlier sums.
MARTLET_INLINE void martlet_weights(
    const martlet_attention_arguments *a, martlet_query_tile *tile, size_t chunk, int r) {
    const martlet_vf lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    size_t first = tile->low[r] / MARTLET_KV_BLOCK * MARTLET_KV_BLOCK;
    martlet_vf largest = (martlet_vf)-__builtin_inff();
    for (size_t p = first; p < tile->high[r]; p += MARTLET_KV_BLOCK) {
        martlet_vf s = martlet_load16(&tile->scores[r][p - chunk]) * (martlet_vf)a->scale;
        if (a->soft_cap > 0)
            s = (martlet_vf)a->soft_cap * martlet_vector_tanh(s / (martlet_vf)a->soft_cap);
        if (a->alibi_slopes) {
            float from = (float)((int32_t)p - ((int32_t)tile->end[r] - 1));
            s = martlet_vector_fma(
                (martlet_vf)tile->slope[r], (martlet_vf)from + lanes, s);
        }
        s = martlet_visible(tile, r, p) ? s : (martlet_vf)-__builtin_inff();
        largest = martlet_vector_max(s, largest);
        martlet_store16(&tile->scores[r][p - chunk], s);
    }
    float m = martlet_vector_largest(largest);
    m = m > tile->m[r] ? m : tile->m[r];
    float correction = martlet_scalar_exp(tile->m[r] - m);
    tile->m[r] = m;
    martlet_vf l = tile->l[r] * (martlet_vf)correction;
    for (size_t p = first; p < tile->high[r]; p += MARTLET_KV_BLOCK) {
        martlet_vf s = martlet_load16(&tile->scores[r][p - chunk]);
        martlet_vf weight = martlet_vector_exp(s - (martlet_vf)m);
        weight = martlet_visible(tile, r, p) ? weight : (martlet_vf)0.0f;
        l += weight;
        martlet_store16(&tile->scores[r][p - chunk], weight);
    }
    tile->l[r] = l;
    if (correction == 1.0f) return;
    for (size_t d = 0; d < a->kv.head_dim; d += 16) {
        size_t count = a->kv.head_dim - d;
        martlet_vf o = martlet_load_part(tile->output[r] + d, count) * (martlet_vf)correction;
        martlet_store_part(tile->output[r] + d, o, count);
    }
}

/// Adds weights times V of positions `low ..< high` to `vectors` vectors of each row from column d.
MARTLET_INLINE void martlet_mix_columns(
    const martlet_attention_arguments *a, martlet_query_tile *tile, size_t head, size_t chunk,
    int row, size_t low, size_t high, size_t d, const int rows, const int vectors,
    const martlet_float_type type) {
    const size_t size = type == MARTLET_FLOAT_F32 ? 4 : 2;
    martlet_vf o[MARTLET_ROWS][4];
    MARTLET_UNROLL for (int r = 0; r < rows; r++) {
        MARTLET_UNROLL for (int v = 0; v < vectors; v++)
            o[r][v] = martlet_load16(tile->output[row + r] + d + 16 * v);
    }
    for (size_t p = low; p < high;) {
        size_t end = martlet_min(high, (p / MARTLET_KV_BLOCK + 1) * MARTLET_KV_BLOCK);
        const uint8_t *values = martlet_kv_block(a, a->kv.values, head, p)
            + (p % MARTLET_KV_BLOCK * a->kv.head_dim + d) * size;
        for (; p < end; p++, values += a->kv.head_dim * size) {
            MARTLET_UNROLL for (int v = 0; v < vectors; v++) {
                martlet_vf value = martlet_load16_of(values + 16 * size * (size_t)v, type);
                MARTLET_UNROLL for (int r = 0; r < rows; r++)
                    o[r][v] = martlet_vector_fma(
                        (martlet_vf)tile->scores[row + r][p - chunk], value, o[r][v]);
            }
        }
    }
    MARTLET_UNROLL for (int r = 0; r < rows; r++) {
        MARTLET_UNROLL for (int v = 0; v < vectors; v++)
            martlet_store16(tile->output[row + r] + d + 16 * v, o[r][v]);
    }
}

MARTLET_INLINE void martlet_mix(
    const martlet_attention_arguments *a, martlet_query_tile *tile, size_t head, size_t chunk,
    int row, size_t low, size_t high, const int rows, const martlet_float_type type) {
    if (low >= high) return;
    const int wide = rows * MIX_VECTORS <= ATTENTION_SUMS ? MIX_VECTORS : ATTENTION_SUMS / rows;
    size_t head_dim = a->kv.head_dim, d = 0;
    for (; d + 16 * (size_t)wide <= head_dim; d += 16 * (size_t)wide)
        martlet_mix_columns(a, tile, head, chunk, row, low, high, d, rows, wide, type);
    for (; d + 16 <= head_dim; d += 16)
        martlet_mix_columns(a, tile, head, chunk, row, low, high, d, rows, 1, type);
    for (; d < head_dim; d++) {
        for (int r = row; r < row + rows; r++) {
            float o = tile->output[r][d];
            for (size_t p = low; p < high; p++) {
                const uint8_t *values = martlet_kv_block(a, a->kv.values, head, p);
                float v = martlet_load_float(values, type, p % MARTLET_KV_BLOCK * head_dim + d);
                o = martlet_scalar_fma(tile->scores[r][p - chunk], v, o);
            }
            tile->output[r][d] = o;
        }
    }
}

/// One chunk for all rows; rows that see nothing of it are left alone.
MARTLET_INLINE void martlet_attend_chunk(
    const martlet_attention_arguments *a, martlet_query_tile *tile, size_t head, size_t chunk,
    const int rows, const martlet_float_type type) {
    size_t first = chunk + MARTLET_CHUNK, last = chunk, low = chunk, high = chunk + MARTLET_CHUNK;
    for (int r = 0; r < rows; r++) {
        tile->low[r] = tile->start[r] > chunk ? tile->start[r] : chunk;
        tile->high[r] = martlet_min(chunk + MARTLET_CHUNK, tile->end[r]);
        if (tile->high[r] < tile->low[r]) tile->high[r] = tile->low[r];
        if (tile->low[r] > low) low = tile->low[r];
        if (tile->high[r] < high) high = tile->high[r];
        if (tile->low[r] == tile->high[r]) continue;
        first = martlet_min(first, tile->low[r]);
        last = tile->high[r] > last ? tile->high[r] : last;
    }
    const int blocks = rows == 1 ? 4 : rows <= 4 ? 2 : 1;
    const size_t step = (size_t)blocks * MARTLET_KV_BLOCK;
    size_t p = first / MARTLET_KV_BLOCK * MARTLET_KV_BLOCK;
    for (; p + step <= last; p += step)
        martlet_scores(a, tile, head, p, chunk, last, rows, blocks, type);
    for (; p < last; p += MARTLET_KV_BLOCK)
        martlet_scores(a, tile, head, p, chunk, last, rows, 1, type);
    for (int r = 0; r < rows; r++) {
        if (tile->low[r] < tile->high[r]) martlet_weights(a, tile, chunk, r);
    }
    if (low >= high) {
        for (int r = 0; r < rows; r++)
            martlet_mix(a, tile, head, chunk, r, tile->low[r], tile->high[r], 1, type);
        return;
    }
    // Positions that all rows see go together; those before and after, row by row.
    for (int r = 0; r < rows; r++)
        martlet_mix(a, tile, head, chunk, r, tile->low[r], low, 1, type);
    martlet_mix(a, tile, head, chunk, 0, low, high, rows, type);
    for (int r = 0; r < rows; r++)
        martlet_mix(a, tile, head, chunk, r, high, tile->high[r], 1, type);
}

/// Attention of `rows` rows from row `row` of tokens x heads_per_kv.
MARTLET_INLINE void martlet_attend(
    const martlet_attention_arguments *a, size_t kv_head, size_t token_begin, size_t row,
    const int rows, const martlet_float_type type) {
    martlet_query_tile tile;
    size_t start = SIZE_MAX, end = 0;
    for (int r = 0; r < rows; r++) {
        size_t t = token_begin + (row + (size_t)r) / a->heads_per_kv;
        size_t head = kv_head * a->heads_per_kv + (row + (size_t)r) % a->heads_per_kv;
        size_t visible = a->visible_end[t] > 0 ? (size_t)a->visible_end[t] : 0;
        size_t window = a->window > 0 ? (size_t)a->window : visible;
        tile.q[r] = a->queries + t * a->query_token_stride + head * a->query_head_stride;
        tile.output[r] = a->output + t * a->output_token_stride + head * a->output_head_stride;
        tile.slope[r] = a->alibi_slopes ? a->alibi_slopes[head] : 0;
        tile.end[r] = visible;
        tile.start[r] = visible > window ? visible - window : 0;
        tile.m[r] = -__builtin_inff();
        tile.l[r] = (martlet_vf)0.0f;
        for (size_t d = 0; d < a->kv.head_dim; d++) tile.output[r][d] = 0;
        if (visible == 0) continue;
        start = martlet_min(start, tile.start[r]);
        end = visible > end ? visible : end;
    }
    if (end == 0) return;
    for (size_t chunk = start / MARTLET_CHUNK * MARTLET_CHUNK; chunk < end; chunk += MARTLET_CHUNK)
        martlet_attend_chunk(a, &tile, kv_head, chunk, rows, type);
    for (int r = 0; r < rows; r++) {
        if (tile.end[r] == 0) continue;
        float inverse = 1.0f / martlet_fold16(tile.l[r]);
        for (size_t d = 0; d < a->kv.head_dim; d++) tile.output[r][d] *= inverse;
    }
}

#define MARTLET_ATTEND(name, TYPE, ROWS, rows)                                                     \
    static __attribute__((noinline)) void martlet_attend_##name##_##ROWS(                          \
        const martlet_attention_arguments *a, size_t kv_head, size_t token_begin, size_t row) {    \
        martlet_attend(a, kv_head, token_begin, row, rows, TYPE);                                  \
    }
#define MARTLET_ATTENDS(name, TYPE)                                                                \
    MARTLET_ATTEND(name, TYPE, 1, 1)                                                               \
    MARTLET_ATTEND(name, TYPE, 2, 2)                                                               \
    MARTLET_ATTEND(name, TYPE, 3, 3)                                                               \
    MARTLET_ATTEND(name, TYPE, 4, 4)                                                               \
    MARTLET_ATTEND(name, TYPE, tile, ATTENTION_ROWS)

MARTLET_ATTENDS(f32, MARTLET_FLOAT_F32)
MARTLET_ATTENDS(f16, MARTLET_FLOAT_F16)
MARTLET_ATTENDS(bf16, MARTLET_FLOAT_BF16)

typedef void (*martlet_attend_function)(
    const martlet_attention_arguments *a, size_t kv_head, size_t token_begin, size_t row);

/// By element type and rows.
static const martlet_attend_function attend_functions[3][5] = {
    {martlet_attend_f32_1, martlet_attend_f32_2, martlet_attend_f32_3, martlet_attend_f32_4,
     martlet_attend_f32_tile},
    {martlet_attend_f16_1, martlet_attend_f16_2, martlet_attend_f16_3, martlet_attend_f16_4,
     martlet_attend_f16_tile},
    {martlet_attend_bf16_1, martlet_attend_bf16_2, martlet_attend_bf16_3, martlet_attend_bf16_4,
     martlet_attend_bf16_tile},
};

void ISA(attention)(
    const martlet_attention_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end) {
    size_t rows = (token_end - token_begin) * a->heads_per_kv;
    for (size_t head = kv_head_begin; head < kv_head_end && token_begin < token_end; head++) {
        for (size_t row = 0; row < rows;) {
            // 7 and 8 rows, where they are no tile, are two halves: a nearly empty one costs as much memory.
            size_t left = rows - row, take = martlet_min(left, 4);
            if (left == ATTENTION_ROWS || left > 8) take = ATTENTION_ROWS;
            size_t index = take == ATTENTION_ROWS ? 4 : take - 1;
            attend_functions[a->kv.element][index](a, head, token_begin, row);
            row += take;
        }
    }
}

void ISA(kv_write)(
    const martlet_kv_write_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end) {
    size_t head_dim = a->kv.head_dim;
    for (size_t t = token_begin; t < token_end; t++) {
        if (a->slots[t] < 0) continue;
        size_t block = (size_t)a->slots[t] / MARTLET_KV_BLOCK;
        size_t offset = (size_t)a->slots[t] % MARTLET_KV_BLOCK;
        for (size_t head = kv_head_begin; head < kv_head_end; head++) {
            size_t at = block * a->kv.block_stride + head * a->kv.head_stride;
            const float *k = a->keys + t * a->token_stride + head * a->head_stride;
            const float *v = a->values + t * a->token_stride + head * a->head_stride;
            void *keys = (uint8_t *)a->kv.keys + at, *values = (uint8_t *)a->kv.values + at;
            for (size_t d = 0; d < head_dim; d++) {
                martlet_store_float(keys, a->kv.element, d * MARTLET_KV_BLOCK + offset, k[d]);
                martlet_store_float(values, a->kv.element, offset * head_dim + d, v[d]);
            }
        }
    }
}

void ISA(rotary)(const martlet_rotary_arguments *a, size_t token_begin, size_t token_end) {
    size_t half = a->rotary_dim / 2;
    for (size_t t = token_begin; t < token_end; t++) {
        size_t position = a->positions ? (size_t)a->positions[t] : t;
        const float *cosines = a->cosines + position * half, *sines = a->sines + position * half;
        for (size_t head = 0; head < a->head_count; head++) {
            const float *x = a->x + t * a->x_token_stride + head * a->x_head_stride;
            float *y = a->y + t * a->y_token_stride + head * a->y_head_stride;
            if (a->pairs == MARTLET_ROTARY_HALVES) {
                for (size_t i = 0; i < half; i += 16) {
                    size_t count = half - i;
                    martlet_vf c = martlet_load_part(cosines + i, count);
                    martlet_vf s = martlet_load_part(sines + i, count);
                    martlet_vf u = martlet_load_part(x + i, count);
                    martlet_vf v = martlet_load_part(x + half + i, count);
                    martlet_store_part(y + i, u * c - v * s, count);
                    martlet_store_part(y + half + i, v * c + u * s, count);
                }
            } else {
                for (size_t i = 0; i < half; i++) {
                    float u = x[2 * i], v = x[2 * i + 1];
                    y[2 * i] = u * cosines[i] - v * sines[i];
                    y[2 * i + 1] = v * cosines[i] + u * sines[i];
                }
            }
            if (y == x) continue;
            for (size_t d = a->rotary_dim; d < a->head_dim; d++) y[d] = x[d];
        }
    }
}
