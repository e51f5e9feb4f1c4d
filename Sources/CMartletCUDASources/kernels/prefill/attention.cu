// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// attention_prefill: y = softmax(q k^T scale) v over packed sequences and paged keys and values, sm_90a.
//
// FLOP 4 D per query, key and head that see each other; floor: FLOP / rate of large bf16 products (G).
// A block takes 128 rows of one request and head: two consumer warpgroups of 64 and a producer warp that
// brings keys and values, 128 at a time, by boxes of 64 x 64. The grid is heads x tiles, in one dimension. Scores of the next keys are under way while
// those before become probabilities. Keys come from the diagonal backwards. q is rotated and keys and
// values are in their pages already.
// Measured on an H100 80GB, share of G (765 TF), one request, 32 heads of 128: 8,192 tokens 78.5 %, 2,048
// tokens 49.8; 8,192 tokens with 8 kv heads 79.8, ALiBi 75.4, soft cap 59.9, a window of 700 46.2, 9 heads
// of 64 45.3; PyTorch's attention on contiguous keys in the same run 76.8, 44.3, 76.7, -, -, -, 42.6.
// Numerics: f32 scores and sums; probabilities are rounded to q's type.
//
//   ACTIVATION               type of q, keys, values and y: f16 or bf16
//   HEAD_DIM                 64 or 128
//   HEADS KV_HEADS           N and K
//   WINDOW SOFT_CAP ALIBI    keys seen, 0 for all; 0 or 1; 0 or 1
#include "hopper.cuh"

struct PrefillAttentionArguments {
    TensorMap q;            // [T, N D], box 128 rows x 64
    TensorMap cache;        // the arena as rows of D, box 64 rows x 64
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
constexpr int tile_rows = 128, keys = 128, stages = 2, box_columns = 64;
constexpr int halves = HEAD_DIM / box_columns;
constexpr int matrix_bytes = 128 * HEAD_DIM * 2;  // of queries, keys or values
constexpr int half_bytes = 128 * box_columns * 2;
constexpr int keys_at = matrix_bytes, values_at = keys_at + stages * matrix_bytes;
constexpr int pitch = HEAD_DIM * 2 + 16;  // of results on their way out, spread over the banks
constexpr int staging_at = values_at + stages * matrix_bytes;
constexpr int barriers_at = staging_at + tile_rows * pitch;
constexpr int shared_bytes = barriers_at + 8 + stages * 32;
extern __shared__ __align__(1024) u8 shared[];
constexpr float log2_e = 1.4426950408889634f;

struct Barriers {
    u32 base;
    __device__ __forceinline__ u32 queries() const { return base; }
    __device__ __forceinline__ u32 keys_full(int i) const { return base + 8 + i * 32; }
    __device__ __forceinline__ u32 keys_free(int i) const { return base + 16 + i * 32; }
    __device__ __forceinline__ u32 values_full(int i) const { return base + 24 + i * 32; }
    __device__ __forceinline__ u32 values_free(int i) const { return base + 32 + i * 32; }
};

/// The rows of a block: some of one request, and the keys that they see.
struct Tile {
    int request, head, first_row, row_count, first_position;
    int first_block, block_count;  // blocks of 128 keys
};

/// Which rows this block computes; false if there are none left for it. Later rows of a request, which
/// see more keys, come first.
__device__ __forceinline__ bool find(const PrefillAttentionArguments& a, Tile& tile) {
    // All tiles of a group of heads, then the next group's; the longest of all heads first.
    int group_blocks = gridDim.x / HEADS * a.head_group;
    int index = blockIdx.x % group_blocks / a.head_group;
    tile.head = blockIdx.x / group_blocks * a.head_group + blockIdx.x % a.head_group;
    for (int request = 0; request < a.step->requests; ++request) {
        int start = a.query_start[request], count = a.query_start[request + 1] - start;
        int tiles = (count + tile_rows - 1) / tile_rows;
        if (index < tiles) {
            int first = (tiles - 1 - index) * tile_rows;
            tile.request = request;
            tile.first_row = start + first;
            tile.row_count = count - first < tile_rows ? count - first : tile_rows;
            tile.first_position = a.pages.length[request] - count + first;
            int end = tile.first_position + tile.row_count;
            int begin = a.pages.start[request];
            if (WINDOW > 0 && tile.first_position - WINDOW + 1 > begin) {
                begin = tile.first_position - WINDOW + 1;
            }
            tile.first_block = begin / keys;
            tile.block_count = (end + keys - 1) / keys - tile.first_block;
            return true;
        }
        index -= tiles;
    }
    return false;
}

/// Brings queries, then keys and values from the last block backwards.
__device__ __forceinline__ void produce(
    const PrefillAttentionArguments& a, const Tile& tile, Barriers barriers) {
    u32 base = shared_address(shared);
    barrier_expect(barriers.queries(), matrix_bytes);
    for (int h = 0; h < halves; ++h) {
        copy_box(base + h * half_bytes, &a.q, tile.head * HEAD_DIM + h * box_columns, tile.first_row,
            barriers.queries());
    }
    const int kv_head = tile.head / (HEADS / KV_HEADS);
    const int length = a.pages.length[tile.request], start = a.pages.start[tile.request];
    for (int i = 0; i < tile.block_count; ++i) {
        int stage = i % stages;
        u32 parity = (i / stages & 1) ^ 1;
        int rows[2];
        for (int b = 0; b < 2; ++b) {
            int position = (tile.first_block + tile.block_count - 1 - i) * keys + b * 64;
            // Blocks without keys are masked; any page serves for them.
            if (position >= length) position = (length - 1) / 64 * 64;
            if (position < start / 64 * 64) position = start / 64 * 64;
            const u8* block = a.pages.block(tile.request, position) + kv_head * (64 * HEAD_DIM * 2);
            rows[b] = (int)((block - a.pages.base) / (HEAD_DIM * 2));
        }
        for (int v = 0; v < 2; ++v) {
            u32 full = v ? barriers.values_full(stage) : barriers.keys_full(stage);
            barrier_wait(v ? barriers.values_free(stage) : barriers.keys_free(stage), parity);
            barrier_expect(full, matrix_bytes);
            u32 target = base + (v ? values_at : keys_at) + stage * matrix_bytes;
            for (int h = 0; h < halves; ++h) {
                for (int b = 0; b < 2; ++b) {
                    copy_box(target + h * half_bytes + b * (half_bytes / 2), &a.cache, h * box_columns,
                        rows[b] + v * KV_HEADS * 64, full);
                }
            }
        }
    }
}

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
    __device__ __forceinline__ void step(float (&s)[64], float (&factor)[2], float scale) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float top = greatest[r];
#pragma unroll
            for (int j = 0; j < 16; ++j) top = fmaxf(top, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float base = top == -MARTLET_INFINITY ? 0.0f : top * scale;
            factor[r] = exp2_fast(greatest[r] * scale - base);
            greatest[r] = top;
            float total = 0;
#pragma unroll
            for (int j = 0; j < 16; ++j) {
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
__device__ __forceinline__ void shape_scores(const PrefillAttentionArguments& a, float (&s)[64],
    float slope, int key, int position, bool masked) {
#if SOFT_CAP
    // In units of the scale: the cap is on scaled scores.
    const float in = a.scale / a.soft_cap, out = a.soft_cap / a.scale;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
        float x;
        asm("tanh.approx.f32 %0, %1;" : "=f"(x) : "f"(s[i] * in));
        s[i] = x * out;
    }
#endif
#if ALIBI
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            s[4 * j + e] += slope * (float)(key + 8 * j + (e & 1) - position - (e >> 1) * 8);
        }
    }
#endif
    if (masked) {
#pragma unroll
        for (int j = 0; j < 16; ++j) {
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

__device__ __forceinline__ void scores(float (&s)[64], u32 queries, u32 key_matrix) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; ++k) {
        u32 half = k / 4 * half_bytes;
        wgmma_matrices_128<ACTIVATION>(s, swizzled_matrix(queries + half) + k % 4 * 2,
            swizzled_matrix(key_matrix + half) + k % 4 * 2, k > 0);
    }
    wgmma_commit();
}

__device__ __forceinline__ void gather(
    float (&o)[HEAD_DIM / 2], const u32 (&p)[8][4], u32 value_matrix, bool first) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        u64 v = swizzled_columns(value_matrix + k * 2048, half_bytes);
#if HEAD_DIM == 128
        wgmma_columns_128<ACTIVATION>(o, p[k], v, !first || k > 0);
#else
        wgmma_columns_64<ACTIVATION>(o, p[k], v, !first || k > 0);
#endif
    }
    wgmma_commit();
}

__device__ __forceinline__ void probabilities(u32 (&p)[8][4], const float (&s)[64]) {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        p[k][0] = pack_pair<ACTIVATION>(s[8 * k], s[8 * k + 1]);
        p[k][1] = pack_pair<ACTIVATION>(s[8 * k + 2], s[8 * k + 3]);
        p[k][2] = pack_pair<ACTIVATION>(s[8 * k + 4], s[8 * k + 5]);
        p[k][3] = pack_pair<ACTIVATION>(s[8 * k + 6], s[8 * k + 7]);
    }
}

__device__ __forceinline__ void consume(
    const PrefillAttentionArguments& a, const Tile& tile, Barriers barriers, int group) {
    const int thread = threadIdx.x & 127, warp = thread >> 5, lane = thread & 31;
    const u32 base = shared_address(shared), queries = base + group * 64 * 128;
    const int position = tile.first_position + group * 64 + warp * 16 + (lane >> 2);
    const int last_block = tile.first_block + tile.block_count - 1;
    const float scale = a.scale * log2_e;
    const float slope = ALIBI ? a.slopes[tile.head] / a.scale : 0.0f;
    float s[64], o[HEAD_DIM / 2], factor[2];
    u32 p[8][4];
    Softmax softmax;

    auto shape = [&](int i) {
        int key = (last_block - i) * keys;
        bool masked = key + keys > tile.first_position + group * 64 + 1
            || (WINDOW > 0 && key <= tile.first_position + group * 64 + 63 - WINDOW);
        if (masked || SOFT_CAP || ALIBI) {
            shape_scores(a, s, slope, key + (lane & 3) * 2, position, masked);
        }
    };
    barrier_wait(barriers.queries(), 0);
    barrier_wait(barriers.keys_full(0), 0);
    scores(s, queries, base + keys_at);
    wgmma_wait<0>();
    if (thread == 0) barrier_arrive(barriers.keys_free(0));
    shape(0);
    softmax.step(s, factor, scale);
    probabilities(p, s);
#pragma unroll 1
    for (int i = 1; i < tile.block_count; ++i) {
        int stage = i % stages, before = (i - 1) % stages;
        barrier_wait(barriers.keys_full(stage), i / stages & 1);
        scores(s, queries, base + keys_at + stage * matrix_bytes);
        barrier_wait(barriers.values_full(before), (i - 1) / stages & 1);
        gather(o, p, base + values_at + before * matrix_bytes, i == 1);
        wgmma_wait<1>();
        if (thread == 0) barrier_arrive(barriers.keys_free(stage));
        shape(i);
        softmax.step(s, factor, scale);
        wgmma_wait<0>();
        if (thread == 0) barrier_arrive(barriers.values_free(before));
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; ++j) {
            o[4 * j] *= factor[0], o[4 * j + 1] *= factor[0];
            o[4 * j + 2] *= factor[1], o[4 * j + 3] *= factor[1];
        }
        probabilities(p, s);
    }
    int last = (tile.block_count - 1) % stages;
    barrier_wait(barriers.values_full(last), (tile.block_count - 1) / stages & 1);
    gather(o, p, base + values_at + last * matrix_bytes, tile.block_count == 1);
    wgmma_wait<0>();

    // Rows leave through shared memory, whole ones at a time.
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float total = softmax.sum[r];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        factor[r] = total > 0 ? 1.0f / total : 0.0f;
    }
    const u32 staging = base + staging_at + (group * 64 + warp * 16) * pitch;
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; ++j) {
        u32 at = staging + (lane >> 2) * pitch + (j * 8 + (lane & 3) * 2) * 2;
        shared_put(at, pack_pair<ACTIVATION>(o[4 * j] * factor[0], o[4 * j + 1] * factor[0]));
        shared_put(at + 8 * pitch, pack_pair<ACTIVATION>(o[4 * j + 2] * factor[1], o[4 * j + 3] * factor[1]));
    }
    __syncwarp();
    constexpr int vectors = HEAD_DIM / 8;
#pragma unroll
    for (int i = 0; i < 16 * vectors / 32; ++i) {
        int index = i * 32 + lane, row = index / vectors, column = index % vectors;
        int tile_row = group * 64 + warp * 16 + row;
        Word v = shared_word(staging + row * pitch + column * 16);
        if (tile_row < tile.row_count) {
            u8* target = (u8*)a.y.base
                + ((i64)(tile.first_row + tile_row) * a.y.stride + tile.head * HEAD_DIM) * 2 + column * 16;
            asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(target), "r"(v.x), "r"(v.y),
                "r"(v.z), "r"(v.w) : "memory");
        }
    }
}
}  // namespace

/// Shared memory and threads of a block.
extern "C" __device__ const u32 attention_prefill_launch[2] = {shared_bytes, 384};

extern "C" __global__ void __launch_bounds__(384, 1)
    attention_prefill(const __grid_constant__ PrefillAttentionArguments a) {
    Barriers barriers{shared_address(shared) + barriers_at};
    if (threadIdx.x == 0) {
        barrier_init(barriers.queries(), 1);
        for (int i = 0; i < stages; ++i) {
            barrier_init(barriers.keys_full(i), 1);
            barrier_init(barriers.keys_free(i), 2);
            barrier_init(barriers.values_full(i), 1);
            barrier_init(barriers.values_free(i), 2);
        }
        barrier_init_fence();
    }
    __syncthreads();
    wait_for_producers();
    Tile tile;
    if (find(a, tile)) {
        int group = threadIdx.x >> 7;
        if (group == 0) {
            give_registers<24>();
            if (threadIdx.x == 0) produce(a, tile, barriers);
        } else {
            take_registers<240>();
            consume(a, tile, barriers, group - 1);
        }
    }
    release_dependents();
}
