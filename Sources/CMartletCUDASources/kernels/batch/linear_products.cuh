// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Products of linear_batch: a warp's strips by all rows of x, chunk by chunk.
#pragma once
#include "linear_panels.cuh"
#include "linear_weights.cuh"

namespace {
struct Products {
    // Few columns make few independent sums; then odd tiles have sums of their own.
    static constexpr int chains = !WGMMA && columns <= 2 ? 2 : 1;
    float c[chains][STRIPS][columns * 4];
    float scaled[late_scales ? STRIPS : 1][late_scales ? columns * 4 : 1];  // sums of the groups before
    // Sets of operands, a divisor of a chunk's pairs: matrix instructions under way read some while another is made.
    static constexpr int sets = !WGMMA ? 1 : STRIPS == 1 && chunk_k % 128 == 0 ? 4 : 2;
    u32 operands[sets][STRIPS][2][4];

    /// This lane's row of a matrix of x, K behind the place `x` of a chunk's first k.
    template <int K> static __device__ __forceinline__ u32 x_at(u32 x) {
        return K / 64 * box_bytes + (K % 64 > 0 ? x ^ K % 64 * 2 : x);
    }

    /// Pairs of tiles from I on of a step whose x begins at `x`.
    template <int STEP_INDEX, int I>
    __device__ __forceinline__ void multiply(
        const Word (&w)[STRIPS][STEP], GroupNumbers (&n)[STRIPS], u32 x, u32 scales) {
        constexpr int pairs = (step_k + 31) / 32;
        if constexpr (I < pairs) {
            constexpr int k = STEP_INDEX * step_k + I * 32, k_x = k % (chunk_panels > 1 ? PANEL : chunk_k);
            constexpr int group = grouped ? k / (GROUP > 0 ? GROUP : 1) : 0;
            constexpr bool is_whole = step_k >= 32;
            u32 (&a)[STRIPS][2][4] = operands[k / 32 % sets];
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
                if (grouped ? k % (GROUP > 0 ? GROUP : 1) == 0 : I == 0) {
                    n[s].load(scales + s * place_bytes + group * scale_bytes * 32);
                }
                fragments<I>(a[s], w[s], n[s]);
            }
            if constexpr (WGMMA) {
                u64 b = swizzled_matrix(x + k_x / 64 * box_bytes + k_x % 64 * 2);
                wgmma_fence();
#pragma unroll
                for (int i = 0; i < 2; ++i) {
#pragma unroll
                    for (int s = 0; s < STRIPS; ++s) wgmma_registers<math, TOKENS>(c[0][s], a[s][i], b + i * 2);
                }
                wgmma_commit();
                wgmma_wait<sets - 1>();
            } else {
                constexpr int wide = columns % 4 == 0 ? 4 : columns % 2 == 0 ? 2 : 1;
#pragma unroll
                for (int j = 0; j < columns; j += wide) {
                    Word b[wide];
#pragma unroll
                    for (int i = 0; i < wide; ++i) b[i] = matrices(x_at<k_x>(x) + (j + i) * 1024);
#pragma unroll
                    for (int i = 0; i < wide; ++i) {
#pragma unroll
                        for (int s = 0; s < STRIPS; ++s) multiply_tile(c[0][s], j + i, a[s][0], b[i].x, b[i].y);
                    }
                    if (!is_whole) continue;
#pragma unroll
                    for (int i = 0; i < wide; ++i) {
#pragma unroll
                        for (int s = 0; s < STRIPS; ++s) {
                            multiply_tile(c[chains - 1][s], j + i, a[s][1], b[i].z, b[i].w);
                        }
                    }
                }
            }
            if constexpr (late_scales && (k + 32) % (GROUP > 0 ? GROUP : 1) == 0) scale_sums(n);
            multiply<STEP_INDEX, I + 1>(w, n, x, scales);
        }
    }
    __device__ __forceinline__ void multiply_tile(
        float (&sums)[columns * 4], int j, const u32 (&a)[4], u32 b0, u32 b1) {
        mma<math>(*(float (*)[4])&sums[j * 4], a[0], a[1], a[2], a[3], b0, b1);
    }
    __device__ __forceinline__ void begin() {
        clear();
#pragma unroll
        for (int i = 0; i < (int)(sizeof(scaled) / 4); ++i) (&scaled[0][0])[i] = 0;
    }
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < chains * STRIPS * columns * 4; ++i) (&c[0][0][0])[i] = 0;
    }
    /// One sum of both chains.
    __device__ __forceinline__ float sum(int strip, int i) const {
        return chains > 1 ? c[0][strip][i] + c[chains - 1][strip][i] : c[0][strip][i];
    }
    /// Ends a group: its sums, scaled, go to those of the groups before.
    __device__ __forceinline__ void scale_sums(const GroupNumbers (&n)[STRIPS]) {
#pragma unroll
        for (int s = 0; s < STRIPS; ++s) {
#pragma unroll
            for (int i = 0; i < columns * 4; ++i) scaled[s][i] = fmaf(n[s].late[i / 2 % 2], sum(s, i), scaled[s][i]);
        }
        clear();
    }
    __device__ __forceinline__ void end() {
#pragma unroll
        for (int s = 0; s < STRIPS; ++s) {
#pragma unroll
            for (int i = 0; i < columns * 4; ++i) c[0][s][i] = late_scales ? scaled[s][i] : sum(s, i);
        }
    }

    /// Steps FROM to TO of a chunk in a slot of the ring; each is asked for again once it has been used.
    template <int FROM, int TO> __device__ __forceinline__ void run(Stream& stream, int slot, u32 x) {
        if constexpr (FROM < TO) {
            copies_wait<DEPTH * steps - 1>();
            Word w[STRIPS][STEP];
            GroupNumbers n[STRIPS];
#pragma unroll
            for (int s = 0; s < STRIPS; ++s) {
#pragma unroll
                for (int i = 0; i < STEP; ++i) {
                    w[s][i] = shared_word(stream.words_at + slot + s * place_bytes + (FROM * STEP + i) * 512);
                }
            }
            multiply<FROM, 0>(w, n, x, stream.scales_at + slot);
            stream.ask(slot, FROM);
            run<FROM + 1, TO>(stream, slot, x);
        }
    }
};

/// Panels of a chunk that is longer than they are, from the INDEX-th on.
template <int INDEX, int COUNT, typename Begin, typename End, typename Place>
__device__ __forceinline__ void panel_of_chunk(int chunk, bool is_there, Begin begin, End end, Place place,
    Stream& stream, int slot, Products& products) {
    if constexpr (INDEX < chunk_panels) {
        const int panel = chunk * chunk_panels + INDEX;
        const u32 x = begin(panel);
        if (is_there) products.run<INDEX * COUNT, (INDEX + 1) * COUNT>(stream, slot, x + place(0));
        end(panel);
        panel_of_chunk<INDEX + 1, COUNT>(chunk, is_there, begin, end, place, stream, slot, products);
    }
}

/// All chunks of a warp, panel by panel.
__device__ __forceinline__ void stream_products(const BatchLinearArguments& a, const Panels& source, Stream& stream,
    Products& products, int chunks) {
    // Said to be the same in all lanes, descriptors of x stay in uniform registers.
    const int lane = lane_index(), group = in_all_lanes(warp_index() / row_warps);
    chunks = in_all_lanes(chunks);
    // Warps of a warpgroup must issue its instructions together, whether they have strips or not.
    const bool is_active = stream.have > 0 || WGMMA;
    int slot = 0;
    auto begin = [&](int panel) {
        source.wait(a, panel);
        if (needs_sums) source.add_sums(panel);
        return in_all_lanes(shared_address(shared) + panel % BUFFERS * panel_bytes + group * group_panel_bytes);
    };
    auto end = [&](int panel) {
#if WGMMA
        wgmma_wait<0>();
#endif
        Panels::leave(panel);
    };
    auto advance = [&] {
        stream.advance();
        slot = slot == ring_bytes - slot_bytes ? 0 : slot + slot_bytes;
    };
    // Where a chunk's first k lies: a matrix for the warpgroup, or this lane's row of a matrix.
    auto place = [&](int k) -> u32 {
        return WGMMA ? k / 64 * box_bytes + k % 64 * 2 : Panels::place(lane & 7, k / 8 + (lane >> 3));
    };
    if constexpr (chunk_panels == 1) {
#pragma unroll 1
        for (int panel = 0; panel < panels; ++panel) {
            const u32 x = begin(panel);
            const int left = is_active ? min(panel_chunks, chunks - panel * panel_chunks) : 0;
#pragma unroll 1
            for (int i = 0; i < left; ++i) {
                products.run<0, steps>(stream, slot, x + place(i * chunk_k));
                advance();
            }
            end(panel);
        }
    } else {
        constexpr int panel_steps = PANEL < chunk_k ? PANEL / step_k : 1;
#pragma unroll 1
        for (int i = 0; i < longest; ++i) {
            const bool is_there = is_active && i < chunks;
            panel_of_chunk<0, panel_steps>(i, is_there, begin, end, place, stream, slot, products);
            if (is_there) advance();
        }
    }
}
}  // namespace
