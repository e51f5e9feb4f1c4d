// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// attention_decode: RoPE, KV write and paged attention of one new token per request.
//
// Bytes: the request's keys and values once per 8 (or 16) query heads that share them; floor: these / copy
// bandwidth (C). Measured on an H100 80GB, D 128, 64 x 512, 8 x 4,096 and 1 x 32,768 positions: MHA 91, 93
// and 91 % of C, 4 query heads to a kv head 87, 83 and 83 %, MQA 43, 29 and 16 %, each with the best of 4 to 6
// choices of warps and blocks (scripts/kernel-lab/bench_attention.py); 4 warps and 3 blocks: MHA 91, 90, 90 %.
// Grid: splits x (kv heads x head tiles) x tokens. A warp takes 16 positions at a time: keys and values come
// straight from memory into the registers of the matrix instruction (head dimensions permuted, so that every
// load is 16 bytes wide), S^T = K Q^T and O^T = V^T P^T, online softmax in f32. The first 16 positions are on
// their way before the kernel waits for its producers; so the step record and the cache's earlier positions
// must be complete when the first kernel of a chain of dependent ones begins. Warps are combined in shared
// memory; where a context is long enough for several splits, the last of them to finish combines all.
// A request's result depends on its own length and the constants only. Numerics: q, k, v and the
// probabilities are rounded to KV's type, sums in f32.
//
//   ACTIVATION KV            types of q, k, v, y; of the cache: f16 or bf16
//   HEAD_DIM GROUP           D, a multiple of 16; query heads per kv head
//   TILES WARPS BLOCKS       8 heads each in a block (1 or 2); warps; blocks per multiprocessor
//   SPLITS SPLIT_UNITS       most splits; least units of 16 positions in one
//   PAGE IDENTITY            tokens of a page, a multiple of 64; 1: row r belongs to request r
//   ROTARY                   0; 1: pairs (i, i + pairs); 2: pairs (2i, 2i + 1); a multiple of 8 pairs
//   WINDOW ALIBI SOFT_CAP    0 or 1
#include "mma.cuh"

/// Cosines and sines by position, [positions][pairs].
struct RotaryTable {
    const float* cosines;
    const float* sines;
    i32 pairs, reserved;
};

struct DecodeAttentionArguments {
    const StepCounts* step;
    const i32* positions;  // [T]
    const i32* requests;   // [T]
    Rows q, k, v, y;
    RotaryTable rotation;
    KVPages kv;
    const float* slopes;   // [heads]
    float* partials;       // [T][heads][SPLITS][D + 2]: sums, greatest score, total
    u32* counters;         // [T][kv heads x head tiles], zero before and after
    i64 next_layer;        // bytes to the next layer's blocks: each warp asks the second cache for its
                           // first 16 positions there; 0 for none
    i32 window;
    float scale, soft_cap;
    i32 reserved;
#ifdef TRACE
    u64* trace;
#endif
};

namespace {
constexpr int threads = WARPS * 32;
constexpr int tile_heads = GROUP < 8 * TILES ? GROUP : 8 * TILES;  // heads of a block
constexpr int head_tiles = (GROUP + 8 * TILES - 1) / (8 * TILES);
constexpr int key_words = (HEAD_DIM + 31) / 32;                    // 16-byte words of a lane per key
constexpr int value_words = (HEAD_DIM + 63) / 64;
constexpr int padded = key_words * 32;
constexpr int query_bytes = padded * 2 + (padded * 2 % 128 == 0 ? 64 : 0);  // rows on different banks
constexpr int new_at = 8 * TILES * query_bytes;                    // the new key, then the new value
constexpr int new_bytes = value_words * 128;
constexpr int parts_at = new_at + 2 * new_bytes;                   // [WARPS][heads][D + 2]
constexpr int part_stride = HEAD_DIM + 2;
constexpr int parts_bytes = WARPS * tile_heads * part_stride * 4, factor_bytes = tile_heads * SPLITS * 4;
constexpr int shared_bytes = parts_at + (parts_bytes > factor_bytes ? parts_bytes : factor_bytes);
constexpr float log2e = 1.4426950408889634f;
extern __shared__ __align__(128) u8 shared[];
static_assert(HEAD_DIM % 16 == 0 && HEAD_DIM <= 256, "head dimensions are multiples of 16 up to 256");

__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ Word nothing() { return Word{0, 0, 0, 0}; }

struct Attention {
    const DecodeAttentionArguments& a;
    int row, request, position, end, start, kv_head, head;  // head: the block's first query head
    int first_column, pages;  // page that holds position 0 of the table's row; lane's entry of the row
    int tokens;
    int lane, g, t;
    Word keys[2][key_words], values[4][value_words];
    float sums[value_words][4][TILES][4], greatest[TILES][2], total[TILES][2];

    __device__ __forceinline__ Attention(const DecodeAttentionArguments& a)
        : a(a), row(blockIdx.z), lane(lane_index()), g(lane_index() >> 2), t(lane_index() & 3) {
        // All at once: the loads of keys and values depend on them, and each costs a round trip.
        request = IDENTITY ? row : a.requests[row];
        const i32* table = a.kv.table + (i64)request * a.kv.table_columns;
        tokens = a.step->tokens;
        position = a.positions[row];
        first_column = a.kv.start[request];
        pages = lane < a.kv.table_columns ? table[lane] : 0;
        first_column /= PAGE;
        end = position + 1;
        start = WINDOW && a.window > 0 ? max(end - a.window, 0) : 0;
        kv_head = blockIdx.y / head_tiles;
        head = kv_head * GROUP + blockIdx.y % head_tiles * tile_heads;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            greatest[i][0] = greatest[i][1] = -MARTLET_INFINITY;
            total[i][0] = total[i][1] = 0;
#pragma unroll
            for (int h = 0; h < value_words; ++h) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
#pragma unroll
                    for (int c = 0; c < 4; ++c) sums[h][j][i][c] = 0;
                }
            }
        }
    }

    /// First byte of this head's keys of the block of 64 that holds a unit.
    __device__ __forceinline__ const u16* block_of(int unit) const {
        int from = unit * 16;
        int column = from / PAGE - first_column;
        int page = __shfl_sync(~0u, pages, column & 31);
        if (column >= 32) page = a.kv.table[(i64)request * a.kv.table_columns + column];
        const u8* base = a.kv.base + page * a.kv.page_bytes + from % PAGE / 64 * a.kv.block_bytes
            + a.kv.layer_offset;
        return (const u16*)base + (i64)kv_head * 64 * HEAD_DIM;
    }
    __device__ __forceinline__ i64 plane() const { return (i64)a.kv.kv_heads * 64 * HEAD_DIM; }

    __device__ __forceinline__ void load_keys(const u16* block, int unit) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const u16* p = block + (unit % 4 * 16 + h * 8 + g) * HEAD_DIM;
#pragma unroll
            for (int j = 0; j < key_words; ++j) {
                int d = j * 32 + t * 8;
                keys[h][j] = HEAD_DIM % 32 == 0 || d < HEAD_DIM ? load_once(p + d) : nothing();
            }
        }
    }
    /// Positions 2t, 2t + 1, 2t + 8, 2t + 9 of the unit.
    static __device__ __forceinline__ int value_row(int i, int t) { return 2 * t + (i & 1) + (i & 2) * 4; }
    __device__ __forceinline__ void load_values(const u16* block, int unit) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u16* p = block + plane() + (unit % 4 * 16 + value_row(i, t)) * HEAD_DIM;
#pragma unroll
            for (int h = 0; h < value_words; ++h) {
                int d = h * 64 + g * 8;
                values[i][h] = HEAD_DIM % 64 == 0 || d < HEAD_DIM ? load_once(p + d) : nothing();
            }
        }
    }

    /// Two runs of 8 elements that are rotated together, of a query head, the new key or the new value.
    struct Item {
        static constexpr int runs = padded / 16;
        static constexpr int count = (tile_heads + 2) * runs;
        int which, first, second;
        float cosines[8], sines[8];

        __device__ __forceinline__ Item(const Attention& of, int item) {
            const RotaryTable& table = of.a.rotation;
            which = item / runs;
            int run = item % runs;
            first = run * 16;
            second = first + 8;
            const bool rotates = ROTARY && which <= tile_heads && run * 8 < table.pairs;
            if (rotates && ROTARY == 1) {
                first = run * 8;
                second = first + table.pairs;
            }
            i64 at = (i64)of.position * table.pairs + run * 8;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                cosines[i] = rotates ? __ldg(table.cosines + at + i) : 1;
                sines[i] = rotates ? __ldg(table.sines + at + i) : 0;
            }
        }
        static __device__ __forceinline__ void turn(float& x, float& y, float cosine, float sine) {
            float turned = x * cosine - y * sine;
            y = y * cosine + x * sine;
            x = turned;
        }
        static __device__ __forceinline__ void floats(const Word& v, float (&x)[8]) {
            const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[2 * i] = low_half<ACTIVATION>(words[i]);
                x[2 * i + 1] = high_half<ACTIVATION>(words[i]);
            }
        }
        static __device__ __forceinline__ Word packed(const float (&x)[8]) {
            return Word{pack_pair<KV>(x[0], x[1]), pack_pair<KV>(x[2], x[3]), pack_pair<KV>(x[4], x[5]),
                        pack_pair<KV>(x[6], x[7])};
        }
        /// Rotated and rounded into shared memory; the new key and value into the cache too.
        __device__ __forceinline__ void run(const Attention& of, u16* block) const {
            const auto& a = of.a;
            bool is_there = which >= tile_heads || blockIdx.y % head_tiles * tile_heads + which < GROUP;
            const Rows& source = which < tile_heads ? a.q : which == tile_heads ? a.k : a.v;
            i64 column = (i64)(which < tile_heads ? of.head + which : of.kv_head) * HEAD_DIM;
            const u16* p = (const u16*)source.base + of.row * source.stride + column;
            float x[8], y[8];
            floats(is_there && first < HEAD_DIM ? load_fresh(p + first) : nothing(), x);
            floats(is_there && second < HEAD_DIM ? load_fresh(p + second) : nothing(), y);
            if (ROTARY == 1) {
#pragma unroll
                for (int i = 0; i < 8; ++i) turn(x[i], y[i], cosines[i], sines[i]);
            } else if (ROTARY == 2) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    turn(x[2 * i], x[2 * i + 1], cosines[i], sines[i]);
                    turn(y[2 * i], y[2 * i + 1], cosines[i + 4], sines[i + 4]);
                }
            }
            Word u = packed(x), v = packed(y);
            u16* place = (u16*)(shared + (which < tile_heads ? which * query_bytes
                                                             : new_at + (which - tile_heads) * new_bytes));
            *(Word*)(place + first) = u;
            *(Word*)(place + second) = v;
            if (block && which >= tile_heads) {
                u16* to = block + (which - tile_heads) * of.plane();
                if (first < HEAD_DIM) *(Word*)(to + first) = u;
                if (second < HEAD_DIM) *(Word*)(to + second) = v;
            }
        }
    };

    /// The new token's key and value are not read from the cache; positions out of range become zeros.
    __device__ __forceinline__ void mend_keys(int unit) {
        if (unit != position / 16) return;
        u32 at = shared_address(shared) + new_at + t * 16;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (unit * 16 + h * 8 + g != position) continue;
#pragma unroll
            for (int j = 0; j < key_words; ++j) keys[h][j] = shared_word(at + j * 64);
        }
    }
    __device__ __forceinline__ void mend_values(int unit) {
        if (unit != position / 16 && unit * 16 >= start) return;
        u32 at = shared_address(shared) + new_at + new_bytes + g * 16;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int p = unit * 16 + value_row(i, t);
#pragma unroll
            for (int h = 0; h < value_words; ++h) {
                if (p == position && h * 64 + g * 8 < HEAD_DIM) {
                    values[i][h] = shared_word(at + h * 128);
                } else if (p >= end || p < start) {
                    values[i][h] = nothing();
                }
            }
        }
    }

    /// Scores of 16 positions: (position g, head 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
    __device__ __forceinline__ void score(int unit, float (&s)[TILES][4]) {
        u32 queries = shared_address(shared) + t * 16;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            int h = i * 8 + g;
            u32 q = queries + (h < tile_heads ? h : 0) * query_bytes;
            float even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0};
#pragma unroll
            for (int j = 0; j < key_words; ++j) {
                Word x = shared_word(q + j * 64);
                mma<KV>(even, keys[0][j].x, keys[1][j].x, keys[0][j].y, keys[1][j].y, x.x, x.y);
                mma<KV>(odd, keys[0][j].z, keys[1][j].z, keys[0][j].w, keys[1][j].w, x.z, x.w);
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                int p = unit * 16 + g + (c & 2) * 4;
                float x = (even[c] + odd[c]) * a.scale;
                if (SOFT_CAP) x = a.soft_cap * (1 - 2 / (1 + __expf(2 / a.soft_cap * x)));
                if (ALIBI) {
                    int of = min(blockIdx.y % head_tiles * tile_heads + i * 8 + 2 * t + (c & 1), GROUP - 1);
                    x = fmaf(__ldg(a.slopes + kv_head * GROUP + of), (float)(p - position), x);
                }
                s[i][c] = p < end && p >= start ? x * log2e : -MARTLET_INFINITY;
            }
        }
    }

    /// Scores become probabilities against the running maximum; what was summed before is rescaled.
    __device__ __forceinline__ void soften(float (&s)[TILES][4]) {
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            float factor[2];
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                float top = fmaxf(s[i][c], s[i][c + 2]);
#pragma unroll
                for (int offset = 4; offset < 32; offset <<= 1) {
                    top = fmaxf(top, __shfl_xor_sync(~0u, top, offset));
                }
                float next = fmaxf(greatest[i][c], top);
                float base = next == -MARTLET_INFINITY ? 0 : next;
                factor[c] = power_of_two(greatest[i][c] - base);
                greatest[i][c] = next;
                s[i][c] = power_of_two(s[i][c] - base);
                s[i][c + 2] = power_of_two(s[i][c + 2] - base);
                total[i][c] = fmaf(total[i][c], factor[c], s[i][c] + s[i][c + 2]);
            }
            if (__any_sync(~0u, factor[0] != 1 || factor[1] != 1)) {
#pragma unroll
                for (int h = 0; h < value_words; ++h) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
#pragma unroll
                        for (int c = 0; c < 4; ++c) sums[h][j][i][c] *= factor[c & 1];
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void add_values(const float (&s)[TILES][4]) {
        u32 p[TILES][2];
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            p[i][0] = transpose(pack_pair<KV>(s[i][0], s[i][1]));
            p[i][1] = transpose(pack_pair<KV>(s[i][2], s[i][3]));
        }
#pragma unroll
        for (int h = 0; h < value_words; ++h) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                u32 v[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const Word& w = values[i][h];
                    v[i] = j == 0 ? w.x : j == 1 ? w.y : j == 2 ? w.z : w.w;
                }
                u32 a0 = __byte_perm(v[0], v[1], 0x5410), a1 = __byte_perm(v[0], v[1], 0x7632);
                u32 a2 = __byte_perm(v[2], v[3], 0x5410), a3 = __byte_perm(v[2], v[3], 0x7632);
#pragma unroll
                for (int i = 0; i < TILES; ++i) mma<KV>(sums[h][j][i], a0, a1, a2, a3, p[i][0], p[i][1]);
            }
        }
    }

    /// This warp's sums into shared memory.
    __device__ __forceinline__ void leave() {
        float* parts = (float*)(shared + parts_at) + warp_index() * tile_heads * part_stride;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                float sum = total[i][c];
#pragma unroll
                for (int offset = 4; offset < 32; offset <<= 1) sum += __shfl_xor_sync(~0u, sum, offset);
                int h = i * 8 + 2 * t + c;
                if (h >= tile_heads) continue;
                float* part = parts + h * part_stride;
                if (g == 0) {
                    part[HEAD_DIM] = greatest[i][c];
                    part[HEAD_DIM + 1] = sum;
                }
#pragma unroll
                for (int w = 0; w < value_words; ++w) {
                    int d = w * 64 + g * 8;
                    if (d >= HEAD_DIM) continue;
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        part[d + 2 * j] = sums[w][j][i][c];
                        part[d + 2 * j + 1] = sums[w][j][i][c + 2];
                    }
                }
            }
        }
    }
};

/// Sum, greatest score and total of `count` parts of one head, `stride` floats apart, for dimension d.
struct Combined {
    float sum, greatest, total;
    template <typename Load>
    __device__ __forceinline__ Combined(int d, int count, i64 stride, Load at) {
        greatest = -MARTLET_INFINITY;
        for (int i = 0; i < count; ++i) greatest = fmaxf(greatest, at(i * stride + HEAD_DIM));
        float base = greatest == -MARTLET_INFINITY ? 0 : greatest;
        sum = total = 0;
        for (int i = 0; i < count; ++i) {
            float factor = power_of_two(at(i * stride + HEAD_DIM) - base);
            sum = fmaf(factor, at(i * stride + d), sum);
            total = fmaf(factor, at(i * stride + HEAD_DIM + 1), total);
        }
    }
};
}  // namespace

/// Bytes of shared memory, threads, head tiles of a kv head, splits.
extern "C" __device__ const u32 attention_decode_launch[4] = {
    shared_bytes, threads, head_tiles, SPLITS};

MARTLET_KERNEL __launch_bounds__(threads, BLOCKS)
    attention_decode(const __grid_constant__ DecodeAttentionArguments a) {
    MARTLET_TRACE(0);
    Attention work(a);
    int splits = 0, from = 0, to = 0;
    const int split = blockIdx.x;
    if (work.row < work.tokens) {
        int first = work.start / 16;
        int units = (work.end + 15) / 16 - first;
        splits = min(max(units / SPLIT_UNITS, 1), SPLITS);
        int each = (units + splits - 1) / splits;
        splits = (units + each - 1) / each;
        from = first + split * each;
        to = min(from + each, first + units);
    }
    if (split >= splits) {
        release_dependents();
        wait_for_producers();
        return;
    }
    int unit = from + warp_index();
    const u16* first_block = nullptr;
    if (unit < to) {
        first_block = work.block_of(unit);
        work.load_keys(first_block, unit);
        work.load_values(first_block, unit);
    }
    u16* to_block = nullptr;  // where the new key goes
    if (split == splits - 1 && blockIdx.y % head_tiles == 0) {
        to_block = (u16*)work.block_of(work.position / 16) + work.position % 64 * HEAD_DIM;
    }
    // Where registers suffice, the first item's angles are read before the kernel waits.
    constexpr bool angles_early = WARPS * BLOCKS < 16;
    Attention::Item item(work, angles_early ? threadIdx.x : Attention::Item::count);
    // Only now: the next kernel's loads of weights would stand in front of this one's keys.
    release_dependents();
    MARTLET_TRACE(1);
    wait_for_producers();
    MARTLET_TRACE(2);
    if (angles_early && threadIdx.x < Attention::Item::count) item.run(work, to_block);
    for (int i = threadIdx.x + angles_early * threads; i < Attention::Item::count; i += threads) {
        Attention::Item(work, i).run(work, to_block);
    }
    __syncthreads();
    MARTLET_TRACE(3);
#if __CUDA_ARCH__ >= 900
    if (a.next_layer && unit < to && work.lane == 0) {
        const u16* keys = first_block + a.next_layer / 2 + unit % 4 * 16 * HEAD_DIM;
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(keys), "n"(32 * HEAD_DIM) : "memory");
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(keys + work.plane()),
                     "n"(32 * HEAD_DIM) : "memory");
    }
#endif
    while (unit < to) {
        int next = unit + WARPS;
        const u16* block = work.block_of(next < to ? next : unit);
        float s[TILES][4];
        work.mend_keys(unit);
        work.score(unit, s);
        if (next < to) work.load_keys(block, next);
        work.soften(s);
        work.mend_values(unit);
        work.add_values(s);
        if (next < to) work.load_values(block, next);
        unit = next;
    }
    work.leave();
    __syncthreads();
    MARTLET_TRACE(4);
    const float* parts = (const float*)(shared + parts_at);
    const i64 heads = (i64)a.kv.kv_heads * GROUP;
    float* mine = a.partials + ((work.row * heads + work.head) * SPLITS) * part_stride;
    for (int e = threadIdx.x; e < tile_heads * HEAD_DIM; e += threads) {
        int h = e / HEAD_DIM, d = e % HEAD_DIM;
        if (blockIdx.y % head_tiles * tile_heads + h >= GROUP) continue;
        Combined c(d, WARPS, tile_heads * part_stride, [&](i64 i) { return parts[h * part_stride + i]; });
        if (splits == 1) {
            a.y.put<ACTIVATION>(work.row, (i64)(work.head + h) * HEAD_DIM + d, c.sum / c.total);
        } else {
            float* part = mine + (h * SPLITS + split) * part_stride;
            part[d] = c.sum;
            if (d == 0) {
                part[HEAD_DIM] = c.greatest;
                part[HEAD_DIM + 1] = c.total;
            }
        }
    }
    MARTLET_TRACE(5);
    if (splits == 1) return;
    __shared__ u32 arrived;
    u32* counter = a.counters + work.row * gridDim.y + blockIdx.y;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) arrived = atomicAdd(counter, 1u);
    __syncthreads();
    if (arrived != splits - 1) return;
    __threadfence();
    if (threadIdx.x == 0) *counter = 0;
    // Each split's factor, by one warp per head; then the sums, with many loads under way.
    float* factors = (float*)(shared + parts_at);  // [heads][SPLITS]
    for (int h = warp_index(); h < tile_heads; h += WARPS) {
        if (blockIdx.y % head_tiles * tile_heads + h >= GROUP) break;
        const float* part = mine + h * SPLITS * part_stride;
        float greatest = -MARTLET_INFINITY, total = 0;
        for (int i = work.lane; i < splits; i += 32) {
            greatest = fmaxf(greatest, __ldcg(part + i * part_stride + HEAD_DIM));
        }
        greatest = warp_max(greatest);
        for (int i = work.lane; i < splits; i += 32) {
            float factor = power_of_two(__ldcg(part + i * part_stride + HEAD_DIM) - greatest);
            factors[h * SPLITS + i] = factor;
            total = fmaf(factor, __ldcg(part + i * part_stride + HEAD_DIM + 1), total);
        }
        total = warp_sum(total);
        for (int i = work.lane; i < splits; i += 32) factors[h * SPLITS + i] /= total;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < tile_heads * HEAD_DIM; e += threads) {
        int h = e / HEAD_DIM, d = e % HEAD_DIM;
        if (blockIdx.y % head_tiles * tile_heads + h >= GROUP) continue;
        const float* part = mine + h * SPLITS * part_stride + d;
        float sum = 0;
#pragma unroll 8
        for (int i = 0; i < splits; ++i) {
            sum = fmaf(factors[h * SPLITS + i], __ldcg(part + i * part_stride), sum);
        }
        a.y.put<ACTIVATION>(work.row, (i64)(work.head + h) * HEAD_DIM + d, sum);
    }
}
