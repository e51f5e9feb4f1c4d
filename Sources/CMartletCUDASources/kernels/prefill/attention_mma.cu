// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// attention_prefill_mma: y = softmax(q k^T scale) v over packed sequences and paged keys and values, with the
// matrix instructions of single warps: GPUs before sm_90, and heads that attention_prefill does not take.
//
// FLOP 4 D per query, key and head that see each other; floor: FLOP / rate of large bf16 products (G), of which
// these instructions reach 62 % on an H100.
// A block computes one tile of WARPS x ROW_TILES x 16 rows. Keys and values of the next KEYS positions come by
// cp.async while the present ones are multiplied, one barrier a turn; keys from the diagonal backwards. Rows in
// shared memory are 16 bytes apart beyond their length, so that ldmatrix meets every bank once. q is rotated
// and keys and values are in their pages already.
// Numerics: f32 scores and sums; probabilities are rounded to q's type.
//
//   ACTIVATION               type of q, keys, values and y: f16 or bf16
//   HEAD_DIM                 a multiple of 16 up to 256
//   HEADS KV_HEADS           N and K
//   WARPS ROW_TILES KEYS     warps of a block; 16 rows each in a warp; positions of a turn: 32 or 64
//   WINDOW SOFT_CAP ALIBI    keys seen, 0 for all; 0 or 1; 0 or 1
#include "attention_tiles.cuh"
#include "ampere.cuh"

struct PrefillAttentionArguments {
    Rows q;                  // [T, N D]
    AttentionTask task;
};

namespace {
constexpr int threads = WARPS * 32, vectors = HEAD_DIM / 8, slices = HEAD_DIM / 16;
constexpr int pitch = HEAD_DIM * 2 + 16, matrix_bytes = keys * pitch;
constexpr int stage_bytes = 2 * matrix_bytes;  // keys, then values
constexpr int queries_at = 2 * stage_bytes;
constexpr int shared_bytes = queries_at + tile_rows * pitch;
constexpr bool holds_queries = ROW_TILES == 1 && HEAD_DIM <= 128;
extern __shared__ __align__(128) u8 shared[];

/// Asks for keys and values of a block of positions; those that the tile does not see become zeros.
__device__ __forceinline__ void ask(const AttentionTask& a, const Tile& tile, int block, u32 target) {
    const int first = block * keys, start = a.pages.start[tile.request];
    const int end = tile.first_position + tile.row_count;
    const u8* source = a.pages.block(tile.request, max(first, start))
        + (i64)(tile.head / (HEADS / KV_HEADS) * 64 + first % 64) * (HEAD_DIM * 2);
    constexpr int count = keys * vectors;
#pragma unroll 2
    for (int n = 0; n < (count + threads - 1) / threads; ++n) {
        int i = n * threads + threadIdx.x, row = i / vectors, vector = i % vectors;
        if (count % threads != 0 && i >= count) break;
        bool is_seen = first + row >= start && first + row < end;
        const u8* from = source + i * 16;
        u32 to = target + row * pitch + vector * 16;
        copy_or_clear(to, is_seen ? from : a.pages.base, is_seen);
        copy_or_clear(to + matrix_bytes, is_seen ? from + KV_HEADS * 64 * HEAD_DIM * 2 : a.pages.base, is_seen);
    }
}

/// Asks for the tile's queries; rows past its end become zeros.
__device__ __forceinline__ void ask_queries(const PrefillAttentionArguments& a, const Tile& tile, u32 target) {
    constexpr int count = tile_rows * vectors;
#pragma unroll 4
    for (int n = 0; n < (count + threads - 1) / threads; ++n) {
        int i = n * threads + threadIdx.x, row = i / vectors, vector = i % vectors;
        if (count % threads != 0 && i >= count) break;
        const u16* from = (const u16*)a.q.base + (tile.first_row + row) * a.q.stride + tile.head * HEAD_DIM;
        bool is_there = row < tile.row_count;
        copy_or_clear(target + row * pitch + vector * 16, is_there ? from + vector * 8 : a.q.base, is_there);
    }
}

/// A warp's rows of a tile.
struct Rows16 {
    const PrefillAttentionArguments& a;
    const Tile& tile;
    const int warp, lane;
    u32 queries;  // this lane's address for ldmatrix
    u32 held[holds_queries ? slices : 1][4];
    float o[ROW_TILES][HEAD_DIM / 2];
    Softmax softmax[ROW_TILES];

    __device__ __forceinline__ Rows16(const PrefillAttentionArguments& a, const Tile& tile)
        : a(a), tile(tile), warp(warp_index()), lane(lane_index()) {
        queries = shared_address(shared) + queries_at + (warp * ROW_TILES * 16 + (lane & 15)) * pitch
            + (lane >> 4) * 16;
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 2; ++i) o[m][i] = 0;
        }
    }

    __device__ __forceinline__ void hold() {
#pragma unroll
        for (int k = 0; k < (holds_queries ? slices : 0); ++k) load_matrices(held[k], queries + k * 32);
    }

    /// Keys and values of one block.
    __device__ __forceinline__ void attend(int block, u32 stage, float slope) {
        const float scale = a.task.scale * log2_e;
        float s[ROW_TILES][keys / 2];
        score(s, stage);
        const int key = block * keys, first = tile.first_position + warp * ROW_TILES * 16;
        float factor[ROW_TILES][2];
        u32 p[ROW_TILES][keys / 16][4];
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
            int row = first + m * 16;
            bool masked = key + keys > row + 1 || (WINDOW > 0 && key <= row + 15 - WINDOW);
            if (masked || SOFT_CAP || ALIBI) {
                shape_scores(a.task, s[m], slope, key + (lane & 3) * 2, row + (lane >> 2), masked);
            }
            softmax[m].step(s[m], factor[m], scale);
            probabilities(p[m], s[m]);
#pragma unroll
            for (int j = 0; j < HEAD_DIM / 8; ++j) {
                o[m][4 * j] *= factor[m][0], o[m][4 * j + 1] *= factor[m][0];
                o[m][4 * j + 2] *= factor[m][1], o[m][4 * j + 3] *= factor[m][1];
            }
        }
        gather(p, stage + matrix_bytes);
    }

    __device__ __forceinline__ void score(float (&s)[ROW_TILES][keys / 2], u32 stage) {
        // Rows of keys are columns of the product: 16 of them and 16 k, lanes 8 to 15 and 24 to 31 the later k.
        const u32 own = stage + ((lane >> 4) * 8 + (lane & 7)) * pitch + (lane >> 3 & 1) * 16;
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
#pragma unroll
            for (int i = 0; i < keys / 2; ++i) s[m][i] = 0;
        }
#pragma unroll
        for (int k = 0; k < slices; ++k) {
            u32 q[ROW_TILES][4];
#pragma unroll
            for (int m = 0; m < ROW_TILES; ++m) {
                if (holds_queries) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) q[m][i] = held[holds_queries ? k : 0][i];
                } else {
                    load_matrices(q[m], queries + m * 16 * pitch + k * 32);
                }
            }
#pragma unroll
            for (int n = 0; n < keys / 16; ++n) {
                u32 b[4];
                load_matrices(b, own + n * 16 * pitch + k * 32);
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m) {
                    multiply(&s[m][8 * n], q[m], b[0], b[1]);
                    multiply(&s[m][8 * n + 4], q[m], b[2], b[3]);
                }
            }
        }
    }

    __device__ __forceinline__ void gather(const u32 (&p)[ROW_TILES][keys / 16][4], u32 values) {
        const u32 own = values + (lane & 15) * pitch + (lane >> 4) * 16;
#pragma unroll
        for (int k = 0; k < keys / 16; ++k) {
#pragma unroll
            for (int n = 0; n < slices; ++n) {
                u32 b[4];
                load_transposed(b, own + k * 16 * pitch + n * 32);
#pragma unroll
                for (int m = 0; m < ROW_TILES; ++m) {
                    multiply(&o[m][8 * n], p[m][k], b[0], b[1]);
                    multiply(&o[m][8 * n + 4], p[m][k], b[2], b[3]);
                }
            }
        }
    }

    static __device__ __forceinline__ void multiply(float* c, const u32 (&x)[4], u32 b0, u32 b1) {
        mma<ACTIVATION>(*(float(*)[4])c, x[0], x[1], x[2], x[3], b0, b1);
    }

    /// Rows leave through the place of their queries, whole ones at a time.
    __device__ __forceinline__ void leave() {
        const u32 own = shared_address(shared) + queries_at + warp * ROW_TILES * 16 * pitch;
        __syncwarp();  // all lanes have read the queries
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m) {
            float factor[2];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float total = softmax[m].sum[r];
                total += __shfl_xor_sync(~0u, total, 1);
                total += __shfl_xor_sync(~0u, total, 2);
                factor[r] = total > 0 ? 1.0f / total : 0.0f;
            }
            const u32 at = own + (m * 16 + (lane >> 2)) * pitch + (lane & 3) * 4;
#pragma unroll
            for (int j = 0; j < HEAD_DIM / 8; ++j) {
                float* x = &o[m][4 * j];
                shared_put(at + j * 16, pack_pair<ACTIVATION>(x[0] * factor[0], x[1] * factor[0]));
                shared_put(at + 8 * pitch + j * 16, pack_pair<ACTIVATION>(x[2] * factor[1], x[3] * factor[1]));
            }
        }
        __syncwarp();
        constexpr int count = ROW_TILES * 16 * vectors;
#pragma unroll
        for (int i = 0; i < count / 32; ++i) {
            int index = i * 32 + lane, row = index / vectors, vector = index % vectors;
            int tile_row = warp * ROW_TILES * 16 + row;
            if (tile_row >= tile.row_count) continue;
            Word v = shared_word(own + row * pitch + vector * 16);
            u16* target = (u16*)a.task.y.base + (tile.first_row + tile_row) * a.task.y.stride
                + tile.head * HEAD_DIM + vector * 8;
            *(Word*)target = v;
        }
    }
};
}  // namespace

/// Shared memory, threads and rows of a tile.
extern "C" __device__ const u32 attention_prefill_mma_launch[3] = {shared_bytes, threads, tile_rows};

extern "C" __global__ void __launch_bounds__(threads)
    attention_prefill_mma(const __grid_constant__ PrefillAttentionArguments a) {
    wait_for_producers();
    // Not before: the attention of answers behind counts on it, as behind attention_prefill.
    release_dependents();
    Tiles tiles(a.task);
    Tile tile;
    if ((int)blockIdx.x >= tiles.count() || !tiles.find(blockIdx.x, tile)) return;
    const u32 base = shared_address(shared);
    const float slope = ALIBI ? a.task.slopes[tile.head] / a.task.scale : 0.0f;
    int block = tile.first_block + tile.block_count - 1;
    ask_queries(a, tile, base + queries_at);
    ask(a.task, tile, block, base);
    copies_commit();
    Rows16 rows(a, tile);
    for (int i = 0; i < tile.block_count; ++i, --block) {
        copies_wait<0>();
        __syncthreads();  // these are here, and all have read the ones before, whose place is asked for now
        if (i + 1 < tile.block_count) ask(a.task, tile, block - 1, base + (i + 1 & 1) * stage_bytes);
        copies_commit();
        if (i == 0) rows.hold();
        rows.attend(block, base + (i & 1) * stage_bytes, slope);
    }
    rows.leave();
}
