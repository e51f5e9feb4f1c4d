// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Arguments, constants and shared memory of attention_decode; its definitions stand in attention.cu.
#pragma once
#include "ampere.cuh"
#include "hopper.cuh"

/// Cosines and sines by position, [positions][pairs], aligned to 16 bytes.
struct RotaryTable {
    const float* cosines;
    const float* sines;
    i32 pairs, reserved;
};

struct DecodeAttentionArguments {
    const StepCounts* step;
    const i32* positions;  // [T]
    Rows q, k, v, y;
    RotaryTable rotation;
    KVPages kv;
    const float* slopes;   // [heads]
    float* partials;       // [rows of the grid][heads][SPLITS / CLUSTER]: D sums each; behind all of these
                           // greatest score and total each; zero before and after
    u32* counters;         // [T][kv heads x head tiles][CLUSTER], zero before and after
    i32 window;
    float scale, soft_cap;
#ifdef TRACE
    u64* trace;
#endif
};

namespace {
constexpr int threads = WARPS * 32, teams = WARPS / TEAM;
constexpr int most_groups = SPLITS / CLUSTER;
constexpr int capacity = 8 * TILES * TEAM;
constexpr int block_heads = GROUP < capacity ? GROUP : capacity;
constexpr int head_tiles = (GROUP + capacity - 1) / capacity;
constexpr int key_words = (HEAD_DIM + 31) / 32;                    // 16-byte words of a lane per key
constexpr int value_words = (HEAD_DIM + 63) / 64;
constexpr int padded = key_words * 32;
constexpr int tiles = UNIT / 16;                                   // of 16 positions, in a unit

// A unit in shared memory: its keys, then its values, 16-byte chunks of a row swizzled, or rows apart by so
// much that eight lanes always read eight different groups of banks.
constexpr int row_chunks = HEAD_DIM / 8;
constexpr bool swizzled = row_chunks % 8 == 0;
constexpr int key_bytes = (swizzled ? row_chunks : (row_chunks + 3) / 8 * 8 + 4) * 16;
constexpr int value_bytes = (swizzled ? row_chunks : row_chunks | 1) * 16;
constexpr int unit_bytes = UNIT * (key_bytes + value_bytes);

constexpr int query_bytes = padded * 2 + (padded * 2 % 128 == 0 ? 64 : 0);  // rows on different banks
constexpr int new_at = block_heads * query_bytes;                  // the new key, then the new value
constexpr int new_bytes = value_words * 128;
constexpr int parts_at = (new_at + 2 * new_bytes + 127) / 128 * 128;  // of each team its ring, then its part
constexpr int part_stride = HEAD_DIM + 2;                          // [heads][D + 2]
constexpr int part_bytes = block_heads * part_stride * 4;
constexpr int team_bytes = RING * unit_bytes > part_bytes ? RING * unit_bytes : (part_bytes + 15) / 16 * 16;
constexpr int exchange_at = parts_at + teams * team_bytes;         // [cluster][quads of sums]
constexpr int share_heads = block_heads / CLUSTER, head_quads = HEAD_DIM / 4, share = share_heads * head_quads;
constexpr int totals_place = exchange_at + (CLUSTER > 1 ? CLUSTER * share * 16 : 0);  // [cluster][heads]
constexpr int barrier_at = totals_place + (CLUSTER > 1 ? CLUSTER * share_heads * 8 : 0);
constexpr int shared_bytes = barrier_at + (CLUSTER > 1 ? 16 : 0);
constexpr float log2e = 1.4426950408889634f;
extern __shared__ __align__(128) u8 shared[];
static_assert(HEAD_DIM % 16 == 0 && HEAD_DIM <= 256, "head dimensions are multiples of 16 up to 256");
static_assert(WARPS % TEAM == 0 && RING > 1, "a team shares a ring of two or more");
static_assert(SPLITS % CLUSTER == 0 && block_heads % CLUSTER == 0 && CLUSTER <= 8, "clusters share heads");
static_assert(UNIT == 16 || UNIT == 32, "units of 16 or 32");
#if CLUSTER > 1 && __CUDA_ARCH__ < 900
#error "clusters want sm_90"
#endif

__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ Word nothing() { return Word{0, 0, 0, 0}; }
}  // namespace
