// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// attention_decode: RoPE, KV write and paged attention of one new token per request.
//
// Bytes: the request's keys and values once per block of query heads that share them; floor: these / copy
// bandwidth (C). Measured on an H100 80GB with the definitions of `rule` in scripts/kernel-lab/bench_attention.py,
// D 128, bf16, 64 x 512, 8 x 4,096 and 1 x 32,768 positions: MHA 101, 102 and 101 % of C, 4 query heads to a kv
// head 95, 97 and 94 %, MQA (17 MB, 5.6 us at C) 49, 47 and 44 %, with 64 x 4,096 positions 91 %. Many requests, in small blocks: 192 x
// 192 MHA 99 %, 4 heads to a kv head 93 %; 192 x 68 MHA 76 %.
// Grid: splits x (kv heads x head tiles) x requests. A warp takes tiles of 16 positions: S^T = K Q^T and
// O^T = V^T P^T on the matrix instructions (head dimensions permuted, so that every load is 16 bytes wide), online
// softmax in f32. Keys and values come through a ring of units in shared memory, which the TEAM warps that share
// positions read, each for its own heads. The first units are on their way before the kernel waits for its
// producers; so the step record and the cache's earlier positions must be complete when the first kernel of a
// chain of dependent ones begins. In a step with prompts it runs beside their attention, its producer, whose
// blocks begin when queries and keys are there: it waits for that one's end only at its own.
// Parts are combined in three steps, each in a fixed order: the warps of a block in shared memory; the
// CLUSTER blocks of neighbouring splits by messages, each for its share of the heads; clusters (or splits,
// without clusters) through device memory, by the one that began last. A request's result depends on its own
// length and the constants only. Numerics: q, k, v and the probabilities are rounded to KV's type, sums in
// f32; the softmax's maximum may lag behind by 2^8.
//
//   ACTIVATION KV            types of q, k, v, y; of the cache: f16 or bf16
//   HEAD_DIM GROUP           D, a multiple of 16; query heads per kv head
//   TILES TEAM               8 heads each in a warp (1 to 4); warps that share positions
//   WARPS BLOCKS             warps, a multiple of TEAM; blocks per multiprocessor
//   RING UNIT                units that a team has in shared memory, 2 or more; positions of one: 16 or 32
//   SPLITS SPLIT_UNITS       most splits; least units of 16 positions in one
//   CLUSTER                  blocks of a cluster, up to 8 (sm_90), a divisor of SPLITS and of a block's heads;
//                            1: none
//   PAGE                     tokens of a page, a multiple of 64
//   ROTARY                   0; 1: pairs (i, i + pairs); 2: pairs (2i, 2i + 1); a multiple of 8 pairs
//   WINDOW ALIBI SOFT_CAP    0 or 1
#include "attention_ending.cuh"

/// Bytes of shared memory, threads, head tiles of a kv head, splits.
extern "C" __device__ const u32 attention_decode_launch[4] = {
    shared_bytes, threads, head_tiles, SPLITS};

MARTLET_KERNEL __launch_bounds__(threads, BLOCKS)
#if CLUSTER > 1
    __cluster_dims__(CLUSTER, 1, 1)
#endif
    attention_decode(const __grid_constant__ DecodeAttentionArguments a) {
    MARTLET_TRACE(0);
    Attention work(a);
    int splits = 0, from = 0, to = 0;
    const int split = blockIdx.x;
    if (work.row < work.tokens) {
        int first = work.start / UNIT;
        int units = (work.end + UNIT - 1) / UNIT - first;
        splits = min(max(units * tiles / SPLIT_UNITS, 1), SPLITS);
        int each = (units + splits - 1) / splits;
        splits = (units + each - 1) / each;
        from = first + split * each;
        to = min(from + each, first + units);
    }
    // Blocks without work end at once. One of them must wait, lest the chain runs past its producers.
    if (split >= splits && (splits <= 1 || split - split % CLUSTER >= splits)) {
        release_dependents();
        if (work.row == 0 && split == 0) wait_for_producers();
        return;
    }
#if CLUSTER > 1
    if (splits > 1) {
        if (threadIdx.x == 0) {
            barrier_init(shared_address(shared) + barrier_at, 1);
            barrier_init_fence();
        }
        cluster_arrive();
    }
#endif
    const int unit = from + work.team;
#pragma unroll
    for (int i = 0; i < RING; ++i) {
        if (unit + i * teams < to) work.ask(unit + i * teams, i);
        copies_commit();
    }
    Attention::Turn turn(work);
    u16* to_block = nullptr;  // where the new key goes
    if (split == splits - 1 && blockIdx.y % head_tiles == 0) {
        to_block = (u16*)work.block_of(work.position / UNIT) + work.position % 64 * HEAD_DIM;
    }
    // Only now: the next kernel's loads of weights would stand in front of this one's keys.
    release_dependents();
    MARTLET_TRACE(1);
    // Behind a prompt's attention, whose blocks run beside: they began when queries and keys were there.
    if (!work.is_beside_prompt) wait_for_producers();
    MARTLET_TRACE(2);
    Ending ending(work, splits, split);
    __shared__ u32 place;
    if (ending.groups > 1 && threadIdx.x == 0) place = ending.take_place();
    turn(work, to_block);
    __syncthreads();
    MARTLET_TRACE(3);
    work.begin_sums();
    work.hold_queries();
    work.pass(unit, to);
    work.leave();
    __syncthreads();
    MARTLET_TRACE(4);
#if CLUSTER > 1
    if (splits > 1) {
        ending.over_cluster();
    } else
#endif
        ending.teams_only();
    MARTLET_TRACE(5);
    if (ending.groups > 1 && place == ending.groups - 1) ending.over_groups();
    // One block is enough for the kernel behind to wait for both.
    if (work.is_beside_prompt && work.row == 0 && split == 0 && blockIdx.y == 0) wait_for_producers();
}
