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
/// Contiguous bytes, a multiple of 16, that are read once: the second cache gives them up first. To the same place
/// of each of COPIES blocks of a cluster, whose barriers count them.
template <int COPIES> __device__ __forceinline__ void copy_bytes_once(u32 target, const void* source, u32 bytes, u32 barrier) {
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    if constexpr (COPIES == 1) {
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
            "[%0], [%1], %2, [%3], %4;" ::"r"(target), "l"(source), "r"(bytes), "r"(barrier), "l"(policy) : "memory");
    } else {
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
            "[%0], [%1], %2, [%3], %4, %5;" ::"r"(target), "l"(source), "r"(bytes), "r"(barrier),
            "h"((u16)((1 << COPIES) - 1)), "l"(policy) : "memory");
    }
}

// ---- Clusters -------------------------------------------------------------------------------------------

#ifndef __cluster_dims__
#define __cluster_dims__(...) __attribute__((cluster_dims(__VA_ARGS__)))
#endif

/// All threads of the cluster meet. Copies under way are not waited for.
__device__ __forceinline__ void cluster_meet() {
    asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;" ::: "memory");
}
/// Arrives at the same barrier of another block of the cluster.
__device__ __forceinline__ void barrier_arrive_at(u32 barrier, int rank) {
    asm volatile("{\n.reg .u32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(rank) : "memory");
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

// Operands of warpgroup matrix instructions: sums %0 ... as text, sixteen at a time, and as constraints.
#define WGMMA_SUMS_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_SUMS_1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_SUMS_2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_SUMS_3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_SUMS_4 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_SUMS_5 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_SUMS_6 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA_SUMS_7 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_SUMS_OF_32 WGMMA_SUMS_0 ", " WGMMA_SUMS_1
#define WGMMA_SUMS_OF_40 WGMMA_SUMS_OF_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define WGMMA_SUMS_OF_48 WGMMA_SUMS_OF_32 ", " WGMMA_SUMS_2
#define WGMMA_SUMS_OF_56 WGMMA_SUMS_OF_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define WGMMA_SUMS_OF_64 WGMMA_SUMS_OF_48 ", " WGMMA_SUMS_3
#define WGMMA_SUMS_OF_80 WGMMA_SUMS_OF_64 ", " WGMMA_SUMS_4
#define WGMMA_SUMS_OF_88 WGMMA_SUMS_OF_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define WGMMA_SUMS_OF_96 WGMMA_SUMS_OF_80 ", " WGMMA_SUMS_5
#define WGMMA_SUMS_OF_104 WGMMA_SUMS_OF_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define WGMMA_SUMS_OF_128 WGMMA_SUMS_OF_96 ", " WGMMA_SUMS_6 ", " WGMMA_SUMS_7
#define WGMMA_C8(i) \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define WGMMA_C16(i) WGMMA_C8(i), WGMMA_C8(i + 8)
#define WGMMA_C32 WGMMA_C16(0), WGMMA_C16(16)
#define WGMMA_C40 WGMMA_C32, WGMMA_C8(32)
#define WGMMA_C48 WGMMA_C32, WGMMA_C16(32)
#define WGMMA_C56 WGMMA_C48, WGMMA_C8(48)
#define WGMMA_C64 WGMMA_C48, WGMMA_C16(48)
#define WGMMA_C80 WGMMA_C64, WGMMA_C16(64)
#define WGMMA_C88 WGMMA_C80, WGMMA_C8(80)
#define WGMMA_C96 WGMMA_C80, WGMMA_C16(80)
#define WGMMA_C104 WGMMA_C96, WGMMA_C8(96)
#define WGMMA_C128 WGMMA_C96, WGMMA_C16(96), WGMMA_C16(112)
#define WGMMA_TILE(columns, count, type, a0, a1, a2, a3, matrix, flag) \
    asm volatile( \
        "{\n.reg .pred p;\nsetp.ne.b32 p, " flag ", 0;\n" \
        "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" WGMMA_SUMS_OF_##count \
        "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " matrix ", p, 1, 1, 0;\n}" \
        : WGMMA_C##count : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
#define WGMMA_TYPES(columns, count, ...) \
    if constexpr (TYPE == MARTLET_BF16) WGMMA_TILE(columns, count, "bf16", __VA_ARGS__); \
    else WGMMA_TILE(columns, count, "f16", __VA_ARGS__)

/// c = a b + (add ? c : 0): a 64 x 16 from registers, b COLUMNS rows of 16 in shared memory; c: rows g, g + 8, columns 8 j + 2 t.
template <int TYPE, int COLUMNS>
__device__ __forceinline__ void wgmma_tile(float (&c)[COLUMNS / 2], const u32 (&a)[4], u64 b, int add) {
    static_assert(COLUMNS % 32 == 0 && COLUMNS >= 64 && COLUMNS <= 256 && COLUMNS != 224 || COLUMNS == 80 || COLUMNS == 112
            || COLUMNS == 176 || COLUMNS == 208,
        "tiles of so many columns are not written");
    if constexpr (COLUMNS == 64) {
        WGMMA_TYPES("64", 32, "%32", "%33", "%34", "%35", "%36", "%37");
    } else if constexpr (COLUMNS == 80) {
        WGMMA_TYPES("80", 40, "%40", "%41", "%42", "%43", "%44", "%45");
    } else if constexpr (COLUMNS == 96) {
        WGMMA_TYPES("96", 48, "%48", "%49", "%50", "%51", "%52", "%53");
    } else if constexpr (COLUMNS == 112) {
        WGMMA_TYPES("112", 56, "%56", "%57", "%58", "%59", "%60", "%61");
    } else if constexpr (COLUMNS == 128) {
        WGMMA_TYPES("128", 64, "%64", "%65", "%66", "%67", "%68", "%69");
    } else if constexpr (COLUMNS == 160) {
        WGMMA_TYPES("160", 80, "%80", "%81", "%82", "%83", "%84", "%85");
    } else if constexpr (COLUMNS == 176) {
        WGMMA_TYPES("176", 88, "%88", "%89", "%90", "%91", "%92", "%93");
    } else if constexpr (COLUMNS == 192) {
        WGMMA_TYPES("192", 96, "%96", "%97", "%98", "%99", "%100", "%101");
    } else if constexpr (COLUMNS == 208) {
        WGMMA_TYPES("208", 104, "%104", "%105", "%106", "%107", "%108", "%109");
    } else {
        WGMMA_TYPES("256", 128, "%128", "%129", "%130", "%131", "%132", "%133");
    }
}
