// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Weights of linear_batch: the ring that they arrive in, and how they become operands.
#pragma once
#include "linear_shape.cuh"

namespace {
/// Scales and zeros of a group as pairs, for rows g and g + 8 of a strip.
///
/// `low` and `high` are what codes less their zero need subtracted from 1024 + code, and from 64 + code, in f16; in bf16
/// `low` is it from 128 + code, or from a byte's code - 128.
struct GroupNumbers {
    u32 scale[2], low[2], high[2], minimum[2];
    float late[2];  // scales of sums

    __device__ __forceinline__ void load(u32 address) {
        // For a zero, and for the middle code: 1024 + it in f16; 128 or -128 + it in bf16.
        constexpr u32 base = math == MARTLET_F16 ? 0x64006400 : WEIGHT == MARTLET_U4 ? 0x43004300 : 0xc300c300;
        constexpr u32 middle = math == MARTLET_F16 ? (WEIGHT == MARTLET_U4 ? 0x64086408 : 0x64806480)
                                                   : (WEIGHT == MARTLET_U4 ? 0x43084308 : 0);
        u32 scales = 0, zeros = 0;
        if (!grouped) {
            low[0] = low[1] = middle;
            high[0] = high[1] = 0xd480d480;  // -72
            return;
        }
        if (has_zeros) {
            asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(scales), "=r"(zeros) : "r"(address));
        } else {
            asm volatile("ld.shared.u32 %0, [%1];" : "=r"(scales) : "r"(address));
        }
        late[0] = low_half<MARTLET_F16>(scales), late[1] = high_half<MARTLET_F16>(scales);
        if (math == MARTLET_BF16) round_scales(scales, zeros);
        scale[0] = __byte_perm(scales, scales, 0x1010);
        scale[1] = __byte_perm(scales, scales, 0x3232);
        u32 zero[2] = {__byte_perm(zeros, zeros, 0x1010), __byte_perm(zeros, zeros, 0x3232)};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if (math == MARTLET_BF16) {
                low[i] = ZERO == MARTLET_ZERO_INTEGER ? pair_fused<math>(zero[i], 0x3f803f80, base) : middle;
                minimum[i] = zero[i];
            } else if (ZERO == MARTLET_ZERO_INTEGER) {
                low[i] = pair_fused<math>(zero[i], 0x3c003c00, base);
                high[i] = pair_fused<math>(zero[i], 0xbc00bc00, 0xd400d400);  // -64 - zero
            } else {
                low[i] = ZERO == MARTLET_ZERO_NONE ? middle : base;
                high[i] = ZERO == MARTLET_ZERO_NONE ? 0xd480d480 : 0xd400d400;
                minimum[i] = zero[i];
            }
        }
    }
    __device__ __forceinline__ u32 scaled(u32 code, int row8) const {
        if (!grouped || late_scales) return code;
        if (ZERO == MARTLET_ZERO_MINIMUM) return pair_fused<math>(code, scale[row8], minimum[row8]);
        return pair_multiply<math>(code, scale[row8]);
    }
};

/// The operands of two tiles, 32 k: pair I of a step's words.
template <int I>
__device__ __forceinline__ void fragments(u32 (&a)[2][4], const Word (&w)[STEP], const GroupNumbers& n) {
#if WEIGHT == MARTLET_U4
    u32 tiles[2] = {I & 1 ? w[I / 2].z : w[I / 2].x, I & 1 ? w[I / 2].w : w[I / 2].y};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        u32 t = tiles[i], t8 = t >> 8;
        if (math == MARTLET_BF16) {
            const u32 parts[4] = {t, t8, t >> 4, t >> 12};
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                a[i][j] = n.scaled(
                    pair_subtract<math>(nibbles<0x000f000f, 0x43004300>(parts[j]), n.low[j & 1]), j & 1);
            }
            continue;
        }
        a[i][0] = n.scaled(pair_subtract<math>(nibbles<0x000f000f>(t), n.low[0]), 0);
        a[i][1] = n.scaled(pair_subtract<math>(nibbles<0x000f000f>(t8), n.low[1]), 1);
        // (1024 + 16 code) / 16
        a[i][2] = n.scaled(pair_fused<math>(nibbles<0x00f000f0>(t), 0x2c002c00, n.high[0]), 0);
        a[i][3] = n.scaled(pair_fused<math>(nibbles<0x00f000f0>(t8), 0x2c002c00, n.high[1]), 1);
    }
#elif WEIGHT == MARTLET_U8
    u32 tiles[4] = {w[I].x, w[I].y, w[I].z, w[I].w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            // The high byte of each half is that of 1024; where it does not matter, of nothing.
            u32 pair = __byte_perm(tiles[i], 0x64646464, j ? 0x4342 : 0x4140);
            if (math == MARTLET_BF16) {
                pair = centred_bytes(pair);
                if (ZERO == MARTLET_ZERO_INTEGER && grouped) pair = pair_subtract<math>(pair, n.low[j]);
            } else {
                pair = pair_subtract<math>(pair, n.low[j]);
            }
            a[i / 2][i % 2 * 2 + j] = n.scaled(pair, j);
        }
    }
#else
    constexpr int last = 2 * I + 1 < STEP ? 2 * I + 1 : 2 * I;
    a[0][0] = w[2 * I].x, a[0][1] = w[2 * I].y, a[0][2] = w[2 * I].z, a[0][3] = w[2 * I].w;
    a[1][0] = w[last].x, a[1][1] = w[last].y, a[1][2] = w[last].z, a[1][3] = w[last].w;
#endif
}

/// Asks for the numbers per channel of so many strips, which the results need.
__device__ __forceinline__ void ask_channels(const BatchLinearArguments& a, int strip, int count) {
    const int piece = threadIdx.x;
    if (channels_bytes == 0 || piece >= count * 4) return;
    const u32 at = shared_address(shared) + channels_at + piece * 16;
    copy<16>(at, a.scales + strip * 16 + piece * 4);
    if (has_zeros) copy<16>(at + channels_bytes, a.zeros + strip * 16 + piece * 4);
}

/// A warp's strips along its part of K: what it has asked for, and the ring that this arrives in.
struct Stream {
    static constexpr int places = INTERLEAVE ? STRIPS : 1;
    const u8* at[places];  // this lane's bytes of the next chunk to ask for
    i64 stride[places];
    u32 words_at, scales_at;  // this lane's places in the ring
    int source_scales;        // from `at` to the lane's scales
    int have, left;           // strips; chunks to ask for

    __device__ __forceinline__ void begin(
        const BatchLinearArguments& a, int strip, int count, int from, int chunks) {
        const int lane = lane_index();
        have = count;
        left = chunks;
        words_at = shared_address(shared) + rings_at + warp_index() * ring_bytes + lane * 16;
        scales_at = words_at - lane * 16 + words * 512 + lane * scale_bytes;
        source_scales = words * 512 + (lane >> 2) * scale_bytes - lane * 16;
#pragma unroll
        for (int s = 0; s < places; ++s) {
            int place = min(strip + s, strips - 1);
            at[s] = a.weight + chunk_index(place, from) * chunk_bytes + lane * 16;
            stride[s] = INTERLEAVE ? (chunk_index(place, 1) - chunk_index(place, 0)) * chunk_bytes : chunk_bytes;
        }
        fill<0, early_chunks>();
    }
    /// Asks for the first chunks.
    template <int FROM, int TO> __device__ __forceinline__ void fill() {
#pragma unroll
        for (int d = FROM; d < TO; ++d) {
#pragma unroll
            for (int i = 0; i < steps; ++i) ask(d * slot_bytes, i);
            advance();
        }
    }
    /// Asks for a step of the next chunk.
    __device__ __forceinline__ void ask(int slot, int step) {
        if (left > 0) {
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
                if (s >= have) continue;
                const u8* source = INTERLEAVE ? at[s % places] : at[0] + (i64)s * strip_chunks * chunk_bytes;
#pragma unroll
                for (int i = step * STEP; i < (step + 1) * STEP; ++i) {
                    copy<16>(words_at + slot + s * place_bytes + i * 512, source + i * 512);
                }
#pragma unroll
                for (int g = step * step_groups; g < (step + 1) * step_groups; ++g) {
                    copy<scale_bytes>(scales_at + slot + s * place_bytes + g * scale_bytes * 32,
                        source + source_scales + g * group_bytes);
                }
            }
        }
        copies_end();
    }
    __device__ __forceinline__ void advance() {
        --left;
#pragma unroll
        for (int s = 0; s < places; ++s) at[s] += stride[s];
    }
};
}  // namespace
