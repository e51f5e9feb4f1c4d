// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// attention_decode: queries, keys and values of one request and kv head, and a warp's pass over positions.
#pragma once
#include "attention_shape.cuh"

namespace {
/// Two neighbouring sums, or the greatest score and the total of a head.
struct alignas(8) Pair {
    float x, y;
};

struct Attention {
    const DecodeAttentionArguments& a;
    int row, position, end, start, kv_head, head;  // head: the block's first query head
    const i32* table;
    int first_column, column_base, pages;  // page of the table's first entry; lane's entry from the base on
    int tokens;
    bool is_beside_prompt;                 // the kernel in front is that of the step's prompts
    int lane, g, t, team, first_head;      // first_head: the warp's first of the block's heads
    float sums[value_words][4][TILES][4], greatest[TILES][2], total[TILES][2];

    __device__ __forceinline__ Attention(const DecodeAttentionArguments& a)
        : a(a), row(blockIdx.z), column_base(0), lane(lane_index()), g(lane_index() >> 2),
          t(lane_index() & 3), team(warp_index() / TEAM), first_head(warp_index() % TEAM * 8 * TILES) {
        // All at once: the loads of keys and values depend on them, and each costs a round trip.
        table = a.kv.table + (i64)row * a.kv.table_columns;
        tokens = a.step->singles;
        is_beside_prompt = a.step->tokens != tokens;
        position = a.positions[row];
        first_column = a.kv.start[row];
        pages = lane < a.kv.table_columns ? table[lane] : 0;
        first_column /= PAGE;
        end = position + 1;
        start = WINDOW && a.window > 0 ? max(end - a.window, 0) : 0;
        kv_head = blockIdx.y / head_tiles;
        head = kv_head * GROUP + first_of_block();
    }
    /// The block's first head of the kv head's.
    static __device__ __forceinline__ int first_of_block() { return blockIdx.y % head_tiles * block_heads; }
    static __device__ __forceinline__ bool has_head(int h) {
        return GROUP % block_heads == 0 || first_of_block() + h < GROUP;
    }

    __device__ __forceinline__ void begin_sums() {
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

    // ---- Where keys and values lie ----------------------------------------------------------------------

    /// The lanes hold the table's entries from a unit's on.
    __device__ __forceinline__ void turn_to(int unit) {
        int column = unit * UNIT / PAGE - first_column;
        if ((u32)(column - column_base) < 32) return;
        column_base = column;
        pages = column + lane < a.kv.table_columns ? table[column + lane] : 0;
    }
    /// First byte of this head's keys of the block of 64 that holds a unit.
    __device__ __forceinline__ const u16* block_of(int unit) const {
        int from = unit * UNIT;
        int column = from / PAGE - first_column;
        int page = __shfl_sync(~0u, pages, (column - column_base) & 31);
        if ((u32)(column - column_base) >= 32) page = table[column];
        const u8* base = a.kv.base + page * a.kv.page_bytes + from % PAGE / 64 * a.kv.block_bytes
            + a.kv.layer_offset;
        return (const u16*)base + (i64)kv_head * 64 * HEAD_DIM;
    }
    __device__ __forceinline__ i64 plane() const { return (i64)a.kv.kv_heads * 64 * HEAD_DIM; }

    // ---- The ring ---------------------------------------------------------------------------------------

    __device__ __forceinline__ u32 stage_at(int stage) const {
        return shared_address(shared) + parts_at + team * team_bytes + stage * unit_bytes;
    }
    /// Where a unit's chunk of 16 bytes lies in its stage.
    static __device__ __forceinline__ u32 key_place(int r, int c) {
        return r * key_bytes + (swizzled ? c ^ (r & 1) << 2 : c) * 16;
    }
    static __device__ __forceinline__ u32 value_place(int r, int c) {
        return UNIT * key_bytes + r * value_bytes + (swizzled ? c ^ (r >> 1 & 3) << 1 : c) * 16;
    }
    static constexpr int unit_chunks = UNIT * row_chunks, team_lanes = TEAM * 32;
    __device__ __forceinline__ int team_lane() const { return warp_index() % TEAM * 32 + lane; }

    /// The team's lanes copy a unit.
    __device__ __forceinline__ void ask(int unit, int stage) {
        turn_to(unit);
        const u8* from = (const u8*)(block_of(unit) + unit * UNIT % 64 * HEAD_DIM) + team_lane() * 16;
        i64 to_values = plane() * 2;
        u32 to = stage_at(stage);
#pragma unroll
        for (int n = 0; n < (unit_chunks + team_lanes - 1) / team_lanes; ++n) {
            int i = n * team_lanes + team_lane();
            if (unit_chunks % team_lanes && i >= unit_chunks) break;
            copy_chunk(to + key_place(i / row_chunks, i % row_chunks), from + n * team_lanes * 16);
            copy_chunk(to + value_place(i / row_chunks, i % row_chunks), from + to_values + n * team_lanes * 16);
        }
    }
    /// The new token's key and value do not come from the cache; values out of range become zeros.
    __device__ __forceinline__ void mend(int unit, int stage) {
        const int first = unit * UNIT;
        if (first + UNIT <= position && first >= start) return;
        u8* at = shared + parts_at + team * team_bytes + stage * unit_bytes;
        for (int i = team_lane(); i < unit_chunks; i += team_lanes) {
            int r = i / row_chunks, c = i % row_chunks, p = first + r;
            if (p == position) {
                *(Word*)(at + key_place(r, c)) = *(const Word*)(shared + new_at + c * 16);
                *(Word*)(at + value_place(r, c)) = *(const Word*)(shared + new_at + new_bytes + c * 16);
            } else if (p >= end || p < start) {
                *(Word*)(at + value_place(r, c)) = nothing();
            }
        }
        team_wait();
    }
    static __device__ __forceinline__ void team_wait() {
        if (TEAM == 1) {
            __syncwarp();
        } else {
            asm volatile("bar.sync %0, %1;" ::"r"(1 + warp_index() / TEAM), "n"(TEAM * 32) : "memory");
        }
    }
    /// A tile of 16 positions in the ring: a lane's words of keys g and g + 8, at d = 32 j + 8 t, and of values
    /// 2t, 2t + 1, 2t + 8 and 2t + 9, at d = 64 h + 8 g.
    struct Stage {
        u32 keys, values;
        int g, t;
        __device__ __forceinline__ Stage(const Attention& of, int stage, int tile) : g(of.g), t(of.t) {
            u32 at = of.stage_at(stage);
            keys = at + (tile * 16 + g) * key_bytes + t * 16;
            values = at + UNIT * key_bytes + (tile * 16 + 2 * t) * value_bytes + (swizzled ? g ^ 2 * t : g) * 16;
        }
        __device__ __forceinline__ Word key(int h, int j) const {
            if (HEAD_DIM % 32 && j * 32 + t * 8 >= HEAD_DIM) return nothing();
            u32 chunk = swizzled ? j / 2 * 128 + (j % 2 * 64 ^ (g & 1) * 64) : j * 64;
            return shared_word(keys + h * 8 * key_bytes + chunk);
        }
        __device__ __forceinline__ Word value(int i, int h) const {
            if (HEAD_DIM % 64 && h * 64 + g * 8 >= HEAD_DIM) return nothing();
            return shared_word(values + ((i & 1) + (i & 2) * 4) * value_bytes + h * 128);
        }
    };

    // ---- Queries, the new key and the new value ---------------------------------------------------------

    /// Runs of 8 elements that are rotated together: a thread has the same two of some query heads, the new
    /// key or the new value.
    struct Turn {
        static constexpr int runs = padded / 16;
        static constexpr int wide = threads / runs, rounds = (block_heads + 2 + wide - 1) / wide;
        int run, which;
        bool rotates;
        float cosines[8], sines[8];

        __device__ __forceinline__ Turn(const Attention& of) {
            const RotaryTable& table = of.a.rotation;
            run = threadIdx.x % runs;
            which = threadIdx.x / runs;
            if (which >= wide) which = block_heads + 2;
            rotates = ROTARY && run * 8 < table.pairs;
            i64 at = (i64)of.position * table.pairs + run * 8;
#pragma unroll
            for (int i = 0; i < 8; i += 4) {
                Word c = rotates ? load_once(table.cosines + at + i) : nothing();
                Word s = rotates ? load_once(table.sines + at + i) : nothing();
                const u32 cs[4] = {c.x, c.y, c.z, c.w}, ss[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    cosines[i + j] = __int_as_float(cs[j]);
                    sines[i + j] = __int_as_float(ss[j]);
                }
            }
        }
        __device__ __forceinline__ int first(bool turns) const {
            return turns && ROTARY == 1 ? run * 8 : run * 16;
        }
        __device__ __forceinline__ int second(const Attention& of, bool turns) const {
            return turns && ROTARY == 1 ? run * 8 + of.a.rotation.pairs : run * 16 + 8;
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
        __device__ __forceinline__ void both(const Attention& of, int which, bool turns, Word& u, Word& v) const {
            const auto& a = of.a;
            const Rows& source = which < block_heads ? a.q : which == block_heads ? a.k : a.v;
            i64 column = (i64)(which < block_heads ? of.head + which : of.kv_head) * HEAD_DIM;
            const u16* p = (const u16*)source.base + of.row * source.stride + column;
            bool is_there = which >= block_heads || has_head(which);
            int i = first(turns), j = second(of, turns);
            u = is_there && i < HEAD_DIM ? load_fresh(p + i) : nothing();
            v = is_there && j < HEAD_DIM ? load_fresh(p + j) : nothing();
        }
        /// Rotated and rounded into shared memory; the new key and value into the cache too.
        __device__ __forceinline__ void operator()(const Attention& of, u16* block) const {
            Word us[rounds], vs[rounds];
#pragma unroll
            for (int n = 0; n < rounds; ++n) {
                int at = which + n * wide;
                if (at < block_heads + 2) both(of, at, rotates && at <= block_heads, us[n], vs[n]);
            }
#pragma unroll
            for (int n = 0; n < rounds; ++n) {
                int at = which + n * wide;
                if (at >= block_heads + 2) break;
                bool turns = rotates && at <= block_heads;
                float x[8], y[8];
                floats(us[n], x);
                floats(vs[n], y);
                if (ROTARY == 1 && turns) {
#pragma unroll
                    for (int i = 0; i < 8; ++i) turn(x[i], y[i], cosines[i], sines[i]);
                } else if (ROTARY == 2 && turns) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        turn(x[2 * i], x[2 * i + 1], cosines[i], sines[i]);
                        turn(y[2 * i], y[2 * i + 1], cosines[i + 4], sines[i + 4]);
                    }
                }
                Word u = packed(x), v = packed(y);
                int i = first(turns), j = second(of, turns);
                u16* place = (u16*)(shared + (at < block_heads ? at * query_bytes
                                                               : new_at + (at - block_heads) * new_bytes));
                *(Word*)(place + i) = u;
                *(Word*)(place + j) = v;
                if (block && at >= block_heads) {
                    u16* to = block + (at - block_heads) * of.plane();
                    if (i < HEAD_DIM) *(Word*)(to + i) = u;
                    if (j < HEAD_DIM) *(Word*)(to + j) = v;
                }
            }
        }
    };

    // ---- Scores, probabilities, sums --------------------------------------------------------------------

    /// Where a tile's queries of this lane lie; heads that are not there read another's.
    __device__ __forceinline__ u32 query_at(int tile) const {
        int h = first_head + tile * 8 + g;
        return shared_address(shared) + (h < block_heads ? h : 0) * query_bytes + t * 16;
    }
    static constexpr bool holds_queries = TILES * key_words <= 4;
    Word queries[holds_queries ? TILES : 1][holds_queries ? key_words : 1];
    __device__ __forceinline__ void hold_queries() {
        if (!holds_queries) return;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int j = 0; j < key_words; ++j) queries[i][j] = shared_word(query_at(i) + j * 64);
        }
    }

    /// Scores of 16 positions from `first` on: (position g, head 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
    __device__ __forceinline__ void score(const Stage& words, int first, float (&s)[TILES][4]) const {
        float even[TILES][4] = {}, odd[TILES][4] = {};
#pragma unroll
        for (int j = 0; j < key_words; ++j) {
            Word k = words.key(0, j), l = words.key(1, j);
#pragma unroll
            for (int i = 0; i < TILES; ++i) {
                Word x = holds_queries ? queries[holds_queries ? i : 0][holds_queries ? j : 0]
                                       : shared_word(query_at(i) + j * 64);
                mma<KV>(even[i], k.x, l.x, k.y, l.y, x.x, x.y);
                mma<KV>(odd[i], k.z, l.z, k.w, l.w, x.z, x.w);
            }
        }
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                int p = first + g + (c & 2) * 4;
                float x = (even[i][c] + odd[i][c]) * a.scale;
                if (SOFT_CAP) x = a.soft_cap * (1 - 2 / (1 + __expf(2 / a.soft_cap * x)));
                if (ALIBI) {
                    int of = min(first_of_block() + first_head + i * 8 + 2 * t + (c & 1), GROUP - 1);
                    x = fmaf(__ldg(a.slopes + kv_head * GROUP + of), (float)(p - position), x);
                }
                s[i][c] = p < end && p >= start ? x * log2e : -MARTLET_INFINITY;
            }
        }
    }

    /// Scores become probabilities against a maximum, which follows them where they exceed it by 2^8; what
    /// was summed before is rescaled then.
    __device__ __forceinline__ void soften(float (&s)[tiles][TILES][4]) {
        bool grows = false;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int c = 0; c < 2; ++c) grows |= top_of(s, i, c) > greatest[i][c] + 8;
        }
        if (__any_sync(~0u, grows)) {
#pragma unroll
            for (int i = 0; i < TILES; ++i) {
                float factor[2];
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    float top = top_of(s, i, c);
#pragma unroll
                    for (int offset = 4; offset < 32; offset <<= 1) {
                        top = fmaxf(top, __shfl_xor_sync(~0u, top, offset));
                    }
                    float next = fmaxf(greatest[i][c], top);
                    factor[c] = next == -MARTLET_INFINITY ? 1 : power_of_two(greatest[i][c] - next);
                    greatest[i][c] = next;
                    total[i][c] *= factor[c];
                }
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
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                float base = greatest[i][c] == -MARTLET_INFINITY ? 0 : greatest[i][c];
#pragma unroll
                for (int n = 0; n < tiles; ++n) {
                    s[n][i][c] = power_of_two(s[n][i][c] - base);
                    s[n][i][c + 2] = power_of_two(s[n][i][c + 2] - base);
                    total[i][c] += s[n][i][c] + s[n][i][c + 2];
                }
            }
        }
    }
    static __device__ __forceinline__ float top_of(const float (&s)[tiles][TILES][4], int i, int c) {
        float top = fmaxf(s[0][i][c], s[0][i][c + 2]);
#pragma unroll
        for (int n = 1; n < tiles; ++n) top = fmaxf(top, fmaxf(s[n][i][c], s[n][i][c + 2]));
        return top;
    }

    __device__ __forceinline__ void add_values(const Stage& words, const float (&s)[TILES][4]) {
        u32 p[TILES][2];
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            p[i][0] = transpose(pack_pair<KV>(s[i][0], s[i][1]));
            p[i][1] = transpose(pack_pair<KV>(s[i][2], s[i][3]));
        }
#pragma unroll
        for (int h = 0; h < value_words; ++h) {
            Word rows[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) rows[i] = words.value(i, h);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                u32 v[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    v[i] = j == 0 ? rows[i].x : j == 1 ? rows[i].y : j == 2 ? rows[i].z : rows[i].w;
                }
                u32 a0 = __byte_perm(v[0], v[1], 0x5410), a1 = __byte_perm(v[0], v[1], 0x7632);
                u32 a2 = __byte_perm(v[2], v[3], 0x5410), a3 = __byte_perm(v[2], v[3], 0x7632);
#pragma unroll
                for (int i = 0; i < TILES; ++i) mma<KV>(sums[h][j][i], a0, a1, a2, a3, p[i][0], p[i][1]);
            }
        }
    }

    /// Units from `unit` on, one in `teams`; as many as the ring has places are asked for.
    __device__ __forceinline__ void pass(int unit, int to) {
        constexpr int last = RING - 1;
        int stage = 0, before = last;
        for (bool is_first = true; unit < to; unit += teams, is_first = false) {
            if (is_first) {
                copies_wait<last>();
            } else {
                copies_wait<last - 1>();
            }
            team_wait();  // the unit is here, and all have read the one before, whose place is asked for now
            int next = unit + last * teams;
            if (!is_first) {
                if (next < to) ask(next, before);
                copies_commit();
            }
            mend(unit, stage);
            float s[tiles][TILES][4];
#pragma unroll
            for (int n = 0; n < tiles; ++n) score(Stage(*this, stage, n), unit * UNIT + n * 16, s[n]);
            soften(s);
#pragma unroll
            for (int n = 0; n < tiles; ++n) add_values(Stage(*this, stage, n), s[n]);
            before = stage;
            stage = stage == last ? 0 : stage + 1;
        }
        team_wait();  // its part takes the ring's place
    }

    /// This warp's sums into shared memory.
    __device__ __forceinline__ void leave() {
        float* parts = (float*)(shared + parts_at + team * team_bytes);
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                float sum = total[i][c];
#pragma unroll
                for (int offset = 4; offset < 32; offset <<= 1) sum += __shfl_xor_sync(~0u, sum, offset);
                int h = first_head + i * 8 + 2 * t + c;
                if (h >= block_heads) continue;
                float* part = parts + h * part_stride;
                if (g == 0) *(Pair*)(part + HEAD_DIM) = Pair{greatest[i][c], sum};
#pragma unroll
                for (int w = 0; w < value_words; ++w) {
                    int d = w * 64 + g * 8;
                    if (d >= HEAD_DIM) continue;
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        *(Pair*)(part + d + 2 * j) = Pair{sums[w][j][i][c], sums[w][j][i][c + 2]};
                    }
                }
            }
        }
    }
};
}  // namespace
