// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Paged attention, KV writes and rotary embedding, plain loops: the readable reference.
// See martlet_attention_arguments for the order of operations.

#include "scalar.h"

enum { block_size = MARTLET_KV_BLOCK, chunk_size = 512 };

typedef struct {
    const martlet_attention_arguments *a;
    size_t kv_head;
    /// First visible position and the end.
    size_t start, end;
    const float *q;
    float slope;
} query;

/// The block of a position in an array (keys or values) of the query's kv head.
static const uint8_t *block_of(const query *x, const void *base, size_t position) {
    size_t block = (size_t)x->a->block_table[position / block_size];
    return (const uint8_t *)base + block * x->a->kv.block_stride
        + x->kv_head * x->a->kv.head_stride;
}

static float score(const query *x, size_t position) {
    const martlet_attention_arguments *a = x->a;
    const uint8_t *keys = block_of(x, a->kv.keys, position);
    float s = 0;
    for (size_t d = 0; d < a->kv.head_dim; d++) {
        size_t i = d * block_size + position % block_size;
        s = martlet_scalar_fma(x->q[d], martlet_load_float(keys, a->kv.element, i), s);
    }
    s *= a->scale;
    if (a->soft_cap > 0) s = a->soft_cap * martlet_scalar_tanh(s / a->soft_cap);
    if (a->alibi_slopes) {
        float distance = (float)((int32_t)position - ((int32_t)x->end - 1));
        s = martlet_scalar_fma(x->slope, distance, s);
    }
    return s;
}

static void attend(const query *x, float *output) {
    size_t head_dim = x->a->kv.head_dim;
    float m = -__builtin_inff(), l[block_size] = {0}, scores[chunk_size];
    for (size_t d = 0; d < head_dim; d++) output[d] = 0;
    size_t chunk = x->start / chunk_size * chunk_size;
    for (; chunk < x->end; chunk += chunk_size) {
        size_t low = chunk < x->start ? x->start : chunk;
        size_t high = martlet_min(chunk + chunk_size, x->end);
        float m_new = m;
        for (size_t p = low; p < high; p++) {
            scores[p - chunk] = score(x, p);
            m_new = scores[p - chunk] > m_new ? scores[p - chunk] : m_new;
        }
        float correction = martlet_scalar_exp(m - m_new);
        for (size_t j = 0; j < block_size; j++) l[j] *= correction;
        for (size_t d = 0; d < head_dim; d++) output[d] *= correction;
        for (size_t p = low; p < high; p++) {
            float weight = martlet_scalar_exp(scores[p - chunk] - m_new);
            l[p % block_size] += weight;
            const uint8_t *values = block_of(x, x->a->kv.values, p);
            for (size_t d = 0; d < head_dim; d++) {
                size_t i = p % block_size * head_dim + d;
                float v = martlet_load_float(values, x->a->kv.element, i);
                output[d] = martlet_scalar_fma(weight, v, output[d]);
            }
        }
        m = m_new;
    }
    for (size_t half = block_size / 2; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++) l[j] += l[j + half];
    }
    float inverse = 1.0f / l[0];
    for (size_t d = 0; d < head_dim && x->start < x->end; d++) output[d] *= inverse;
}

void martlet_attention_scalar(
    const martlet_attention_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end) {
    for (size_t kv_head = kv_head_begin; kv_head < kv_head_end; kv_head++) {
        for (size_t t = token_begin; t < token_end; t++) {
            size_t end = a->visible_end[t] > 0 ? (size_t)a->visible_end[t] : 0;
            size_t window = a->window > 0 ? (size_t)a->window : end;
            for (size_t i = 0; i < a->heads_per_kv; i++) {
                size_t head = kv_head * a->heads_per_kv + i;
                query x = {
                    .a = a,
                    .kv_head = kv_head,
                    .start = end > window ? end - window : 0,
                    .end = end,
                    .q = a->queries + t * a->query_token_stride + head * a->query_head_stride,
                    .slope = a->alibi_slopes ? a->alibi_slopes[head] : 0,
                };
                attend(&x, a->output + t * a->output_token_stride + head * a->output_head_stride);
            }
        }
    }
}

void martlet_kv_write_scalar(
    const martlet_kv_write_arguments *a, size_t kv_head_begin, size_t kv_head_end,
    size_t token_begin, size_t token_end) {
    size_t head_dim = a->kv.head_dim;
    for (size_t t = token_begin; t < token_end; t++) {
        if (a->slots[t] < 0) continue;
        size_t block = (size_t)a->slots[t] / block_size, offset = (size_t)a->slots[t] % block_size;
        for (size_t head = kv_head_begin; head < kv_head_end; head++) {
            size_t at = block * a->kv.block_stride + head * a->kv.head_stride;
            const float *k = a->keys + t * a->token_stride + head * a->head_stride;
            const float *v = a->values + t * a->token_stride + head * a->head_stride;
            void *keys = (uint8_t *)a->kv.keys + at, *values = (uint8_t *)a->kv.values + at;
            for (size_t d = 0; d < head_dim; d++) {
                martlet_store_float(keys, a->kv.element, d * block_size + offset, k[d]);
                martlet_store_float(values, a->kv.element, offset * head_dim + d, v[d]);
            }
        }
    }
}

void martlet_rotary_scalar(
    const martlet_rotary_arguments *a, size_t token_begin, size_t token_end) {
    size_t half = a->rotary_dim / 2;
    for (size_t t = token_begin; t < token_end; t++) {
        size_t position = a->positions ? (size_t)a->positions[t] : t;
        const float *cosines = a->cosines + position * half, *sines = a->sines + position * half;
        for (size_t head = 0; head < a->head_count; head++) {
            const float *x = a->x + t * a->x_token_stride + head * a->x_head_stride;
            float *y = a->y + t * a->y_token_stride + head * a->y_head_stride;
            for (size_t i = 0; i < half; i++) {
                int halves = a->pairs == MARTLET_ROTARY_HALVES;
                size_t first = halves ? i : 2 * i, second = halves ? half + i : 2 * i + 1;
                float u = x[first], v = x[second];
                y[first] = u * cosines[i] - v * sines[i];
                y[second] = v * cosines[i] + u * sines[i];
            }
            if (y == x) continue;
            for (size_t d = a->rotary_dim; d < a->head_dim; d++) y[d] = x[d];
        }
    }
}

MARTLET_TARGET_END
