// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// rotary_table_plain, rotary_plain, kv_write_plain, attention_plain: paged attention, all variants.
//
// attention: one warp per token and head, 32 positions at a time from a multiple of 32 on, online softmax
// in f32. The order of sums depends on absolute positions only. Bytes: the request's keys and values once
// per token and head (the cache serves heads that share them). Right everywhere, not fast.
#include "martlet.cuh"

#define A ACTIVATION

/// Cosines and sines by position, [positions][pairs]; `pairs` 0 for none.
struct Rotation {
    const float* cosines;
    const float* sines;
    i32 pairs, is_half;

    /// Element d of a head, rotated.
    __device__ __forceinline__ float get(const Rows& x, i64 row, i64 start, int d, int position) const {
        float own = x.get<A>(row, start + d);
        if (d >= 2 * pairs) return own;
        int pair = is_half ? (d < pairs ? d : d - pairs) : d / 2;
        bool first = is_half ? d < pairs : !(d & 1);
        int other = is_half ? (first ? d + pairs : d - pairs) : d ^ 1;
        float beside = x.get<A>(row, start + other);
        float c = cosines[(i64)position * pairs + pair], s = sines[(i64)position * pairs + pair];
        return first ? own * c - beside * s : own * c + beside * s;
    }
};

struct RotaryTableArguments {
    const void* frequencies;
    float* cosines;
    float* sines;
    double magnitude;
    i32 type, pairs, positions, reserved;
};

/// Angles in f64, rounded once.
MARTLET_KERNEL __launch_bounds__(256)
    rotary_table_plain(const __grid_constant__ RotaryTableArguments a) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (i64)a.positions * a.pairs) return;
    double angle = (double)(i / a.pairs) * (double)load_any(a.frequencies, a.type, i % a.pairs);
    a.cosines[i] = (float)(cos(angle) * a.magnitude);
    a.sines[i] = (float)(sin(angle) * a.magnitude);
}

struct RotaryArguments {
    const StepCounts* step;
    const i32* positions;
    Rows x, y;
    Rotation rotation;
    i32 columns, head_dim;
};

MARTLET_KERNEL __launch_bounds__(256) rotary_plain(const __grid_constant__ RotaryArguments a) {
    wait_for_producers();
    i64 row = blockIdx.x;
    int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= a.step->tokens || i >= a.columns) return;
    int d = i % a.head_dim;
    a.y.put<A>(row, i, a.rotation.get(a.x, row, i - d, d, a.positions[row]));
}

struct KVWriteArguments {
    const StepCounts* step;
    const i32* positions;
    Rows k, v;
    Rotation rotation;
    KVPages kv;
};

MARTLET_KERNEL __launch_bounds__(128) kv_write_plain(const __grid_constant__ KVWriteArguments a) {
    wait_for_producers();
    i64 row = blockIdx.x;
    int head = blockIdx.y;
    if (row >= a.step->tokens) return;
    int slot = a.kv.slot[row];
    if (slot < 0) return;
    u8* block = a.kv.block_of_slot(slot);
    i64 plane = (i64)a.kv.kv_heads * 64 * a.kv.head_dim;
    i64 at = ((i64)head * 64 + slot % 64) * a.kv.head_dim;
    for (int d = threadIdx.x; d < a.kv.head_dim; d += blockDim.x) {
        i64 start = (i64)head * a.kv.head_dim;
        store<KV>(block, at + d, a.rotation.get(a.k, row, start, d, a.positions[row]));
        store<KV>(block, plane + at + d, a.v.get<A>(row, start + d));
    }
}

struct AttentionArguments {
    const StepCounts* step;
    const i32* positions;
    const i32* requests;  // [T]
    Rows q, y;
    Rotation rotation;
    KVPages kv;
    Vector slopes;
    i32 heads, window, causal;
    float scale, soft_cap;
    i32 reserved;
};

#define MAX_HEAD_DIM 256

MARTLET_KERNEL __launch_bounds__(128) attention_plain(const __grid_constant__ AttentionArguments a) {
    wait_for_producers();
    __shared__ float queries[4][MAX_HEAD_DIM];
    int row = blockIdx.x, warp = warp_index(), lane = lane_index();
    int head = blockIdx.y * 4 + warp;
    if (row >= a.step->tokens || head >= a.heads) return;
    int dim = a.kv.head_dim, request = a.requests[row], position = a.positions[row];
    for (int d = lane; d < dim; d += 32) {
        queries[warp][d] = a.rotation.get(a.q, row, (i64)head * dim, d, position);
    }
    __syncwarp();
    int end = a.causal ? position + 1 : a.kv.length[request];
    int start = a.window > 0 ? max(end - a.window, 0) : 0;
    i64 plane = (i64)a.kv.kv_heads * 64 * dim;
    i64 kv_head = head / (a.heads / a.kv.kv_heads);
    float slope = a.slopes.base ? a.slopes.get(head) : 0;
    float greatest = -MARTLET_INFINITY, total = 0, sums[MAX_HEAD_DIM / 32];
#pragma unroll
    for (int j = 0; j < MAX_HEAD_DIM / 32; ++j) sums[j] = 0;
    for (int from = start / 32 * 32; from < end; from += 32) {
        // The 32 positions lie in one block.
        const u8* block = a.kv.block(request, max(from, start));
        i64 at = (kv_head * 64 + from % 64) * dim;
        int p = from + lane;
        float score = -MARTLET_INFINITY;
        if (p >= start && p < end) {
            score = 0;
            for (int d = 0; d < dim; ++d) {
                score = fmaf(queries[warp][d], load<KV>(block, at + (i64)lane * dim + d), score);
            }
            score *= a.scale;
            if (a.soft_cap > 0) score = a.soft_cap * tanhf(score / a.soft_cap);
            score += slope * (float)(p - (end - 1));
        }
        float next = fmaxf(greatest, warp_max(score));
        float correction = expf(greatest - next);
        // A score that is no number stays one.
        float weight = p >= start && p < end ? expf(score - next) : 0;
        greatest = next;
        total = total * correction + warp_sum(weight);
#pragma unroll
        for (int j = 0; j < MAX_HEAD_DIM / 32; ++j) sums[j] *= correction;
        int first = max(start - from, 0), last = min(end - from, 32);
        for (int i = first; i < last; ++i) {
            float w = __shfl_sync(~0u, weight, i);
#pragma unroll
            for (int j = 0; j < MAX_HEAD_DIM / 32; ++j) {
                int d = j * 32 + lane;
                if (d < dim) {
                    sums[j] = fmaf(w, load<KV>(block, plane + at + (i64)i * dim + d), sums[j]);
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < MAX_HEAD_DIM / 32; ++j) {
        int d = j * 32 + lane;
        if (d < dim) a.y.put<A>(row, (i64)head * dim + d, end > start ? sums[j] / total : 0);
    }
}
