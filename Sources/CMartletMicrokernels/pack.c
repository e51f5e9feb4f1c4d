// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Layout panel16: sizes, packing from and unpacking to canonical arrays. Plain C, the same on every
// ISA; packing moves 32-bit words, so that a core packs a gigabyte or more a second.

#include "shared/internal.h"

static int is_quantized(const martlet_weight *w) {
    return w->kind == MARTLET_WEIGHT_U8 || w->kind == MARTLET_WEIGHT_U4;
}

static size_t plain_bytes(const martlet_weight *w) { return w->kind == MARTLET_WEIGHT_F32 ? 4 : 2; }

int martlet_weight_describe(
    martlet_weight *weight, martlet_weight_kind kind, size_t row_count, size_t input_count,
    size_t group_size, martlet_zero_kind zero, martlet_float_type scale_type) {
    const size_t limit = (size_t)1 << 31;
    *weight = (martlet_weight){
        .kind = kind, .row_count = row_count, .input_count = input_count};
    if (row_count == 0 || input_count == 0 || row_count > limit || input_count > limit) return 0;
    if ((unsigned)kind > MARTLET_WEIGHT_U4) return 0;
    size_t bytes;
    if (is_quantized(weight)) {
        if (group_size % 32 != 0 || group_size > limit) return 0;
        if ((unsigned)zero > MARTLET_ZERO_MINIMUM) return 0;
        if ((unsigned)scale_type > MARTLET_FLOAT_BF16) return 0;
        weight->group_size = group_size;
        weight->zero = zero;
        weight->scale_type = scale_type;
        if (__builtin_mul_overflow(
                martlet_group_bytes(weight), martlet_weight_group_count(weight), &bytes))
            return 0;
    } else {
        bytes = input_count * 16 * plain_bytes(weight);
    }
    weight->panel_stride = martlet_round_up(bytes, 64);
    return !__builtin_mul_overflow(
        weight->panel_stride, martlet_weight_panel_count(weight), &bytes);
}

size_t martlet_weight_panel_count(const martlet_weight *weight) {
    return (weight->row_count + 15) / 16;
}

size_t martlet_weight_group_count(const martlet_weight *weight) {
    size_t extent = martlet_group_extent(weight);
    return (weight->input_count + extent - 1) / extent;
}

size_t martlet_weight_byte_count(const martlet_weight *weight) {
    return weight->panel_stride * martlet_weight_panel_count(weight);
}

size_t martlet_int8g64_row_bytes(size_t input_count) {
    size_t inputs = martlet_int8g64_inputs(input_count);
    size_t lines = (inputs + inputs / 64 * sizeof(martlet_int8g64_group) + 63) / 64;
    return (lines | 1) * 64;
}

/// Code k of a canonical row of nibbles or bytes; `middle` beyond K.
static uint8_t code_at(const uint8_t *row, size_t k, size_t input_count, int bits, uint8_t middle) {
    if (k >= input_count) return middle;
    return bits == 8 ? row[k] : (uint8_t)(row[k / 2] >> (k % 2 * 4) & 15);
}

/// Spreads four nibbles of 16 bits over four bytes, the lowest first.
static uint32_t spread_nibbles(uint32_t v) {
    v = (v | v << 8) & 0x00ff00ff;
    return (v | v << 4) & 0x0f0f0f0f;
}

/// The inverse of `spread_nibbles`.
static uint32_t gather_nibbles(uint32_t v) {
    v = (v | v >> 4) & 0x00ff00ff;
    return (v | v >> 8) & 0xffff;
}

/// Four bytes of a panel word for row `row` (NULL: padding) from input k: 4 codes, or 8 nibbles.
static uint32_t panel_word(const martlet_weight *w, const uint8_t *row, size_t k) {
    int bits = w->kind == MARTLET_WEIGHT_U4 ? 4 : 8;
    size_t step = bits == 4 ? 8 : 4;
    if (row && k + step <= w->input_count) {
        if (bits == 8) return martlet_load_u32(row + k);
        uint32_t nibbles = martlet_load_u32(row + k / 2);
        return spread_nibbles(nibbles & 0xffff) | spread_nibbles(nibbles >> 16) << 4;
    }
    uint8_t middle = (uint8_t)martlet_middle_code(w);
    size_t inputs = row ? w->input_count : 0;
    uint32_t word = 0;
    for (size_t j = 0; j < 4; j++) {
        uint32_t byte = code_at(row, k + j, inputs, bits, middle);
        if (bits == 4) byte |= (uint32_t)code_at(row, k + 4 + j, inputs, bits, middle) << 4;
        word |= byte << (8 * j);
    }
    return word;
}

/// Writes a row's scales or zeros of one group at position r of 16, or 0 for padding.
static void pack_float(
    uint8_t *to, martlet_float_type type, size_t r, const void *from, size_t index) {
    size_t size = martlet_float_bytes(type);
    for (size_t i = 0; i < size; i++) {
        to[r * size + i] = from ? ((const uint8_t *)from)[index * size + i] : 0;
    }
}

/// Writes an integer zero in the scale's type: exact in f32, f16 and bf16 (at most 255).
static void pack_integer(uint8_t *to, martlet_float_type type, size_t r, uint8_t zero) {
    uint32_t bits = martlet_bits_of_float((float)zero);
    if (type == MARTLET_FLOAT_F32) {
        martlet_copy(to + 4 * r, &bits, 4);
        return;
    }
    uint16_t half = (uint16_t)(bits >> 16);
    // Integers up to 255 have 8 significant bits: rebias the exponent, keep ten bits of fraction.
    if (type == MARTLET_FLOAT_F16) {
        half = zero ? (uint16_t)((((bits >> 23) - 112) << 10) | (bits >> 13 & 0x3ff)) : 0;
    }
    martlet_copy(to + 2 * r, &half, 2);
}

static uint8_t unpack_integer(const uint8_t *from, martlet_float_type type, size_t r) {
    if (type == MARTLET_FLOAT_F32) {
        return (uint8_t)martlet_float_of_bits(martlet_load_u32(from + 4 * r));
    }
    uint16_t half;
    martlet_copy(&half, from + 2 * r, 2);
    if (type == MARTLET_FLOAT_BF16) return (uint8_t)martlet_float_of_bf16(half);
    if (half == 0) return 0;
    uint32_t bits = (((uint32_t)half >> 10) + 112) << 23 | ((uint32_t)half & 0x3ff) << 13;
    return (uint8_t)martlet_float_of_bits(bits);
}

void martlet_pack_quantized(
    const martlet_weight *weight, const martlet_canonical *source, void *destination,
    size_t panel_begin, size_t panel_end) {
    size_t extent = martlet_group_extent(weight), groups = martlet_weight_group_count(weight);
    size_t group_bytes = martlet_group_bytes(weight), code_bytes = martlet_group_code_bytes(weight);
    size_t float_bytes = martlet_float_bytes(weight->scale_type);
    size_t step = weight->kind == MARTLET_WEIGHT_U4 ? 8 : 4;
    size_t row_bytes =
        weight->kind == MARTLET_WEIGHT_U4 ? (weight->input_count + 1) / 2 : weight->input_count;
    for (size_t panel = panel_begin; panel < panel_end; panel++) {
        uint8_t *to = (uint8_t *)destination + panel * weight->panel_stride;
        const uint8_t *rows[16];
        for (size_t r = 0; r < 16; r++) {
            size_t n = panel * 16 + r;
            rows[r] = n < weight->row_count ? source->codes + n * row_bytes : NULL;
        }
        for (size_t group = 0; group < groups; group++, to += group_bytes) {
            size_t k0 = group * extent;
            for (size_t k = 0; k < extent; k += step) {
                for (size_t r = 0; r < 16; r++) {
                    uint32_t word = panel_word(weight, rows[r], k0 + k);
                    martlet_copy(to + k / step * 64 + 4 * r, &word, 4);
                }
            }
            uint8_t *scales = to + code_bytes, *zeros = scales + 16 * float_bytes;
            for (size_t r = 0; r < 16; r++) {
                size_t index = (panel * 16 + r) * source->scale_row_stride + group;
                pack_float(scales, weight->scale_type, r, rows[r] ? source->scales : NULL, index);
                if (weight->zero == MARTLET_ZERO_MINIMUM)
                    pack_float(zeros, weight->scale_type, r, rows[r] ? source->zeros : NULL, index);
                if (weight->zero == MARTLET_ZERO_INTEGER)
                    pack_integer(
                        zeros, weight->scale_type, r,
                        rows[r] ? ((const uint8_t *)source->zeros)[index] : 0);
            }
        }
        uint8_t *end = (uint8_t *)destination + (panel + 1) * weight->panel_stride;
        while (to < end) *to++ = 0;
    }
}

static void copy_float(void *to, size_t i, const uint8_t *from, size_t j, size_t size) {
    if (size == 4) {
        martlet_copy((uint8_t *)to + 4 * i, from + 4 * j, 4);
    } else {
        martlet_copy((uint8_t *)to + 2 * i, from + 2 * j, 2);
    }
}

void martlet_unpack_quantized(
    const martlet_weight *weight, const martlet_canonical *destination, size_t panel_begin,
    size_t panel_end) {
    size_t extent = martlet_group_extent(weight), groups = martlet_weight_group_count(weight);
    size_t group_bytes = martlet_group_bytes(weight), code_bytes = martlet_group_code_bytes(weight);
    size_t float_bytes = martlet_float_bytes(weight->scale_type), inputs = weight->input_count;
    int is_u4 = weight->kind == MARTLET_WEIGHT_U4;
    size_t step = is_u4 ? 8 : 4, row_bytes = is_u4 ? (inputs + 1) / 2 : inputs;
    for (size_t panel = panel_begin; panel < panel_end; panel++) {
        const uint8_t *from = martlet_panel(weight, panel);
        size_t row_end = martlet_min(16, weight->row_count - panel * 16);
        for (size_t group = 0; group < groups; group++, from += group_bytes) {
            const uint8_t *scales = from + code_bytes, *zeros = scales + 16 * float_bytes;
            for (size_t r = 0; r < row_end; r++) {
                size_t n = panel * 16 + r;
                uint8_t *row = destination->codes + n * row_bytes;
                size_t k_end = martlet_min(inputs, (group + 1) * extent);
                for (size_t k = group * extent; k < k_end; k += step) {
                    size_t at = (k - group * extent) / step * 64 + 4 * r;
                    uint32_t word = martlet_load_u32(from + at);
                    size_t bytes;
                    if (is_u4) {
                        word = gather_nibbles(word & 0x0f0f0f0f)
                            | gather_nibbles(word >> 4 & 0x0f0f0f0f) << 16;
                        if (k + 8 > inputs) word &= (1u << (4 * (inputs - k))) - 1;
                        bytes = martlet_min(4, row_bytes - k / 2);
                    } else {
                        bytes = martlet_min(4, inputs - k);
                    }
                    uint8_t *to = row + (is_u4 ? k / 2 : k);
                    for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)(word >> (8 * i));
                }
                size_t index = n * destination->scale_row_stride + group;
                copy_float(destination->scales, index, scales, r, float_bytes);
                if (weight->zero == MARTLET_ZERO_INTEGER)
                    ((uint8_t *)destination->zeros)[index] =
                        unpack_integer(zeros, weight->scale_type, r);
                if (weight->zero == MARTLET_ZERO_MINIMUM)
                    copy_float(destination->zeros, index, zeros, r, float_bytes);
            }
        }
    }
}

void martlet_pack_plain(
    const martlet_weight *weight, const void *source, size_t row_stride, void *destination,
    size_t panel_begin, size_t panel_end) {
    for (size_t panel = panel_begin; panel < panel_end; panel++) {
        uint8_t *to = (uint8_t *)destination + panel * weight->panel_stride;
        size_t row_end = martlet_min(16, weight->row_count - panel * 16);
        size_t first = panel * 16 * row_stride;
        if (weight->kind == MARTLET_WEIGHT_F32) {
            const uint32_t *from = (const uint32_t *)source + first;
            uint32_t *words = (uint32_t *)to;
            for (size_t k = 0; k < weight->input_count; k++, words += 16)
                for (size_t r = 0; r < 16; r++)
                    words[r] = r < row_end ? from[r * row_stride + k] : 0;
            to = (uint8_t *)words;
        } else {
            const uint16_t *from = (const uint16_t *)source + first;
            uint16_t *words = (uint16_t *)to;
            for (size_t k = 0; k < weight->input_count; k++, words += 16)
                for (size_t r = 0; r < 16; r++)
                    words[r] = r < row_end ? from[r * row_stride + k] : 0;
            to = (uint8_t *)words;
        }
        uint8_t *end = (uint8_t *)destination + (panel + 1) * weight->panel_stride;
        while (to < end) *to++ = 0;
    }
}

void martlet_unpack_plain(
    const martlet_weight *weight, void *destination, size_t row_stride, size_t panel_begin,
    size_t panel_end) {
    size_t size = plain_bytes(weight);
    for (size_t panel = panel_begin; panel < panel_end; panel++) {
        const uint8_t *from = martlet_panel(weight, panel);
        size_t row_end = martlet_min(16, weight->row_count - panel * 16);
        for (size_t r = 0; r < row_end; r++) {
            uint8_t *to = (uint8_t *)destination + (panel * 16 + r) * row_stride * size;
            if (size == 4) {
                for (size_t k = 0; k < weight->input_count; k++)
                    martlet_copy(to + 4 * k, from + (k * 16 + r) * 4, 4);
            } else {
                for (size_t k = 0; k < weight->input_count; k++)
                    martlet_copy(to + 2 * k, from + (k * 16 + r) * 2, 2);
            }
        }
    }
}
