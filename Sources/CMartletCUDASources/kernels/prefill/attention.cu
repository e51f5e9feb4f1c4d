// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// attention_prefill: y = softmax(q k^T scale) v over packed sequences and paged keys and values, sm_90a.
//
// FLOP 4 D per query, key and head that see each other; floor: FLOP / rate of large bf16 products (G).
// A tile is 64 rows of one request and head for each consumer warpgroup; of two producer threads one takes
// tiles and one brings keys and values, 128 at a time (64 of long heads), by boxes of 64 x 64. Columns past the
// end of a head come as zeros and are not multiplied. Blocks are persistent and take tiles in order, longest
// first; the next tile's queries and keys come while this one ends. Scores of the next keys are under way while
// those before become probabilities, and warpgroups take turns at the products. Keys come from the diagonal
// backwards. q is rotated and keys and values are in their pages already.
// Measured on an H100 80GB, share of G (781 TF), one request of 8,192 tokens, 32 heads, 8 kv heads: D = 64, 80,
// 96, 128, 256 61, 55, 62, 82, 83 % (32 kv heads: 59, 53, 60, 78, 78); D = 128 ALiBi 73, soft cap 60, a window of
// 1,024 64, of 4,096 80, f16 80; 2,048 tokens 32, 36, 41, 52, 50.
// Numerics: f32 scores and sums; probabilities are rounded to q's type. Rows of a page behind a request's end may hold
// anything: their scores are masked, and their values are cleared once they have come.
//
//   ACTIVATION               type of q, keys, values and y: f16 or bf16
//   HEAD_DIM                 64, 80, 96, 128 or 256
//   HEADS KV_HEADS           N and K
//   GROUPS                   consumer warpgroups, 64 rows of a tile each: 2, or 3 of heads of 64
//   WINDOW SOFT_CAP ALIBI    keys seen, 0 for all; 0 or 1; 0 or 1
#include "attention_tiles.cuh"
#include "attention_products.cuh"

struct PrefillAttentionArguments {
    TensorMap q;            // [T, N D], box of a tile's rows x 64
    TensorMap cache;        // the arena as rows of D, box 64 rows x 64
    AttentionTask task;
    u32* taken;             // tiles so far; zero before and after
};

namespace {
constexpr int stages = 2;
constexpr int boxes = (HEAD_DIM + 63) / 64;
constexpr int query_box = tile_rows * 128, key_box = keys * 128;  // bytes of 64 columns
constexpr int query_bytes = boxes * query_box, key_bytes = boxes * key_box;
constexpr int query_places = HEAD_DIM > 128 ? 1 : 2;
constexpr int keys_at = query_places * query_bytes, values_at = keys_at + stages * key_bytes;
constexpr int tiles_at = values_at + stages * key_bytes;  // whose queries are there
constexpr int barriers_at = tiles_at + query_places * 32;
constexpr int shared_bytes = barriers_at + query_places * 24 + stages * 32;
constexpr int threads = 128 * (GROUPS + 1);
extern __shared__ __align__(1024) u8 shared[];

struct Barriers {
    u32 base;
    __device__ __forceinline__ u32 keys_full(int i) const { return base + i * 32; }
    __device__ __forceinline__ u32 keys_free(int i) const { return base + i * 32 + 8; }
    __device__ __forceinline__ u32 values_full(int i) const { return base + i * 32 + 16; }
    __device__ __forceinline__ u32 values_free(int i) const { return base + i * 32 + 24; }
    __device__ __forceinline__ u32 queries_full(int i) const { return base + stages * 32 + i * 24; }
    __device__ __forceinline__ u32 queries_free(int i) const { return base + stages * 32 + i * 24 + 8; }
    __device__ __forceinline__ u32 tile_found(int i) const { return base + stages * 32 + i * 24 + 16; }
};

/// Place in a ring: stage and the parity of its turn.
template <int DEPTH> struct Turn {
    int stage = 0;
    u32 parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == DEPTH) {
            stage = 0;
            parity ^= 1;
        }
    }
};

__device__ __forceinline__ Tile* tile_at(int place) { return (Tile*)(shared + tiles_at + place * 32); }

/// Finds tiles, each where there is a place for its queries.
__device__ __forceinline__ void choose(const PrefillAttentionArguments& a, Barriers barriers) {
    Turn<query_places> query;
    Tiles tiles(a.task);
    // Each block asks once for more than there are: after that the count is zero again.
    const u32 count = tiles.count(), last = count + gridDim.x - 1;
    while (true) {
        Tile tile;
        u32 number = atomicInc(a.taken, last);
        while (number < count && !tiles.find(number, tile)) number = atomicInc(a.taken, last);
        if (number >= count) tile.block_count = 0;
        barrier_wait(barriers.queries_free(query.stage), query.parity ^ 1);
        *tile_at(query.stage) = tile;
        barrier_arrive(barriers.tile_found(query.stage));
        if (number >= count) return;
        query.next();
    }
}

/// Brings queries, then keys and values from the last block backwards, tile after tile.
__device__ __forceinline__ void produce(const PrefillAttentionArguments& a, Barriers barriers) {
    u32 base = shared_address(shared);
    Turn<query_places> query;
    Turn<stages> turn;
    while (true) {
        barrier_wait(barriers.tile_found(query.stage), query.parity);
        const Tile& tile = *tile_at(query.stage);
        const int block_count = tile.block_count;
        u32 full = barriers.queries_full(query.stage);
        if (block_count == 0) {
            barrier_arrive(full);
            return;
        }
        barrier_expect(full, query_bytes);
#pragma unroll 1
        for (int h = 0; h < boxes; ++h) {
            copy_box(base + query.stage * query_bytes + h * query_box, &a.q, tile.head * HEAD_DIM + h * 64,
                tile.first_row, full);
        }
        const int kv_head = tile.head / (HEADS / KV_HEADS);
        const int request = tile.request, last_block = tile.first_block + block_count - 1;
        const int length = a.task.pages.length[request], start = a.task.pages.start[request];
        for (int i = 0; i < block_count; ++i, turn.next()) {
            int rows[keys / 64];
            for (int b = 0; b < keys / 64; ++b) {
                int position = (last_block - i) * keys + b * 64;
                // Blocks without keys are masked; any page serves for them.
                if (position >= length) position = (length - 1) / 64 * 64;
                if (position < start / 64 * 64) position = start / 64 * 64;
                const u8* block = a.task.pages.block(request, position) + kv_head * (64 * HEAD_DIM * 2);
                rows[b] = (int)((block - a.task.pages.base) / (HEAD_DIM * 2));
            }
#pragma unroll 1
            for (int v = 0; v < 2; ++v) {
                u32 full = v ? barriers.values_full(turn.stage) : barriers.keys_full(turn.stage);
                barrier_wait(v ? barriers.values_free(turn.stage) : barriers.keys_free(turn.stage),
                    turn.parity ^ 1);
                barrier_expect(full, key_bytes);
                u32 target = base + (v ? values_at : keys_at) + turn.stage * key_bytes;
#pragma unroll 1
                for (int h = 0; h < boxes; ++h) {
                    for (int b = 0; b < keys / 64; ++b) {
                        copy_box(target + h * key_box + b * (64 * 128), &a.cache, h * 64,
                            rows[b] + v * KV_HEADS * 64, full);
                    }
                }
            }
        }
        query.next();
    }
}

__device__ __forceinline__ void scores(float (&s)[keys / 2], u32 queries, u32 key_matrix) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; ++k) {
        wgmma_matrices(s, swizzled_matrix(queries + k / 4 * query_box) + k % 4 * 2,
            swizzled_matrix(key_matrix + k / 4 * key_box) + k % 4 * 2, k > 0);
    }
    wgmma_commit();
}

__device__ __forceinline__ void gather(
    float (&o)[HEAD_DIM / 2], const u32 (&p)[keys / 16][4], u32 value_matrix, bool first) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < keys / 16; ++k) {
        wgmma_columns(o, p[k], swizzled_columns(value_matrix + k * 2048, key_box), !first || k > 0);
    }
    wgmma_commit();
}

/// What a warpgroup keeps from tile to tile, and one tile's work.
struct Consumer {
    const PrefillAttentionArguments& a;
    const Barriers barriers;
    const int group, thread, lane;
    Turn<query_places> query;
    Turn<stages> turn, before;  // of the keys, and of the values, which are read a block later

    __device__ __forceinline__ Consumer(const PrefillAttentionArguments& a, Barriers barriers, int group)
        : a(a), barriers(barriers), group(group), thread(threadIdx.x & 127), lane(threadIdx.x & 31) {}

    __device__ __forceinline__ void done(u32 barrier) const {
        if (thread == 0) barrier_arrive(barrier);
    }

    // The warpgroups' products take turns: those of one run beside the others' exponentials.
    __device__ __forceinline__ void await_turn() const { group_barrier(1 + GROUPS + group, 256); }
    __device__ __forceinline__ void pass_turn() const {
        int next = group + 1 < GROUPS ? group + 1 : 0;
        asm volatile("bar.arrive %0, 256;" ::"r"(1 + GROUPS + next) : "memory");
    }

    /// Values of the tile's last keys become zeros from a row on, by all warpgroups: what is no number there stays so
    /// times a probability of zero.
    __device__ __forceinline__ void clear(u32 values, int row) const {
        constexpr int vectors = boxes * 8;
        for (int i = row * vectors + group * 128 + thread; i < keys * vectors; i += GROUPS * 128) {
            u32 at = values + i % vectors / 8 * key_box + i / vectors * 128 + i % 8 * 16;
            asm volatile("st.shared.v4.u32 [%0], {%1,%1,%1,%1};" ::"r"(at), "r"(0) : "memory");
        }
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        group_barrier(1 + 2 * GROUPS, GROUPS * 128);
    }

    /// The next tile; false after the last one.
    __device__ __forceinline__ bool attend() {
        barrier_wait(barriers.queries_full(query.stage), query.parity);
        const Tile tile = *tile_at(query.stage);
        if (tile.block_count == 0) return false;
        const int length = a.task.pages.length[tile.request];
        const u32 base = shared_address(shared), keys_base = base + keys_at, values_base = base + values_at;
        const u32 queries = base + query.stage * query_bytes + group * 64 * 128;
        const int first_position = tile.first_position + group * 64;
        const int position = first_position + (thread >> 5) * 16 + (lane >> 2);
        const float scale = a.task.scale * log2_e;
        const float slope = ALIBI ? a.task.slopes[tile.head] / a.task.scale : 0.0f;
        float s[keys / 2], o[HEAD_DIM / 2], factor[2];
        u32 p[keys / 16][4];
        Softmax softmax;
        int key = (tile.first_block + tile.block_count - 1) * keys;

        auto shape = [&]() {
            bool masked =
                key + keys > first_position + 1 || (WINDOW > 0 && key <= first_position + 63 - WINDOW);
            if (masked || SOFT_CAP || ALIBI) shape_scores(a.task, s, slope, key + (lane & 3) * 2, position, masked);
        };
        barrier_wait(barriers.keys_full(turn.stage), turn.parity);
        scores(s, queries, keys_base + turn.stage * key_bytes);
        wgmma_wait<0>();
        done(barriers.keys_free(turn.stage));
        turn.next();
        shape();
        softmax.step(s, factor, scale);
        probabilities(p, s);
        if (key + keys > length) {
            barrier_wait(barriers.values_full(before.stage), before.parity);
            clear(values_base + before.stage * key_bytes, length - key);
        }
#pragma unroll 1
        for (int i = 1; i < tile.block_count; ++i) {
            key -= keys;
            barrier_wait(barriers.keys_full(turn.stage), turn.parity);
            await_turn();
            scores(s, queries, keys_base + turn.stage * key_bytes);
            barrier_wait(barriers.values_full(before.stage), before.parity);
            gather(o, p, values_base + before.stage * key_bytes, i == 1);
            pass_turn();
            wgmma_wait<1>();
            done(barriers.keys_free(turn.stage));
            turn.next();
            shape();
            softmax.step(s, factor, scale);
            wgmma_wait<0>();
            done(barriers.values_free(before.stage));
            before.next();
#pragma unroll
            for (int j = 0; j < HEAD_DIM / 8; ++j) {
                o[4 * j] *= factor[0], o[4 * j + 1] *= factor[0];
                o[4 * j + 2] *= factor[1], o[4 * j + 3] *= factor[1];
            }
            probabilities(p, s);
        }
        barrier_wait(barriers.values_full(before.stage), before.parity);
        gather(o, p, values_base + before.stage * key_bytes, tile.block_count == 1);
        wgmma_wait<0>();
        done(barriers.values_free(before.stage));
        before.next();
        leave(tile, o, softmax, queries);
        query.next();
        return true;
    }

    /// Rows leave through shared memory, whole ones at a time: they take the queries' place, swizzled alike.
    __device__ __forceinline__ void leave(
        const Tile& tile, float (&o)[HEAD_DIM / 2], const Softmax& softmax, u32 queries) {
        const int warp = thread >> 5;
        float factor[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float total = softmax.sum[r];
            total += __shfl_xor_sync(~0u, total, 1);
            total += __shfl_xor_sync(~0u, total, 2);
            factor[r] = total > 0 ? 1.0f / total : 0.0f;
        }
        auto place = [&](int row, int vector) {
            return queries + vector / 8 * query_box + (warp * 16 + row) * 128 + (vector % 8 ^ row % 8) * 16;
        };
        group_barrier(1 + group, 128);  // all have read their queries
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; ++j) {
            u32 low = place(lane >> 2, j) + (lane & 3) * 4;
            shared_put(low, pack_pair<ACTIVATION>(o[4 * j] * factor[0], o[4 * j + 1] * factor[0]));
            shared_put(low + 8 * 128, pack_pair<ACTIVATION>(o[4 * j + 2] * factor[1], o[4 * j + 3] * factor[1]));
        }
        __syncwarp();
        constexpr int vectors = HEAD_DIM / 8;
#pragma unroll
        for (int i = 0; i < 16 * vectors / 32; ++i) {
            int index = i * 32 + lane, row = index / vectors, column = index % vectors;
            int tile_row = group * 64 + warp * 16 + row;
            Word v = shared_word(place(row, column));
            if (tile_row < tile.row_count) {
                u8* target = (u8*)a.task.y.base
                    + ((i64)(tile.first_row + tile_row) * a.task.y.stride + tile.head * HEAD_DIM) * 2 + column * 16;
                asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(target), "r"(v.x), "r"(v.y),
                    "r"(v.z), "r"(v.w) : "memory");
            }
        }
        // The copy engine writes there next.
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        barrier_arrive(barriers.queries_free(query.stage));
    }
};
}  // namespace

/// Shared memory, threads and rows of a tile.
extern "C" __device__ const u32 attention_prefill_launch[3] = {shared_bytes, threads, tile_rows};

extern "C" __global__ void __launch_bounds__(threads, 1)
    attention_prefill(const __grid_constant__ PrefillAttentionArguments a) {
    Barriers barriers{shared_address(shared) + barriers_at};
    if (threadIdx.x == 0) {
        for (int i = 0; i < query_places; ++i) {
            barrier_init(barriers.queries_full(i), 1);
            barrier_init(barriers.queries_free(i), GROUPS * 128);
            barrier_init(barriers.tile_found(i), 1);
        }
        for (int i = 0; i < stages; ++i) {
            barrier_init(barriers.keys_full(i), 1);
            barrier_init(barriers.keys_free(i), GROUPS);
            barrier_init(barriers.values_full(i), 1);
            barrier_init(barriers.values_free(i), GROUPS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    wait_for_producers();
    // The attention of answers runs beside: it waits for nothing, as its queries and keys are there too.
    release_dependents();
    int group = threadIdx.x >> 7;
    if (group == 0) {
        give_registers<GROUPS == 3 ? 32 : 40>();
        if (threadIdx.x == 0) produce(a, barriers);
        if (threadIdx.x == 32) choose(a, barriers);
    } else {
        take_registers<GROUPS == 3 ? 160 : 232>();
        Consumer consumer(a, barriers, group - 1);
        if (group == GROUPS) consumer.pass_turn();
        while (consumer.attend()) {
        }
    }
}
