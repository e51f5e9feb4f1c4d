// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Barriers, bulk copies and warpgroup matrix instructions of sm_90a, as PTX.
#pragma once
#include "mma.cuh"

/// 128 bytes that the host encodes: shape, strides, box and swizzle of a matrix in device memory.
struct alignas(64) TensorMap {
    u64 words[16];
};

// ---- Barriers in shared memory --------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(u32 barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@!p bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}
/// Makes barriers, just initialised, visible to the copy engine.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
/// Threads of one warpgroup, or of several, wait for each other.
__device__ __forceinline__ void group_barrier(int index, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(index), "r"(threads) : "memory");
}

// ---- Copies to shared memory ----------------------------------------------------------------------------

/// A box of a matrix, from column and row on.
__device__ __forceinline__ void copy_box(
    u32 target, const TensorMap* map, int column, int row, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(target), "l"(map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}
/// Contiguous bytes, a multiple of 16.
__device__ __forceinline__ void copy_bytes(u32 target, const void* source, u32 bytes, u32 barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            target), "l"(source), "r"(bytes), "r"(barrier) : "memory");
}

// ---- Warpgroup matrix instructions ----------------------------------------------------------------------

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int PENDING> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
template <int REGISTERS> __device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> __device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/// Descriptor of a matrix of 64-number rows (128 bytes, swizzled over 128) in shared memory.
__device__ __forceinline__ u64 swizzled_matrix(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

/// Descriptor of 16 rows (k) of 64 or more numbers, boxes of 64 columns `box_stride` bytes apart.
__device__ __forceinline__ u64 swizzled_columns(u32 address, u32 box_stride) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(box_stride >> 4) << 16 | (u64)(1024 >> 4) << 32
        | (u64)1 << 62;
}

// Operands of warpgroup matrix instructions: sums %0 ... as text and as constraints.
#define WGMMA_SUMS_64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_SUMS_96 \
    WGMMA_SUMS_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_SUMS_128 \
    WGMMA_SUMS_96 ", " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_C8(i) \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define WGMMA_C64 \
    WGMMA_C8(0), WGMMA_C8(8), WGMMA_C8(16), WGMMA_C8(24), WGMMA_C8(32), WGMMA_C8(40), WGMMA_C8(48), WGMMA_C8(56)
#define WGMMA_C96 WGMMA_C64, WGMMA_C8(64), WGMMA_C8(72), WGMMA_C8(80), WGMMA_C8(88)
#define WGMMA_C128 WGMMA_C96, WGMMA_C8(96), WGMMA_C8(104), WGMMA_C8(112), WGMMA_C8(120)
#define WGMMA_TILE(columns, count, type, a0, a1, a2, a3, matrix, flag) \
    asm volatile( \
        "{\n.reg .pred p;\nsetp.ne.b32 p, " flag ", 0;\n" \
        "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" WGMMA_SUMS_##count \
        "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " matrix ", p, 1, 1, 0;\n}" \
        : WGMMA_C##count : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
#define WGMMA_TYPES(columns, count, ...) \
    if constexpr (TYPE == MARTLET_BF16) WGMMA_TILE(columns, count, "bf16", __VA_ARGS__); \
    else WGMMA_TILE(columns, count, "f16", __VA_ARGS__)

/// c = a b + (add ? c : 0): a 64 x 16 from registers, b COLUMNS rows of 16 in shared memory; c: rows g, g + 8, columns 8 j + 2 t.
template <int TYPE, int COLUMNS>
__device__ __forceinline__ void wgmma_tile(float (&c)[COLUMNS / 2], const u32 (&a)[4], u64 b, int add) {
    static_assert(COLUMNS == 128 || COLUMNS == 192 || COLUMNS == 256, "tiles have 128, 192 or 256 columns");
    if constexpr (COLUMNS == 128) {
        WGMMA_TYPES("128", 64, "%64", "%65", "%66", "%67", "%68", "%69");
    } else if constexpr (COLUMNS == 192) {
        WGMMA_TYPES("192", 96, "%96", "%97", "%98", "%99", "%100", "%101");
    } else {
        WGMMA_TYPES("256", 128, "%128", "%129", "%130", "%131", "%132", "%133");
    }
}
