// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// attention_decode: the parts of warps, blocks and clusters become the result.
#pragma once
#include "attention_run.cuh"

namespace {
struct alignas(16) Quad {
    float x, y, z, w;
};
/// Four neighbouring sums of a head, and its greatest score and total.
struct Part {
    Quad sums;
    Pair totals;
};

#if CLUSTER > 1
/// All threads of the cluster have begun, and its barriers are there.
__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
}
/// Into another block's shared memory at the same address; its barrier counts the bytes.
__device__ __forceinline__ void put_remote(u32 address, u32 barrier, int rank, const Quad& v) {
    asm volatile("{\n.reg .u32 there, signal;\nmapa.shared::cluster.u32 there, %0, %2;\n"
                 "mapa.shared::cluster.u32 signal, %1, %2;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], {%3, %4, %5, %6}, "
                 "[signal];\n}"
                 ::"r"(address), "r"(barrier), "r"(rank), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}
__device__ __forceinline__ void put_remote(u32 address, u32 barrier, int rank, const Pair& v) {
    asm volatile("{\n.reg .u32 there, signal;\nmapa.shared::cluster.u32 there, %0, %2;\n"
                 "mapa.shared::cluster.u32 signal, %1, %2;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [there], {%3, %4}, [signal];\n}"
                 ::"r"(address), "r"(barrier), "r"(rank), "f"(v.x), "f"(v.y) : "memory");
}
#endif

// Numbers in device memory tell by themselves that they have come: until then their bits are zero (a zero is
// sent as -0). So no fence stands between a part and its reader; it would wait for the loads of the kernel
// behind, which took 3 to 7 us.
__device__ __forceinline__ float marked(float x) { return __float_as_int(x) == 0 ? -0.0f : x; }
__device__ __forceinline__ bool has_come(float x) { return __float_as_int(x) != 0; }
__device__ __forceinline__ void send(float* to, const Quad& v) {
    asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};"
                 ::"l"(to), "f"(marked(v.x)), "f"(marked(v.y)), "f"(marked(v.z)), "f"(marked(v.w)) : "memory");
}
__device__ __forceinline__ void send(float* to, const Pair& v) {
    asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};"
                 ::"l"(to), "f"(marked(v.x)), "f"(marked(v.y)) : "memory");
}
/// Whether it has come.
__device__ __forceinline__ bool look(const float* at, Quad& v) {
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at) : "memory");
    return has_come(v.x) && has_come(v.y) && has_come(v.z) && has_come(v.w);
}
__device__ __forceinline__ bool look(const float* at, Pair& v) {
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at) : "memory");
    return has_come(v.x) && has_come(v.y);
}

/// Adds a part against a common base.
__device__ __forceinline__ void add(Part& all, const Part& part, float base) {
    float factor = power_of_two(part.totals.x - base);
    all.sums.x = fmaf(factor, part.sums.x, all.sums.x);
    all.sums.y = fmaf(factor, part.sums.y, all.sums.y);
    all.sums.z = fmaf(factor, part.sums.z, all.sums.z);
    all.sums.w = fmaf(factor, part.sums.w, all.sums.w);
    all.totals.y = fmaf(factor, part.totals.y, all.totals.y);
}
/// Parts of one head made one, in their order.
template <typename Totals, typename Sums>
__device__ __forceinline__ Part combined(int count, Totals totals_of, Sums sums_of) {
    float greatest = -MARTLET_INFINITY;
    for (int i = 0; i < count; ++i) greatest = fmaxf(greatest, totals_of(i).x);
    float base = greatest == -MARTLET_INFINITY ? 0 : greatest;
    Part all = {{0, 0, 0, 0}, {greatest, 0}};
    for (int i = 0; i < count; ++i) add(all, Part{sums_of(i), totals_of(i)}, base);
    return all;
}

/// Parts of one block, cluster and request become the result.
struct Ending {
    const DecodeAttentionArguments& a;
    int row, head, splits, split, groups, rank, from, to;  // from, to: quads of sums that this block ends

    __device__ __forceinline__ Ending(const Attention& of, int splits, int split)
        : a(of.a), row(of.row), head(of.head), splits(splits), split(split),
          groups((splits + CLUSTER - 1) / CLUSTER), rank(CLUSTER > 1 ? split % CLUSTER : 0), from(0),
          to(block_heads * head_quads) {
        if (CLUSTER > 1 && splits > 1) {
            from = rank * share;
            to = from + share;
        }
    }
    /// In which place of the groups' blocks this one has begun.
    __device__ __forceinline__ u32 take_place() const {
        return atomicInc(a.counters + (row * gridDim.y + blockIdx.y) * CLUSTER + rank, groups - 1);
    }
    __device__ __forceinline__ float* sums_at(int quad, int group) const {
        const i64 heads = (i64)a.kv.kv_heads * GROUP;
        const int h = head + quad / head_quads;
        return a.partials + ((row * heads + h) * most_groups + group) * HEAD_DIM + quad % head_quads * 4;
    }
    __device__ __forceinline__ float* totals_at(int h, int group) const {
        const i64 heads = (i64)a.kv.kv_heads * GROUP;
        return a.partials + gridDim.z * heads * most_groups * HEAD_DIM
            + ((row * heads + head + h) * most_groups + group) * 2;
    }
    static __device__ __forceinline__ bool is_there(int quad) { return Attention::has_head(quad / head_quads); }
    /// The result.
    __device__ __forceinline__ void put(int quad, const Part& v) const {
        const i64 at = row * a.y.stride + (i64)head * HEAD_DIM + quad * 4;
        const float factor = 1 / v.totals.y;
        u32 low = pack_pair<ACTIVATION>(v.sums.x * factor, v.sums.y * factor);
        u32 high = pack_pair<ACTIVATION>(v.sums.z * factor, v.sums.w * factor);
        *(u64*)((u16*)a.y.base + at) = (u64)high << 32 | low;
    }
    /// The result, or this group's part of it.
    __device__ __forceinline__ void end(int quad, const Part& v) const {
        if (groups == 1) {
            put(quad, v);
            return;
        }
        send(sums_at(quad, split / CLUSTER), v.sums);
        if (quad % head_quads == 0) send(totals_at(quad / head_quads, split / CLUSTER), v.totals);
    }

    __device__ __forceinline__ Part of_teams(int quad) const {
        const u8* part = shared + parts_at + quad / head_quads * part_stride * 4;
        return combined(
            teams, [&](int i) { return *(const Pair*)(part + i * team_bytes + HEAD_DIM * 4); },
            [&](int i) {
                const Pair* p = (const Pair*)(part + i * team_bytes + quad % head_quads * 16);
                return Quad{p[0].x, p[0].y, p[1].x, p[1].y};
            });
    }
    __device__ __forceinline__ void teams_only() const {
        for (int e = threadIdx.x; e < to; e += threads) {
            if (is_there(e)) end(e, of_teams(e));
        }
    }
#if CLUSTER > 1
    /// Each block sends the others what they end.
    __device__ __forceinline__ void over_cluster() const {
        const u32 here = shared_address(shared), barrier = here + barrier_at;
        const int count = min(splits - (split - rank), CLUSTER);
        cluster_wait();  // all have begun
        if (threadIdx.x == 0) barrier_expect(barrier, count * (share * 16 + share_heads * 8));
        if (split < splits) {
            constexpr int quads = block_heads * head_quads;
            constexpr int rounds = (quads + threads - 1) / threads, batch = rounds < 4 ? rounds : 4;
#pragma unroll 1
            for (int n = 0; n < rounds; n += batch) {
                Part parts[batch];
#pragma unroll
                for (int i = 0; i < batch; ++i) {
                    parts[i] = of_teams(min((n + i) * threads + (int)threadIdx.x, quads - 1));
                }
#pragma unroll
                for (int i = 0; i < batch; ++i) {
                    int e = (n + i) * threads + threadIdx.x, owner = e / share;
                    if (e >= quads) break;
                    u32 at = here + exchange_at + (rank * share + e - owner * share) * 16;
                    put_remote(at, barrier, owner, parts[i].sums);
                    if (e % head_quads) continue;
                    at = here + totals_place + (rank * share_heads + e / head_quads - owner * share_heads) * 8;
                    put_remote(at, barrier, owner, parts[i].totals);
                }
            }
        }
        barrier_wait(barrier, 0);
        const Quad* sums = (const Quad*)(shared + exchange_at);
        const Pair* totals = (const Pair*)(shared + totals_place);
        for (int e = from + threadIdx.x; e < to; e += threads) {
            if (!is_there(e)) continue;
            int h = (e - from) / head_quads;
            end(e, combined(count, [&](int i) { return totals[i * share_heads + h]; },
                            [&](int i) { return sums[i * share + e - from]; }));
        }
    }
#endif
    /// Combines all groups' parts, which are waited for: their blocks have begun, since this one came last.
    __device__ __forceinline__ void over_groups() const {
        constexpr int batch = most_groups < 8 ? most_groups : 8;
        for (int e = from + threadIdx.x; e < to; e += threads) {
            if (!is_there(e)) continue;
            Part all = {{0, 0, 0, 0}, {-MARTLET_INFINITY, 0}};
#pragma unroll 1
            for (int n = 0; n < groups; n += batch) {
                Part parts[batch];
                for (bool have_come = false; !have_come;) {
                    have_come = true;
#pragma unroll
                    for (int i = 0; i < batch; ++i) {
                        int group = min(n + i, groups - 1);
                        have_come &= look(sums_at(e, group), parts[i].sums);
                        have_come &= look(totals_at(e / head_quads, group), parts[i].totals);
                    }
                }
                float greatest = all.totals.x;
#pragma unroll
                for (int i = 0; i < batch; ++i) greatest = fmaxf(greatest, parts[i].totals.x);
                float base = greatest == -MARTLET_INFINITY ? 0 : greatest;
                Part before = all;
                all = Part{{0, 0, 0, 0}, {greatest, 0}};
                add(all, before, base);
#pragma unroll
                for (int i = 0; i < batch; ++i) {
                    if (n + i < groups) add(all, parts[i], base);
                }
            }
            put(e, all);
            for (int i = 0; i < groups; ++i) *(Quad*)sums_at(e, i) = Quad{0, 0, 0, 0};
        }
        __syncthreads();  // all have read the totals
        for (int i = threadIdx.x; i < (to - from) / head_quads * groups; i += threads) {
            int h = from / head_quads + i / groups;
            if (Attention::has_head(h)) *(Pair*)totals_at(h, i % groups) = Pair{0, 0};
        }
    }
};
}  // namespace
