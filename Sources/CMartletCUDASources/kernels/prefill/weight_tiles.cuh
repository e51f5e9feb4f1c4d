// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// What the prompts' linear kernels have in common: tiles of 128 rows of a weight in the layout `mma16x16` and 256
// tokens, taken 64 k (a box) at a time, and codes that become operands of the matrix instructions.
#pragma once
#define MATH ACTIVATION
#include "mma16x16.cuh"

namespace {
using namespace layout;
#ifdef TOKENS
constexpr int tile_tokens = TOKENS;
#else
constexpr int tile_tokens = 256;
#endif
constexpr int tile_rows = 128, box_k = 64;
constexpr int tile_strips = tile_rows / 16;
constexpr int strips = (OUTPUTS + 15) / 16;
constexpr int row_tiles = (strips + tile_strips - 1) / tile_strips;
constexpr int boxes = (INPUTS + box_k - 1) / box_k;
constexpr int chunk_boxes = chunk_k / box_k;  // boxes of x that a chunk meets
constexpr int word_tiles = word_k / 16, box_words = 4 / word_tiles;  // of 16 k in a word; words of a box
constexpr int box_groups = grouped && GROUP < box_k ? box_k / (GROUP > 0 ? GROUP : 1) : 1;
static_assert(chunk_k % box_k == 0, "a chunk must hold whole boxes of x");

/// The first group of a chunk's box.
__device__ __forceinline__ int first_group(int box) {
    return box_groups > 1 ? box * box_groups : box * box_k / (GROUP > 0 ? GROUP : box_k);
}

/// A strip by its place in memory: strips whose chunks lie side by side are neighbours in a tile, so that a
/// tile's chunks of the same k are one piece of memory.
struct Strip {
    int index;      // which strip of the weight
    i64 chunk;      // its first chunk
    int stride;     // chunks from one to the next

    __device__ __forceinline__ explicit Strip(int place) {
#if INTERLEAVE
        constexpr int few = strips / INTERLEAVE, longer = strips % INTERLEAVE;
        int turn = place / INTERLEAVE, block = place % INTERLEAVE;
        index = block < longer ? block * (few + 1) + turn : longer + block * few + turn;
        chunk = (i64)turn * strip_chunks * INTERLEAVE + block;
        stride = turn < few ? INTERLEAVE : longer;
#else
        index = place;
        chunk = (i64)place * strip_chunks;
        stride = 1;
#endif
    }
};

/// Places of a tile: its first strip in memory's order, and its first token.
///
/// All rows of the weight meet a few tiles of tokens, whose x stays in the second cache, before the next ones.
struct Tile {
    int place, token;

    __device__ static __forceinline__ Tile of(int index, int token_tiles) {
        constexpr int kept = (20 << 20) / (tile_tokens * INPUTS * 2), wide = kept > 1 ? kept : 1;
        int first = index / (row_tiles * wide) * wide, rest = index % (row_tiles * wide);
        int width = token_tiles - first < wide ? token_tiles - first : wide;
        return Tile{rest / width * tile_strips, (first + rest % width) * tile_tokens};
    }
};

/// Both halves of a pair's low or high half.
__device__ __forceinline__ u32 twice_low(u32 pair) { return __byte_perm(pair, pair, 0x1010); }
__device__ __forceinline__ u32 twice_high(u32 pair) { return __byte_perm(pair, pair, 0x3232); }

/// The codes of 16 k of a word as operand of the matrix instruction, less the middle of symmetric schemes.
__device__ __forceinline__ void numbers(u32 (&a)[4], const Word& word, int part) {
    u32 w[4] = {word.x, word.y, word.z, word.w};
    if (math == MARTLET_BF16 && quantized) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#if WEIGHT == MARTLET_U4
            // Rows g and g + 8 of the first eight k, then of the others: 128 + code, less 128 or 136
            u32 code = w[part] >> (i & 1) * 8 + (i >> 1) * 4;
            const u32 middle = ZERO == MARTLET_ZERO_INTEGER ? 0x43004300 : 0x43084308;
            a[i] = pair_subtract<math>(nibbles<0x000f000f, 0x43004300>(code), middle);
#else
            a[i] = centred_bytes(__byte_perm(w[2 * part + i / 2], 0, i & 1 ? 0x4342 : 0x4140));
            if (ZERO == MARTLET_ZERO_INTEGER) a[i] = pair_subtract<math>(a[i], 0xc300c300);  // -128
#endif
        }
        return;
    }
#if WEIGHT == MARTLET_U4
    // 1024 + code, or 1024 + 16 code, less 1024 or 1032
    const u32 low_middle = has_zeros ? 0x64006400 : 0x64086408;
    const u32 high_middle = has_zeros ? 0xd400d400 : 0xd480d480;
    u32 high = w[part] >> 8;
    a[0] = pair_subtract<math>(nibbles<0x000f000f>(w[part]), low_middle);
    a[1] = pair_subtract<math>(nibbles<0x000f000f>(high), low_middle);
    a[2] = pair_fused<math>(nibbles<0x00f000f0>(w[part]), 0x2c002c00, high_middle);
    a[3] = pair_fused<math>(nibbles<0x00f000f0>(high), 0x2c002c00, high_middle);
#elif WEIGHT == MARTLET_U8
    // 1024 + code, less 1024 or 1152
    const u32 magic = 0x64646464, middle = has_zeros ? 0x64006400 : 0x64806480;
    a[0] = pair_subtract<math>(__byte_perm(w[2 * part], magic, 0x4140), middle);
    a[1] = pair_subtract<math>(__byte_perm(w[2 * part], magic, 0x4342), middle);
    a[2] = pair_subtract<math>(__byte_perm(w[2 * part + 1], magic, 0x4140), middle);
    a[3] = pair_subtract<math>(__byte_perm(w[2 * part + 1], magic, 0x4342), middle);
#else
    a[0] = w[0], a[1] = w[1], a[2] = w[2], a[3] = w[3];
#endif
}

/// A group's scales of this lane's rows g and g + 8, and its zeros.
struct GroupScale {
    u32 scales, zeros;

    GroupScale() = default;
    /// From a group in shared memory.
    __device__ __forceinline__ GroupScale(u32 group, int lane) : zeros(0) {
        u32 at = group + (lane >> 2) * (has_zeros ? 8 : 4);
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(scales) : "r"(at));
        if (has_zeros) asm volatile("ld.shared.u32 %0, [%1];" : "=r"(zeros) : "r"(at + 4));
        if (math == MARTLET_BF16) round_scales(scales, zeros);
    }
    __device__ __forceinline__ void apply(u32 (&a)[4]) const {
        const u32 factor[2] = {twice_low(scales), twice_high(scales)};
        const u32 zero[2] = {twice_low(zeros), twice_high(zeros)};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#if ZERO == MARTLET_ZERO_INTEGER
            a[j] = pair_multiply<math>(pair_subtract<math>(a[j], zero[j & 1]), factor[j & 1]);
#elif ZERO == MARTLET_ZERO_MINIMUM
            a[j] = pair_fused<math>(a[j], factor[j & 1], zero[j & 1]);
#else
            a[j] = pair_multiply<math>(a[j], factor[j & 1]);
#endif
        }
    }
};

__device__ __forceinline__ float gated(float gate, float up) {
#if GATED == 2
    float inner = 0.7978845608f * (gate + 0.044715f * gate * gate * gate);
    return gate / (1.0f + __expf(-2.0f * inner)) * up;
#else
    return gate / (1.0f + __expf(-gate)) * up;
#endif
}
}  // namespace
