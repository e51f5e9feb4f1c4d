// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// The sampler's mathematics in plain IEEE operations, never fused: the same bits as on the host.
#pragma once
#include "martlet.cuh"

/// One record per request, as the step record holds it.
struct SamplingParameters {
    float temperature;
    i32 top_k;
    float top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty;
    u32 seed_low, seed_high, output_position;
    i32 log_probability_count, bias_start, bias_count, prompt_history_count;
    u32 flags;
};

struct LogitBias {
    i32 token;
    float bias;
};

#define RESET_STATE 1u
#define PROMPT_MARK 0x80000000u
#define WEIGHT_ONE (1ull << 40)

/// First word of Philox-4x32-10 for (position, 0, 0, 0): 24 of its bits are the draw.
__device__ inline u32 philox(u32 position, u32 k0, u32 k1) {
    u32 c0 = position, c1 = 0, c2 = 0, c3 = 0;
    for (int round = 0; round < 10; ++round) {
        if (round > 0) {
            k0 += 0x9e3779b9u;
            k1 += 0xbb67ae85u;
        }
        u64 a = (u64)0xd2511f53u * c0, b = (u64)0xcd9e8d57u * c2;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c1 = (u32)b;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c3 = (u32)a;
    }
    return c0;
}

/// exp(x) in units of 2^-40, for x <= 0.
__device__ __forceinline__ u64 weight_of(float x) {
    x = x < -60.0f ? -60.0f : x;
    const float magic = 12582912.0f;
    float shifted = __fadd_rn(__fmul_rn(x, 1.44269504f), magic);
    float whole = __fsub_rn(shifted, magic);
    float r = __fsub_rn(__fsub_rn(x, __fmul_rn(whole, 0.693359375f)), __fmul_rn(whole, -2.12194440e-4f));
    float p = __fadd_rn(__fmul_rn(r, 1.0f / 5040.0f), 1.0f / 720.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 120.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 24.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 6.0f);
    p = __fadd_rn(__fmul_rn(p, r), 0.5f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    i32 n = __float_as_int(shifted) - 0x4b400000;
    float y = __fmul_rn(p, __int_as_float((n + 127) << 23));
    return (u64)(i64)__fmul_rn(y, 1099511627776.0f);
}

/// Natural logarithm of a number of at least 1.
__device__ inline double logarithm(double x) {
    i64 bits = __double_as_longlong(x);
    double e = (double)((int)(bits >> 52 & 0x7ff) - 1023);
    double m = __longlong_as_double((bits & 0xfffffffffffffll) | 0x3ff0000000000000ll);
    if (m > 1.4142135623730951) {
        m = __dmul_rn(m, 0.5);
        e = __dadd_rn(e, 1.0);
    }
    double z = __ddiv_rn(__dadd_rn(m, -1.0), __dadd_rn(m, 1.0));
    double square = __dmul_rn(z, z), sum = 0;
    for (int k = 23; k >= 1; k -= 2) {
        sum = __dadd_rn(__dmul_rn(sum, square), __ddiv_rn(1.0, (double)k));
    }
    return __dadd_rn(__dmul_rn(e, 0.6931471805599453), __dmul_rn(__dmul_rn(2.0, z), sum));
}

/// A number whose unsigned order is that of the float; both zeros are equal.
__device__ __forceinline__ u32 ordered_key(float value) {
    u32 bits = __float_as_int(__fadd_rn(value, 0.0f));
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/// So much of a total, rounded up; at least 1.
__device__ __forceinline__ u64 part_of(float fraction, u64 total) {
    if (!(fraction > 0)) return 1;
    u64 part = (u64)ceil(__dmul_rn((double)fraction, (double)total));
    return part < total ? part : total;
}

/// Where a token stands in an order: greater comes first, and equal keys rank by rising id.
__device__ __forceinline__ u64 place_of(u32 key, int token) { return (u64)key << 32 | (u32)~token; }
__device__ __forceinline__ int token_at(u64 place) { return (int)~(u32)place; }
/// The value whose key a place has.
__device__ __forceinline__ float value_at(u64 place) {
    u32 key = (u32)(place >> 32);
    return __int_as_float(key >> 31 ? key & 0x7fffffff : ~key);
}

/// What an order of tokens goes by, and what a selection adds up. Forbidden tokens, -infinity, count nothing.
struct Order {
    enum Kind { VALUE, PROBABILITY, TYPICALITY } kind;
    float greatest, temperature, mean;
    __device__ __forceinline__ float scaled(float value) const {
        return __fdiv_rn(__fsub_rn(value, greatest), temperature);
    }
    /// How far behind the first place: rises where the key falls, or stays.
    __device__ __forceinline__ float distance(float value) const {
        if (kind == VALUE) return __fsub_rn(greatest, value);
        float x = scaled(value);
        return kind == PROBABILITY ? -x : fabsf(__fsub_rn(mean, x));
    }
    __device__ __forceinline__ u64 place(int token, float value) const {
        return place_of(ordered_key(kind == VALUE ? value : -distance(value)), token);
    }
    __device__ __forceinline__ u64 weight(float value) const { return weight_of(scaled(value)); }
    __device__ __forceinline__ u64 measure(float value) const {
        return kind == VALUE ? value != -MARTLET_INFINITY : weight(value);
    }
};
