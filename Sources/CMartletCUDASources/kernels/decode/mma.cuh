// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Matrix instructions and wide loads of the decode kernels, as PTX.
#pragma once
#include "martlet.cuh"

struct alignas(16) Word {
    u32 x, y, z, w;
};

/// 16 bytes that no kernel writes while this one runs, read once: they skip the first cache.
__device__ __forceinline__ Word load_once(const void* p) {
    Word v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
/// 16 bytes that an earlier kernel wrote.
__device__ __forceinline__ Word load_fresh(const void* p) {
    Word v;
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
__device__ __forceinline__ u16 load_fresh_16(const void* p) {
    u16 v;
    asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(v) : "l"(p));
    return v;
}
// Pairs of f16 or bf16 numbers; before sm_90 those of bf16 know one instruction.
template <int TYPE> __device__ __forceinline__ u32 pair_fused(u32 a, u32 b, u32 c) {
    u32 r;
    if (TYPE == MARTLET_BF16) {
        asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    } else {
        asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    }
    return r;
}
template <int TYPE> __device__ __forceinline__ u32 pair_subtract(u32 a, u32 b) {
    if (TYPE == MARTLET_BF16) return pair_fused<TYPE>(b, 0xbf80bf80, a);
    u32 r;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
template <int TYPE> __device__ __forceinline__ u32 pair_multiply(u32 a, u32 b) {
    if (TYPE == MARTLET_BF16) return pair_fused<TYPE>(a, b, 0x80008000);
    u32 r;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ Word shared_word(u32 address) {
    Word v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
    return v;
}
__device__ __forceinline__ void shared_put(u32 address, u32 x) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(x) : "memory");
}

/// Two numbers in a 32-bit register, the first in the low half.
template <int TYPE> __device__ __forceinline__ u32 pack_pair(float low, float high) {
    u32 r;
    if (TYPE == MARTLET_BF16) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    }
    return r;
}
template <int TYPE> __device__ __forceinline__ float low_half(u32 pair) {
    return TYPE == MARTLET_BF16 ? __int_as_float(pair << 16) : f16_to_f32((u16)pair);
}
template <int TYPE> __device__ __forceinline__ float high_half(u32 pair) {
    return TYPE == MARTLET_BF16 ? __int_as_float(pair & 0xffff0000u) : f16_to_f32((u16)(pair >> 16));
}

/// c += a b, with a 16 x 16 (row g and g + 8, k pairs at 2t and 2t + 8) and b 16 x 8; f32 sums.
template <int TYPE>
__device__ __forceinline__ void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if (TYPE == MARTLET_BF16) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
}
/// An 8 x 8 matrix of 16-bit numbers, transposed.
__device__ __forceinline__ u32 transpose(u32 pair) {
    u32 r;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(pair));
    return r;
}
/// (word & MASK) | MAGIC: codes as f16 numbers 1024 + code (or 1024 + 16 code), or as bf16 numbers 128 + code.
template <u32 MASK, u32 MAGIC = 0x64006400> __device__ __forceinline__ u32 nibbles(u32 word) {
    u32 r;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(word), "n"(MASK), "n"(MAGIC));
    return r;
}
/// Codes of two bytes, low halves of a pair, less 128 as bf16 numbers, exactly.
__device__ __forceinline__ u32 centred_bytes(u32 pair) {
    u32 low = nibbles<0x007f007f, 0x43004300>(pair), rest;  // 128 + code % 128
    // -256, or -128 where the code is at least that.
    asm("lop3.b32 %0, %1, %2, %3, 0xae;" : "=r"(rest) : "r"(pair), "n"(0x00800080), "n"(0xc300c300));
    return pair_fused<MARTLET_BF16>(low, 0x3f803f80, rest);
}

// With -DTRACE=1 a block's first thread leaves the time of six moments, for scripts/kernel-lab.
#ifdef TRACE
__device__ __forceinline__ void trace(u64* to, int i) {
    if (threadIdx.x) return;
    u64 time;
    u32 place;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time)::"memory");
    asm volatile("mov.u32 %0, %%smid;" : "=r"(place));
    u64* row = to + (blockIdx.x + gridDim.x * blockIdx.y) * 8;
    row[i] = time;
    row[7] = place;
}
#define MARTLET_TRACE(i) trace(a.trace, i)
#else
#define MARTLET_TRACE(i)
#endif
