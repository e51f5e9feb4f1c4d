// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Selections from a row of logits by a team of CLUSTER blocks of THREADS, each with a slice of the row that it
// reads again from its first cache.
//
// A selection is a place in an order of all tokens, the last that is kept. A histogram over distances from the
// best token finds the bin where it lies, and the tokens up to that bin go to a list in the first block. Where
// they fit, at most LIST, everything that follows can happen there. Else the bin is narrowed by bits of the
// place until what is left of it fits, and a filter compares places in all passes that follow.
#pragma once
#include "sampling.cuh"

#define A ACTIVATION
#ifndef CLUSTER
#define CLUSTER 1
#endif
#define THREADS 512
#define WARPS (THREADS / 32)
#define LIST 512   // at most THREADS: a thread per listed token
#define BINS 1024  // two per thread

// ---- A team: the blocks that share a row ----------------------------------------------------------------

/// A barrier of all threads of all blocks.
__device__ __forceinline__ void team_barrier() {
#if CLUSTER > 1
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
}

/// Where a variable of this block's shared memory lies in another block's.
template <typename T> __device__ __forceinline__ T* peer(T* p, int rank) {
#if CLUSTER > 1
    u64 address;
    asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(p), "r"(rank));
    return (T*)address;
#else
    return p;
#endif
}

struct Team {
    int rank, turn;

    static __device__ __forceinline__ Team join() {
        int rank = 0;
#if CLUSTER > 1
        asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
        team_barrier();  // A peer's shared memory exists once the peer runs.
        return {rank, 0};
    }

    /// Gives each block's value, that of its first warp, to all; by rank, valid until the next but one
    /// exchange. A barrier.
    template <typename T> __device__ __forceinline__ const T* exchange(const T& mine) {
        __shared__ T boxes[2][CLUSTER];
        T* box = boxes[turn];
        // A block gets here again only after all have read what this box held two exchanges ago.
        if (threadIdx.x < CLUSTER) *peer(&box[rank], threadIdx.x) = mine;
        team_barrier();
        turn ^= 1;
        return box;
    }
};

// ---- A row, and who reads what --------------------------------------------------------------------------

template <typename T> struct alignas(4 * sizeof(T)) Quad {
    T x[4];
    /// The next element in front, another behind the rest.
    __device__ __forceinline__ Quad turned(T behind) const { return {x[1], x[2], x[3], behind}; }
};

/// Elements 4q to 4q + 3, zero from `end` on.
template <typename T> __device__ __forceinline__ Quad<T> load_quad(const T* row, int q, int end) {
    if (4 * q + 4 <= end && ((u64)row & (sizeof(Quad<T>) - 1)) == 0) return ((const Quad<T>*)row)[q];
    Quad<T> v;
#pragma unroll
    for (int e = 0; e < 4; ++e) v.x[e] = 4 * q + e < end ? row[4 * q + e] : T();
    return v;
}
template <typename T> __device__ __forceinline__ void store_quad(T* row, int q, int end, const Quad<T>& v) {
    if (4 * q + 4 <= end && ((u64)row & (sizeof(Quad<T>) - 1)) == 0) {
        ((Quad<T>*)row)[q] = v;
    } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            if (4 * q + e < end) row[4 * q + e] = v.x[e];
        }
    }
}

/// Who reads which quads: runs of `each`, ids rising over lanes, warps, blocks, so that what stands in front of
/// a token is a sum over warps.
struct Slices {
    int vocabulary, quads, each, rank;
    /// This warp's run.
    __device__ __forceinline__ int first() const { return min((rank * WARPS + warp_index()) * each, quads); }
    __device__ __forceinline__ int end() const { return min(first() + each, quads); }
    /// Whether the block reads a token.
    __device__ __forceinline__ bool hold(int token) const { return token / 4 / each / WARPS == rank; }
};
__shared__ Slices slices;

__device__ __forceinline__ Slices slices_of(int vocabulary, int rank) {
    int quads = (vocabulary + 3) / 4, lanes = CLUSTER * WARPS * 32;
    return {vocabulary, quads, (quads + lanes - 1) / lanes * 32, rank};
}

/// A row of logits, as given or with mask, bias and penalties.
struct Row {
    const void* base;
    bool is_given;
    __device__ __forceinline__ float at(int i) const {
        return is_given ? load<A>(base, i) : ((const float*)base)[i];
    }
    __device__ __forceinline__ Quad<float> quad(int q) const {
        if (A == MARTLET_F32 || !is_given) return load_quad((const float*)base, q, slices.vocabulary);
        typedef typename Number<A>::storage Stored;
        Quad<Stored> stored = load_quad((const Stored*)base, q, slices.vocabulary);
        Quad<float> v;
#pragma unroll
        for (int e = 0; e < 4; ++e) v.x[e] = Number<A>::get(stored.x[e]);
        return v;
    }
    /// Calls f(token, value) for the tokens of this thread, ids rising.
    template <typename F> __device__ __forceinline__ void for_each(F f) const {
#pragma unroll 1
        for (int q = slices.first() + lane_index(), end = slices.end(); q < end; q += 32) {
            Quad<float> v = quad(q);
            int left = slices.vocabulary - 4 * q;
#pragma unroll 1
            for (int e = 0; e < 4; ++e) {  // Unrolled it is no faster, and the code has to come in, too.
                if (e < left) f(4 * q + e, v.x[0]);
                v = v.turned(v.x[0]);
            }
        }
    }
};

__device__ __forceinline__ u64 warp_inclusive(u64 x) {
#pragma unroll
    for (int offset = 1; offset < 32; offset <<= 1) {
        u64 y = __shfl_up_sync(~0u, x, offset);
        if (lane_index() >= offset) x += y;
    }
    return x;
}

/// Sums of the values of earlier threads, and of all.
struct Sum {
    u64 before, total;
};
__device__ __noinline__ Sum block_sums(u64 x) {
    __shared__ u64 parts[32];
    u64 inclusive = warp_inclusive(x);
    if (lane_index() == 31) parts[warp_index()] = inclusive;
    __syncthreads();
    u64 part = lane_index() < WARPS ? parts[lane_index()] : 0, sums = warp_inclusive(part);
    __syncthreads();
    u64 before = __shfl_sync(~0u, sums - part, warp_index());
    return {before + inclusive - x, __shfl_sync(~0u, sums, 31)};
}

__device__ __forceinline__ u64 warp_max(u64 x) {
    u32 high = __reduce_max_sync(~0u, (u32)(x >> 32));
    return (u64)high << 32 | __reduce_max_sync(~0u, high == (u32)(x >> 32) ? (u32)x : 0u);
}

/// Three numbers of which a team wants the greatest.
struct Maxima {
    u64 first, second;
    u32 third;
    __device__ __forceinline__ Maxima of_warp() const {
        return {warp_max(first), warp_max(second), __reduce_max_sync(~0u, third)};
    }
};
__device__ __noinline__ Maxima team_max(Team& team, Maxima mine) {
    __shared__ Maxima parts[WARPS];
    mine = mine.of_warp();
    if (lane_index() == 0) parts[warp_index()] = mine;
    __syncthreads();
    if (warp_index() == 0) mine = parts[lane_index() % WARPS].of_warp();
    const Maxima* all = team.exchange(mine);
    mine = all[0];
#pragma unroll
    for (int r = 1; r < CLUSTER; ++r) {
        mine = {max(mine.first, all[r].first), max(mine.second, all[r].second), max(mine.third, all[r].third)};
    }
    return mine;
}

// ---- Selection ------------------------------------------------------------------------------------------

/// Tokens still in play: the last place that each order's filter keeps, and the least weight.
struct Filter {
    u64 last[3], least;
    __device__ __forceinline__ bool keeps(Order order, int i, float value) const {
        if (value == -MARTLET_INFINITY) return false;
        if (place_of(ordered_key(value), i) < last[Order::VALUE]) return false;
        if ((least | last[Order::PROBABILITY] | last[Order::TYPICALITY]) == 0) return true;
        float x = order.scaled(value);
        if (least > 0 && weight_of(x) < least) return false;
        if (place_of(ordered_key(x), i) < last[Order::PROBABILITY]) return false;
        if (last[Order::TYPICALITY] == 0) return true;
        order.kind = Order::TYPICALITY;
        return order.place(i, value) >= last[Order::TYPICALITY];
    }
};

/// How much of a sum a selection has to reach: a number, or a part of the total.
struct Share {
    u64 number;
    float part;
    __device__ __forceinline__ u64 of(u64 total) const {
        u64 target = number > 0 ? number : part_of(part, total);
        return target > 1 ? target : 1;
    }
};

struct alignas(16) Pair {
    u64 first, second;
};
__shared__ Pair histogram[THREADS];

__device__ __forceinline__ void clear_histogram() {
    histogram[threadIdx.x] = {0, 0};
    __syncthreads();
}

/// Adds to a bin, as two words with a carry: shared memory has no 64-bit addition.
__device__ __forceinline__ void count(int bin, u64 x) {
    u32* words = (u32*)&((u64*)histogram)[bin];
    u32 low = (u32)x, high = (u32)(x >> 32) + (atomicAdd(words, low) + low < low);
    if (high) atomicAdd(words + 1, high);
}

/// 64 bins per factor of two from 2^-8 to 2^8, the rest in the outer ones.
__device__ __forceinline__ int bin_of(float distance) {
    return min(max((__float_as_int(distance) >> 17) - (119 << 6), 0), BINS - 1);
}

/// The first bin with which the running sum reaches the share; -1 if it does not.
struct Found {
    int bin;
    u64 remaining, total;
};

__device__ __noinline__ Found find_bin(Team& team, Share share) {
    __shared__ Found found;
    team_barrier();
    if (team.rank == 0) {
        Pair own = {0, 0};
#pragma unroll
        for (int r = 0; r < CLUSTER; ++r) {
            Pair other = *peer(&histogram[threadIdx.x], r);
            own = {own.first + other.first, own.second + other.second};
        }
        Sum sum = block_sums(own.first + own.second);
        u64 before = sum.before, middle = before + own.first, end = middle + own.second;
        u64 target = share.of(sum.total);
        if (threadIdx.x == 0) found = {-1, 0, sum.total};
        __syncthreads();
        if (before < target && target <= end) {
            bool is_second = middle < target;
            found = {(int)threadIdx.x * 2 + is_second, target - (is_second ? middle : before), sum.total};
        }
        __syncthreads();
    }
    return team.exchange(found)[0];
}

/// Tokens in the first block's shared memory; those that a filter there drops become -infinity.
struct List {
    int count;
    int tokens[LIST];
    float values[LIST];
    u64 places[LIST], sizes[LIST];
};
__shared__ List list;

__device__ __forceinline__ void open_list() {
    if (threadIdx.x == 0) list.count = 0;
    __syncthreads();
}
__device__ __forceinline__ void enlist(int token, float value) {
    int at = atomicAdd(&list.count, 1);
    if (at < LIST) {
        list.tokens[at] = token;
        list.values[at] = value;
    }
}
/// How many tokens the team has listed; at most LIST of them then stand in the first block's list.
__device__ __noinline__ int close_list(Team& team) {
    __syncthreads();
    const int* counts = team.exchange(list.count);
    int total = 0;
    for (int r = 0; r < CLUSTER; ++r) total += counts[r];
    if (CLUSTER > 1 && team.rank == 0 && total <= LIST) {
        int t = threadIdx.x;
        if (t >= counts[0] && t < total) {
            int rank = 0, at = t;
            while (at >= counts[rank]) at -= counts[rank++];
            list.tokens[t] = *peer(&list.tokens[at], rank);
            list.values[t] = *peer(&list.values[at], rank);
        }
    }
    __syncthreads();
    return total;
}

/// Lists the team's tokens that f(token, value) wants.
template <typename F> __device__ __forceinline__ int gather(Team& team, const Row& row, F wants) {
    open_list();
    row.for_each([&](int i, float value) {
        if (wants(i, value)) enlist(i, value);
    });
    return close_list(team);
}

/// Calls f(j, sum of the sizes of tokens with a greater place) for every listed token, 8 lanes on each. All of
/// the block; a barrier behind it.
template <typename F> __device__ __forceinline__ void for_each_listed(int count, F f) {
    int part = lane_index() & 7;
    for (int base = warp_index() * 4; base < count; base += WARPS * 4) {
        int j = base + lane_index() / 8;
        u64 own = list.places[min(j, count - 1)], sum = 0;
#pragma unroll 2
        for (int i = part; i < count; i += 8) {
            if (list.places[i] > own) sum += list.sizes[i];
        }
        for (int offset = 1; offset < 8; offset <<= 1) sum += __shfl_xor_sync(~0u, sum, offset);
        if (part == 0 && j < count) f(j, sum);
    }
    __syncthreads();
}

/// Sets places and sizes of the listed tokens by functions of token and value.
template <typename P, typename S>
__device__ __forceinline__ void order_list(int count, P place, S size) {
    int t = threadIdx.x;
    if (t < count) {
        list.places[t] = place(list.tokens[t], list.values[t]);
        list.sizes[t] = size(list.values[t]);
    }
    __syncthreads();
}
__device__ __forceinline__ void order_list(int count, const Order& order) {
    order_list(
        count, [&](int i, float value) { return order.place(i, value); },
        [&](float value) { return order.measure(value); });
}
__device__ __forceinline__ u64 place_by_token(int i, float) { return place_of(0, i); }

/// Lists the best tokens, at least k of them or all, by the bin that k threads' greatest ones reach.
__device__ __noinline__ int gather_best(Team& team, Row row, Order order, int k, float most) {
    clear_histogram();
    if (most != -MARTLET_INFINITY) count(bin_of(order.distance(most)), 1);
    int bin = find_bin(team, {(u64)k, 0}).bin;
    if (bin < 0) bin = BINS - 1;
    auto wants = [&](float value) { return value != -MARTLET_INFINITY && bin_of(order.distance(value)) <= bin; };
    open_list();
    const int unroll = 2, end = slices.end();
#pragma unroll 1
    for (int first = slices.first() + lane_index(); first < end; first += 32 * unroll) {
        Quad<float> v[unroll];
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            if (first + 32 * u < end) v[u] = row.quad(first + 32 * u);
        }
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            int q = first + 32 * u, left = q < end ? slices.vocabulary - 4 * q : 0;
            if (left <= 0 || !wants(fmaxf(fmaxf(v[u].x[0], v[u].x[1]), fmaxf(v[u].x[2], v[u].x[3])))) continue;
#pragma unroll 1
            for (int e = 0; e < min(left, 4); ++e) {
                if (wants(v[u].x[0])) enlist(4 * q + e, v[u].x[0]);
                v[u] = v[u].turned(0);
            }
        }
    }
    return close_list(team);
}

/// A selection among the tokens that a filter keeps: `last`, the place of the last token of the shortest run
/// that reaches the share; 0 if none does. Or, where `listed` is at most LIST, a list that holds this run.
struct Selection {
    int listed;
    u64 last, total;
};

__device__ __noinline__ Selection select(
    Team& team, Row row, Filter filter, Order order, Share share, bool may_list) {
    clear_histogram();
    row.for_each([&](int i, float value) {
        if (!filter.keeps(order, i, value)) return;
        u64 size = order.measure(value);
        if (size > 0) count(bin_of(order.distance(value)), size);
    });
    Found found = find_bin(team, share);
    Selection selection = {LIST + 1, 0, found.total};
    if (found.bin < 0) return selection;
    int bin = found.bin;
    if (may_list) {
        selection.listed = gather(team, row, [&](int i, float value) {
            return filter.keeps(order, i, value) && bin_of(order.distance(value)) <= bin;
        });
        if (selection.listed <= LIST) return selection;
    }
    // The ten uppermost bits in which places in the bin differ, until what is left of it fits.
    int left, shift = 64;
    u64 prefix = 0, low, high;
    auto is_left = [&](int i, float value) {
        if (!filter.keeps(order, i, value) || bin_of(order.distance(value)) != bin) return false;
        u64 place = order.place(i, value);
        if (shift < 64 && place >> shift != prefix) return false;
        low = min(low, place);
        high = max(high, place);
        return true;
    };
    while (low = ~0ull, high = 0, (left = gather(team, row, is_left)) > LIST) {
        Maxima ends = team_max(team, {~low, high, 0});
        int digit = max(54 - __clzll(ends.second ^ ~ends.first), 0);
        clear_histogram();
        row.for_each([&](int i, float value) {
            u64 size = order.measure(value);
            if (size == 0 || !is_left(i, value)) return;
            count(BINS - 1 - (order.place(i, value) >> digit & (BINS - 1)), size);
        });
        found = find_bin(team, {found.remaining, 0});
        shift = digit;
        prefix = (ends.second >> shift) / BINS * BINS + (BINS - 1 - found.bin);
    }
    __shared__ u64 last;
    if (team.rank == 0) {
        order_list(left, order);
        for_each_listed(left, [&](int j, u64 sum) {
            if (sum < found.remaining && sum + list.sizes[j] >= found.remaining) last = list.places[j];
        });
    }
    selection.last = team.exchange(last)[0];
    return selection;
}
