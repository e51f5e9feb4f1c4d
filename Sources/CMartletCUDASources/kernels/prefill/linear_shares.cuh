// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// How the tiles of `linear_prefill` are dealt to blocks, and sums of a tile that several blocks have a part of.
//
// Without SHARED a turn of all blocks at a time. With SHARED 1 blocks that have the same rows of the weight and different
// tokens form a group, which takes the same chunks at the same time: the weight comes from memory once. Groups take whole
// tiles of rows first; what is then left, less than two a group, is shared out along k: equal numbers of chunks, neighbours
// one behind the other, so that no block stands idle while others have a tile more. A share begins within a tile whose earlier
// chunks another group has, which needs them last: it adds what is laid down for it here. Blocks wait only for those of lower
// index, which start earlier: none waits for ever, however few run. Cost: a block writes and an owner reads 512 bytes a
// token of its tile.
// Measured on an H100 80GB, linears of a layer of baichuan2-7b in bf16, us: 128, 192, 320, 512, 1,024 rows 157, 173, 231, 341, 615
// (weights at C 135; cuBLAS 168, 187, 211, 316, 612); without groups, and blocks that bring a weight for each other
// (CLUSTER), 191, 215, 340, 410, 640. From 1,024 rows on it brings nothing. In int8 128, 170, 192, 208 rows 125, 151, 157, 170
// (128, 158, 162, 174 where a warpgroup itself waited for its sums' stores).
// Refuted: all blocks that have a part of a tile add up a share of its tokens: QKV + 14 us, gate and up + 17 at 192 rows.
#pragma once
#include "hopper.cuh"
#include "weight_tiles.cuh"

namespace {
/// Chunks that a share has at least, 512 k: adding up sums takes as long as 256.
constexpr int least_chunks = (512 + chunk_k - 1) / chunk_k;

/// Some chunks of a tile.
struct Part {
    int tile, first, count;

    __device__ __forceinline__ bool is_begin() const { return first == 0; }
    __device__ __forceinline__ bool is_end() const { return first + count == strip_chunks; }
};

#if SHARED
/// How tiles of rows are dealt to groups of blocks.
struct Deal {
    int whole;    // tiles that one group has alone
    int total;    // chunks of the rest
    int sharers;  // groups that share it, in the opposite order of their shares

    __device__ __forceinline__ explicit Deal(int groups) : whole(row_tiles), total(0), sharers(1) {
        const int rest = row_tiles % groups;
        // A last turn that is nearly full ends sooner than sums are added up.
        if (rest == 0 || rest * 8 >= groups * 7) return;
        const int left = row_tiles < groups ? rest : rest + groups, most = left * strip_chunks / least_chunks;
        if (most <= left) return;
        whole = row_tiles - left;
        total = left * strip_chunks;
        sharers = most < groups ? most : groups;
    }
    /// A group's place among the shares, and back.
    __device__ __forceinline__ int mirrored(int index) const { return sharers - 1 - index; }
    /// The first chunk of a share.
    __device__ __forceinline__ int begin(int place) const { return place < 0 ? 0 : total * place / sharers; }
};

/// A block's parts in order. The deal is made anew for each, for want of registers.
struct Work {
    int token_tiles;
    int taken = 0;

    __device__ __forceinline__ int groups() const { return gridDim.x / token_tiles; }
    __device__ __forceinline__ int group() const { return blockIdx.x / token_tiles; }
    __device__ __forceinline__ Deal deal() const {
        int count = groups();
        asm volatile("" : "+r"(count));  // keeps the compiler from making it once
        return Deal(count);
    }
    __device__ __forceinline__ bool take(Part& part) {
        const int tile = group() + taken * groups();
        ++taken;
        part = Part{tile, 0, strip_chunks};
        if (group() >= groups()) return false;
        const Deal deal = this->deal();
        if (tile < deal.whole) return true;
        const int place = deal.mirrored(group()), begin = deal.begin(place), end = deal.begin(place + 1);
        const int alone = (deal.whole + groups() - 1 - group()) / groups(), turn = taken - 1 - alone;
        const int at = turn == 0 ? begin : (begin / strip_chunks + turn) * strip_chunks;
        const int first = at % strip_chunks, left = strip_chunks - first;
        part = Part{deal.whole + at / strip_chunks, first, end - at < left ? end - at : left};
        return at < end;
    }
    /// Where a part's tile lies.
    __device__ __forceinline__ Tile at(const Part& part) const {
        return Tile{part.tile * tile_strips, (int)(blockIdx.x % token_tiles) * tile_tokens};
    }
};
#else
/// A block's tiles in order.
struct Work {
    int token_tiles;
    int taken = 0;

    __device__ __forceinline__ bool take(Part& part) {
        part = Part{(int)(blockIdx.x + taken * gridDim.x), 0, strip_chunks};
        ++taken;
        return part.tile < row_tiles * token_tiles;
    }
    __device__ __forceinline__ Tile at(const Part& part) const { return Tile::of(part.tile, token_tiles); }
};
#endif

#if SHARED
/// Sums of parts that do not begin their tile, in device memory: at most one a block, its two warpgroups apart.
struct Sums {
    Word* sums;  // [blocks][2][tile_tokens / 8][128]
    u32* flags;  // [blocks][2], zero between launches
    static constexpr int words = tile_tokens / 8;

    __device__ __forceinline__ Word* own(int block, int group) const {
        return sums + ((i64)(block * 2 + group) * words) * 128 + (threadIdx.x & 127);
    }

    /// Lays down this warpgroup's sums, which another thread announces: it waits for the stores.
    __device__ __forceinline__ void put(const float (&c)[tile_tokens / 2], int group) const {
        Word* to = own(blockIdx.x, group);
#pragma unroll
        for (int i = 0; i < words; ++i) {
            asm volatile("st.global.cg.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(to + i * 128), "f"(c[4 * i]),
                "f"(c[4 * i + 1]), "f"(c[4 * i + 2]), "f"(c[4 * i + 3]) : "memory");
        }
    }
    /// Says that a warpgroup's sums are there, once it has laid them down. One thread.
    __device__ __forceinline__ void announce(int group) const {
        asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(flags + blockIdx.x * 2 + group) : "memory");
    }

    /// Adds what another block lays down.
    __device__ __forceinline__ void add(float (&c)[tile_tokens / 2], int block, int group) const {
        u32* flag = flags + block * 2 + group;
        if ((threadIdx.x & 127) == 0) {
            u32 is_there;
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(is_there) : "l"(flag) : "memory");
            } while (is_there == 0);
            *flag = 0;
        }
        group_barrier(1 + group, 128);
        const Word* from = own(block, group);
#pragma unroll
        for (int i = 0; i < words; ++i) {
            float v[4];
            asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                         : "l"(from + i * 128) : "memory");
#pragma unroll
            for (int j = 0; j < 4; ++j) c[4 * i + j] += v[j];
        }
    }

    /// Adds the later parts of a tile that this block has begun, in their order.
    __device__ __forceinline__ void add_rest(
        float (&c)[tile_tokens / 2], const Work& work, const Part& part, int group) const {
        const Deal deal = work.deal();
        const int end = (part.tile - deal.whole + 1) * strip_chunks;
        for (int place = deal.mirrored(work.group()) + 1; deal.begin(place) < end; ++place) {
            add(c, deal.mirrored(place) * work.token_tiles + blockIdx.x % work.token_tiles, group);
        }
    }
};
#endif
}  // namespace
