// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// What all kernels share: number formats, the step's counts, and PTX that CUDA's own headers would wrap.
// Self-contained, because NVRTC ships no headers. Kernels are `extern "C" __global__`, take one struct by
// value, and are specialised by -D definitions:
//
//   ACTIVATION, RESULT, KV, SCALE   MARTLET_F32, MARTLET_F16 or MARTLET_BF16
//   WEIGHT                          these, or MARTLET_U4, MARTLET_U8
//   ZERO                            MARTLET_ZERO_NONE, _INTEGER or _MINIMUM
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#define MARTLET_F32 0
#define MARTLET_F16 1
#define MARTLET_BF16 2
#define MARTLET_U4 4
#define MARTLET_U8 8
#define MARTLET_ZERO_NONE 0
#define MARTLET_ZERO_INTEGER 1
#define MARTLET_ZERO_MINIMUM 2

#define MARTLET_KERNEL extern "C" __global__ void
#define MARTLET_INFINITY __int_as_float(0x7f800000)
#define MARTLET_NAN __int_as_float(0x7fffffff)

// ---- Number formats -------------------------------------------------------------------------------------

__device__ __forceinline__ float f16_to_f32(u16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
__device__ __forceinline__ u16 f32_to_f16(float x) {
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float bf16_to_f32(u16 x) { return __int_as_float((u32)x << 16); }
__device__ __forceinline__ u16 f32_to_bf16(float x) {
    u16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

/// A stored floating-point type: bytes, and conversion from and to f32.
template <int TYPE> struct Number;
template <> struct Number<MARTLET_F32> {
    typedef float storage;
    static __device__ __forceinline__ float get(float x) { return x; }
    static __device__ __forceinline__ float put(float x) { return x; }
};
template <> struct Number<MARTLET_F16> {
    typedef u16 storage;
    static __device__ __forceinline__ float get(u16 x) { return f16_to_f32(x); }
    static __device__ __forceinline__ u16 put(float x) { return f32_to_f16(x); }
};
template <> struct Number<MARTLET_BF16> {
    typedef u16 storage;
    static __device__ __forceinline__ float get(u16 x) { return bf16_to_f32(x); }
    static __device__ __forceinline__ u16 put(float x) { return f32_to_bf16(x); }
};

/// Element `i` of an array of a type.
template <int TYPE> __device__ __forceinline__ float load(const void* p, i64 i) {
    return Number<TYPE>::get(((const typename Number<TYPE>::storage*)p)[i]);
}
template <int TYPE> __device__ __forceinline__ void store(void* p, i64 i, float x) {
    ((typename Number<TYPE>::storage*)p)[i] = Number<TYPE>::put(x);
}

/// Element `i` of an array whose type is known at run time only.
__device__ __forceinline__ float load_any(const void* p, int type, i64 i) {
    if (type == MARTLET_F16) return load<MARTLET_F16>(p, i);
    if (type == MARTLET_BF16) return load<MARTLET_BF16>(p, i);
    return load<MARTLET_F32>(p, i);
}

// ---- The step -------------------------------------------------------------------------------------------

/// Counts of the step that runs: grids depend on the bucket only, so kernels look here.
struct StepCounts {
    i32 tokens, requests, logit_rows;
    u32 flags;    // bits of STEP_...
    i32 singles;  // requests of one token each in front of all others, whose attention is attention_decode's
};

/// The step has masks of allowed tokens.
#define STEP_HAS_MASK 1u

/// A number of rows, affine in the counts.
struct RowCount {
    i32 constant, tokens, requests, logit_rows;
    __device__ __forceinline__ int of(const StepCounts* step) const {
        return constant + tokens * step->tokens + requests * step->requests
            + logit_rows * step->logit_rows;
    }
};

/// Rows of a buffer, `stride` elements apart.
struct Rows {
    void* base;
    i64 stride;
    template <int TYPE> __device__ __forceinline__ float get(i64 row, i64 column) const {
        return load<TYPE>(base, row * stride + column);
    }
    template <int TYPE> __device__ __forceinline__ void put(i64 row, i64 column, float x) const {
        store<TYPE>(base, row * stride + column, x);
    }
};

/// A vector of parameters; absent if its address is null.
struct Vector {
    const void* base;
    i32 type, reserved;
    __device__ __forceinline__ float get(i64 i) const { return load_any(base, type, i); }
};

/// One KV group in the step, and where its pages lie.
///
/// A page holds `block_size` tokens as blocks of 64, `block_bytes` apart; in a block, layer by layer,
/// keys then values as [kv head][64][head dim]. Positions count from the request's first token.
struct KVPages {
    u8* base;
    i64 page_bytes, block_bytes, layer_offset;
    const i32* start;   // [B] position of the first token that the table covers
    const i32* length;  // [B]
    const i32* table;   // [B][table_columns]
    const i32* slot;    // [T]
    i32 table_columns, block_size, kv_heads, head_dim;

    /// First byte of the layer's block that holds a position of a request.
    __device__ __forceinline__ u8* block(int request, int position) const {
        int page = table[request * table_columns + position / block_size - start[request] / block_size];
        return base + page * page_bytes + position % block_size / 64 * block_bytes + layer_offset;
    }
    /// The same for a slot.
    __device__ __forceinline__ u8* block_of_slot(int slot) const {
        return base + slot / block_size * page_bytes + slot % block_size / 64 * block_bytes
            + layer_offset;
    }
};

// ---- Threads --------------------------------------------------------------------------------------------

__device__ __forceinline__ int lane_index() { return threadIdx.x & 31; }
__device__ __forceinline__ int warp_index() { return threadIdx.x >> 5; }

/// Sum over a warp in a fixed order; every lane gets it.
__device__ __forceinline__ float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(~0u, x, offset);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
    return x;
}
__device__ __forceinline__ u64 warp_sum(u64 x) {
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(~0u, x, offset);
    return x;
}

/// Sum over a block of whole warps, at most 32; every thread gets it. Barriers before and after.
template <typename T> __device__ __forceinline__ T block_sum(T x) {
    __shared__ T parts[32];
    x = warp_sum(x);
    if (lane_index() == 0) parts[warp_index()] = x;
    __syncthreads();
    T total = parts[0];
    for (unsigned i = 1; i < blockDim.x / 32; ++i) total += parts[i];
    __syncthreads();
    return total;
}
__device__ __forceinline__ float block_max(float x) {
    __shared__ float parts[32];
    x = warp_max(x);
    if (lane_index() == 0) parts[warp_index()] = x;
    __syncthreads();
    float greatest = parts[0];
    for (unsigned i = 1; i < blockDim.x / 32; ++i) greatest = fmaxf(greatest, parts[i]);
    __syncthreads();
    return greatest;
}

// ---- Programmatic dependent launch ----------------------------------------------------------------------

/// Waits for the kernels in front; every kernel launched as a dependent one must call it.
__device__ __forceinline__ void wait_for_producers() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Lets the kernel behind begin.
__device__ __forceinline__ void release_dependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// The start of a kernel that does nothing before its producers' results: the one behind begins beside it.
__device__ __forceinline__ void begin_in_chain() {
    release_dependents();
    wait_for_producers();
}
