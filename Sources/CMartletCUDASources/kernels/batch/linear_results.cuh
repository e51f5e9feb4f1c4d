// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Results of linear_batch: sums of all parts of K, exchanged in a cluster, scaled, gated, added, written.
#pragma once
#include "linear_products.cuh"

namespace {
constexpr int quads = GATED ? 2 : 4;  // fours of rows that a strip and token have
constexpr int item_turns = (share * quads + threads - 1) / threads;

/// Place of four numbers in a part, spread over the banks.
__device__ __forceinline__ int place_of(int part_row, int row) {
    return ((part_row * 16 + row) ^ ((part_row >> 1 & 3) << 3)) * 4;
}

/// Four results of a token, one below the other in the weight.
struct Result {
    int part_row, strip, token, quad, n;
    bool is_there;
    u32 residual[2];  // pairs as they come: who converts them waits for them

    __device__ __forceinline__ Result(int item, int rank, int first, int count, int rows) {
        quad = item % quads;
        part_row = rank * share + item / quads;
        token = part_row % TOKENS;
        strip = part_row / TOKENS;
        n = (first + strip) * (GATED ? 8 : 16) + quad * 4;
        is_there = item < share * quads && strip < count && token < rows && n < outputs;
    }
    template <int TYPE> static __device__ __forceinline__ bool is_vector(const Rows& rows) {
        constexpr int size = sizeof(typename Number<TYPE>::storage);
        return (((u64)rows.base & (size * 4 - 1)) | (rows.stride & 3)) == 0;
    }
    __device__ __forceinline__ void load_residual(const BatchLinearArguments& a) {
        if (!RESIDUAL || !is_there) return;
        const u16* p = (const u16*)a.residual.base + token * a.residual.stride + n;
        if (n + 4 <= outputs && is_vector<ACTIVATION>(a.residual)) {
            asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(residual[0]), "=r"(residual[1]) : "l"(p));
        } else {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const u32 low = n + 2 * i < outputs ? load_fresh_16(p + 2 * i) : 0;
                residual[i] = low | (n + 2 * i + 1 < outputs ? (u32)load_fresh_16(p + 2 * i + 1) << 16 : 0);
            }
        }
    }
    __device__ __forceinline__ void add_residual(Four& f) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            f.v[2 * i] += low_half<ACTIVATION>(residual[i]);
            f.v[2 * i + 1] += high_half<ACTIVATION>(residual[i]);
        }
    }
    /// Sums of this token and four rows from `row` of the strip on: all parts, in their order.
    __device__ __forceinline__ Four sum(int rank, int row) const {
        const u32 own = shared_address(shared) + place_of(part_row, row);
        Four total = {{0, 0, 0, 0}};
#pragma unroll
        for (int r = 0; r < CLUSTER; ++r) {
            u32 other = own - rank * share * 64 + received_at + (r - (r > rank)) * share * 64;
#pragma unroll
            for (int g = 0; g < (CLUSTER > 1 ? 1 : GROUPS); ++g) {
                Four f = four_at(r == rank ? own + g * part_bytes : other);
#pragma unroll
                for (int i = 0; i < 4; ++i) total.v[i] += f.v[i];
            }
        }
        return total;
    }
    /// Results times the weight of the norm behind; their squares for the block's sum.
    __device__ __forceinline__ void write_scaled(const BatchLinearArguments& a, const Four& f) const {
        const u32 *weights = (const u32*)(a.norm.weight + n), low = pack_pair<RESULT>(f.v[0], f.v[1]),
                  high = pack_pair<RESULT>(f.v[2], f.v[3]);
        float squares = 0;
        const u32 pair[2] = {scaled_pair(low, __ldg(weights), squares), scaled_pair(high, __ldg(weights + 1), squares)};
        asm volatile("st.global.v2.u32 [%0], {%1,%2};" ::"l"((u16*)a.norm.scaled.base + token * a.norm.scaled.stride + n),
            "r"(pair[0]), "r"(pair[1]) : "memory");
        // The four threads of a strip and token are neighbours.
        const u32 these = 0xfu << (lane_index() & 28);
        squares += __shfl_xor_sync(these, squares, 1);
        squares += __shfl_xor_sync(these, squares, 2);
        if (quad == 0) ((float*)(shared + norm_at))[part_row] = squares;
    }
    /// Scales and bias of rows from `row` of the strip on, of which `n_bias` is the first's bias.
    __device__ __forceinline__ void finish(
        const BatchLinearArguments& a, Four& f, int row, int n_bias, float x_sum) const {
        const u32 channels = shared_address(shared) + channels_at + (strip * 16 + row) * 4;
        Four scales, zeros;
        if (channels_bytes > 0) scales = four_at(channels);
        if (channels_bytes > 0 && has_zeros) zeros = four_at(channels + channels_bytes);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float v = f.v[i];
            if (channels_bytes > 0) {
                const float scale = scales.v[i];
                if (has_zeros) {
                    constexpr float middle = WEIGHT == MARTLET_U4 ? 8 : 128;
                    const float zero = zeros.v[i];
                    v = ZERO == MARTLET_ZERO_INTEGER ? scale * fmaf(middle - zero, x_sum, v)
                                                     : fmaf(scale, v, fmaf(middle, scale, zero) * x_sum);
                } else {
                    v *= scale;
                }
            }
            if (FACTOR) v *= ((const float*)(shared + norm_at))[token];
            f.v[i] = BIAS && n + i < outputs ? v + load<ACTIVATION>(a.bias, n_bias + i) : v;
        }
    }
    __device__ __forceinline__ void write(const BatchLinearArguments& a, const Four& f) const {
        constexpr int size = sizeof(typename Number<RESULT>::storage);
        u8* p = (u8*)a.y.base + (token * a.y.stride + n) * size;
        if (n + 4 <= outputs && is_vector<RESULT>(a.y)) {
            if (size == 4) {
                asm volatile("st.global.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(p), "f"(f.v[0]), "f"(f.v[1]),
                    "f"(f.v[2]), "f"(f.v[3]) : "memory");
            } else {
                asm volatile("st.global.v2.u32 [%0], {%1,%2};" ::"l"(p), "r"(pack_pair<RESULT>(f.v[0], f.v[1])),
                    "r"(pack_pair<RESULT>(f.v[2], f.v[3])) : "memory");
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (n + i < outputs) store<RESULT>(p, i, f.v[i]);
            }
        }
    }
};

__device__ __forceinline__ float gated(float gate, float up) {
    if (GATED == 1) return __fdividef(gate, 1 + __expf(-gate)) * up;
    float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
    return gate * (1 - __fdividef(1, 1 + __expf(2 * inner))) * up;
}

/// A row's sum of x over the cluster.
__device__ __forceinline__ float x_sum(int token, int rank) {
    const float* sums = (const float*)(shared + sums_at) + GROUPS * TOKENS + token;
    float sum = 0;
#pragma unroll
    for (int r = 0; r < CLUSTER; ++r) sum += sums[(r == rank ? 0 : r + (r < rank)) * TOKENS];
    return sum;
}

/// Barrier that counts the bytes which other blocks send.
__device__ __forceinline__ u32 received() { return shared_address(shared) + barriers_at + BUFFERS * 16; }

/// Rows of a block's share.
__device__ __forceinline__ int share_rows(int rank) { return max(min(part_rows - rank * share, share), 0); }

/// The block's parts of sums, of all warps, in shared memory in one part per group.
__device__ __forceinline__ void put_parts(const Products& products, int count) {
    const int warp = warp_index(), lane = lane_index(), g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) {
        int strip = warp % row_warps * STRIPS + s;
        if (strip >= count) continue;
        float* part = (float*)(shared + warp / row_warps * part_bytes) + (strip * TOKENS + 2 * t) * 16 + g;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            // As place_of: bit 3 of the place is the half of the strip, bit 4 the lowest of the token.
            int place = (((i & 1) << 1 | i >> 1) ^ t) << 3;
#pragma unroll
            for (int j = 0; j < columns; ++j) part[j * 128 + place] = products.c[0][s][j * 4 + i];
        }
    }
}

/// Sends the other blocks of the cluster their shares of this block's parts, and waits for its own.
__device__ __forceinline__ void exchange(int rank) {
    const u32 base = shared_address(shared);
    if (GROUPS > 1 && CLUSTER > 1) {
        __syncthreads();
        for (int i = threadIdx.x; i < part_bytes / 16; i += threads) {
            Four total = four_at(base + i * 16);
#pragma unroll
            for (int g = 1; g < GROUPS; ++g) {
                Four f = four_at(base + g * part_bytes + i * 16);
#pragma unroll
                for (int j = 0; j < 4; ++j) total.v[j] += f.v[j];
            }
            put_four(base + i * 16, total);
        }
    }
    if (needs_sums && threadIdx.x < TOKENS) {
        float* sums = (float*)(shared + sums_at) + threadIdx.x;
        float sum = 0;
        for (int g = 0; g < GROUPS; ++g) sum += sums[g * TOKENS];
        sums[GROUPS * TOKENS] = sum;
    }
#if CLUSTER > 1
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    cluster_wait();  // all barriers are there
    __syncthreads();
    const int other = threadIdx.x;
    if (other < CLUSTER && other != rank) {
        const int slot = rank - (rank > other);
        if (share_rows(other) > 0) {
            send(base + received_at + slot * share * 64, base + other * share * 64, share_rows(other) * 64, received(),
                other);
        }
        if (needs_sums) {
            u32 own = base + sums_at + GROUPS * sums_bytes;
            send(own + (1 + slot) * sums_bytes, own, sums_bytes, received(), other);
        }
    }
    __syncwarp();
    barrier_wait(received(), 0);
    cluster_arrive();
#else
    __syncthreads();
#endif
}

/// Sums of squares of the rows in front, several threads a row.
__device__ __forceinline__ void gather_squares(const BatchLinearArguments& a, int rows) {
    for (int i = threadIdx.x; i < norm_parts * TOKENS; i += threads) {
        const int row = i % TOKENS;
        ((float*)(shared + norm_at))[i] = row < rows ? sum_of_squares(a.norm, row, i / TOKENS, norm_parts) : 0;
    }
}
/// The rows' factors of these sums, in the place of their first part.
__device__ __forceinline__ void put_factors(const BatchLinearArguments& a) {
    float* sums = (float*)(shared + norm_at);
    for (int row = threadIdx.x; row < TOKENS; row += threads) {
        float total = 0;
#pragma unroll
        for (int i = 0; i < norm_parts; ++i) total += sums[i * TOKENS + row];
        sums[row] = norm_factor(a.norm, total, INPUTS);
    }
}

/// Parts of all warps and blocks of the cluster become results.
__device__ __forceinline__ void finish(const BatchLinearArguments& a, const Products& products, int rank,
    int first, int count, int rows, const Result& early) {
    if (NEXT_NORM) {
        for (int i = threadIdx.x; i < part_rows; i += threads) ((float*)(shared + norm_at))[i] = 0;
    }
    copies_wait<0>();
    __syncthreads();
    if (FACTOR) put_factors(a);
    put_parts(products, count);
    exchange(rank);
    MARTLET_TRACE(4);
    constexpr int batch = item_turns < 4 ? item_turns : 4;
#pragma unroll 1
    for (int turn = 0; turn < item_turns; turn += batch) {
        Four sums[batch][GATED ? 2 : 1];
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            Result result((turn + i) * threads + threadIdx.x, rank, first, count, rows);
            if (!result.is_there) continue;
            sums[i][0] = result.sum(rank, result.quad * 4);
            if (GATED) sums[i][GATED ? 1 : 0] = result.sum(rank, 8 + result.quad * 4);
        }
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            Result result((turn + i) * threads + threadIdx.x, rank, first, count, rows);
            if (!result.is_there) continue;
            if (turn + i == 0) {
                result.residual[0] = early.residual[0], result.residual[1] = early.residual[1];
            } else {
                result.load_residual(a);
            }
            float x = needs_sums ? x_sum(result.token, rank) : 0;
            result.finish(a, sums[i][0], result.quad * 4, result.n, x);
            if (GATED) {
                Four& up = sums[i][GATED ? 1 : 0];
                result.finish(a, up, 8 + result.quad * 4, outputs + result.n, x);
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][0].v[j] = gated(sums[i][0].v[j], up.v[j]);
            }
            if (RESIDUAL) result.add_residual(sums[i][0]);
            result.write(a, sums[i][0]);
            if (NEXT_NORM) result.write_scaled(a, sums[i][0]);
        }
    }
    if (NEXT_NORM) {
        __syncthreads();
        for (int row = threadIdx.x; row < rows; row += threads) {
            float total = 0;
#pragma unroll
            for (int i = 0; i < most; ++i) total += ((const float*)(shared + norm_at))[i * TOKENS + row];
            a.norm.squares[(i64)blockIdx.x * a.norm.stride + row] = total;
        }
    }
    cluster_wait();  // no block leaves while another may read what it sent
}
}  // namespace
