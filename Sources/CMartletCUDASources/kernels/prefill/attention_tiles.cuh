// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// What the prompts' attention kernels have in common: tiles of rows and the keys that they see, scores that
// become probabilities. Sums lie as matrix instructions leave them: a lane has rows g and g + 8, and of each
// 8 columns 2 t and 2 t + 1.
#pragma once
#include "mma.cuh"

/// Arguments beside the queries.
struct AttentionTask {
    const StepCounts* step;
    KVPages pages;
    const i32* query_start;  // [B + 1]
    Rows y;                  // [T, N D]
    const float* slopes;     // [N], ALiBi
    float scale, soft_cap;
    i32 head_group;          // heads side by side, a divisor of N: those whose keys fit the second cache
    i32 reserved;
};

namespace {
#ifdef GROUPS
constexpr int tile_rows = GROUPS * 64, keys = HEAD_DIM > 128 ? 64 : 128;
#else
constexpr int tile_rows = WARPS * ROW_TILES * 16, keys = KEYS;
#endif
constexpr float log2_e = 1.4426950408889634f;

/// Rows of one request and head, and the keys that they see.
struct Tile {
    int request, head, first_row, row_count, first_position;
    int first_block, block_count;  // blocks of keys
};

/// Tiles by number, all of a group of heads before the next group's. Later rows of a request, which see more
/// keys, come first. Some numbers have no tile. Requests of one token each in front of all others are left out.
struct Tiles {
    const AttentionTask& a;
    const int singles, head_tiles;  // of one head, at most

    __device__ __forceinline__ explicit Tiles(const AttentionTask& a)
        : a(a), singles(a.step->singles),
          head_tiles((a.step->tokens - singles) / tile_rows + a.step->requests - singles), request(singles) {}
    __device__ __forceinline__ int count() const { return head_tiles * HEADS; }

    /// Finds a tile; quick where numbers grow.
    __device__ __forceinline__ bool find(int number, Tile& tile) {
        const int group_tiles = head_tiles * a.head_group, place = number % group_tiles / a.head_group;
        tile.head = number / group_tiles * a.head_group + number % a.head_group;
        if (place < tiles_before) {
            request = singles;
            tiles_before = 0;
        }
        for (; request < a.step->requests; ++request) {
            int start = a.query_start[request], count = a.query_start[request + 1] - start;
            int tiles = (count + tile_rows - 1) / tile_rows, index = place - tiles_before;
            if (index < tiles) {
                int first = (tiles - 1 - index) * tile_rows;
                tile.request = request;
                tile.first_row = start + first;
                tile.row_count = min(count - first, tile_rows);
                tile.first_position = a.pages.length[request] - count + first;
                int begin = a.pages.start[request];
                if (WINDOW > 0) begin = max(begin, tile.first_position - WINDOW + 1);
                tile.first_block = begin / keys;
                tile.block_count = (tile.first_position + tile.row_count + keys - 1) / keys - tile.first_block;
                return true;
            }
            tiles_before += tiles;
        }
        return false;
    }

  private:
    int request, tiles_before = 0;  // that the search has passed
};

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// Rows g and g + 8 of a warp's 16: greatest score and sum of probabilities so far.
struct Softmax {
    float greatest[2] = {-MARTLET_INFINITY, -MARTLET_INFINITY};
    float sum[2] = {0, 0};

    /// Scores of a block become probabilities; returns what sums so far are multiplied by.
    __device__ __forceinline__ void step(float (&s)[keys / 2], float (&factor)[2], float scale) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float top = greatest[r];
#pragma unroll
            for (int j = 0; j < keys / 8; ++j) top = fmaxf(top, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float base = top == -MARTLET_INFINITY ? 0.0f : top * scale;
            factor[r] = exp2_fast(greatest[r] * scale - base);
            greatest[r] = top;
            float total = 0;
#pragma unroll
            for (int j = 0; j < keys / 8; ++j) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float p = exp2_fast(fmaf(s[4 * j + 2 * r + e], scale, -base));
                    s[4 * j + 2 * r + e] = p;
                    total += p;
                }
            }
            sum[r] = sum[r] * factor[r] + total;
        }
    }
};

/// Soft cap, ALiBi and masks; `key` and `position` of the thread's first score.
__device__ __forceinline__ void shape_scores(const AttentionTask& a, float (&s)[keys / 2],
    float slope, int key, int position, bool masked) {
#if SOFT_CAP
    // In units of the scale: the cap is on scaled scores.
    const float in = a.scale / a.soft_cap, out = a.soft_cap / a.scale;
#pragma unroll
    for (int i = 0; i < keys / 2; ++i) {
        float x;
        asm("tanh.approx.f32 %0, %1;" : "=f"(x) : "f"(s[i] * in));
        s[i] = x * out;
    }
#endif
#if ALIBI
#pragma unroll
    for (int j = 0; j < keys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            s[4 * j + e] += slope * (float)(key + 8 * j + (e & 1) - position - (e >> 1) * 8);
        }
    }
#endif
    if (masked) {
#pragma unroll
        for (int j = 0; j < keys / 8; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                int distance = position + (e >> 1) * 8 - (key + 8 * j + (e & 1));
                if (distance < 0 || (WINDOW > 0 && distance >= WINDOW)) {
                    s[4 * j + e] = -MARTLET_INFINITY;
                }
            }
        }
    }
}

__device__ __forceinline__ void probabilities(u32 (&p)[keys / 16][4], const float (&s)[keys / 2]) {
#pragma unroll
    for (int k = 0; k < keys / 16; ++k) {
        p[k][0] = pack_pair<ACTIVATION>(s[8 * k], s[8 * k + 1]);
        p[k][1] = pack_pair<ACTIVATION>(s[8 * k + 2], s[8 * k + 3]);
        p[k][2] = pack_pair<ACTIVATION>(s[8 * k + 4], s[8 * k + 5]);
        p[k][3] = pack_pair<ACTIVATION>(s[8 * k + 6], s[8 * k + 7]);
    }
}
}  // namespace
