// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Warpgroup matrix instructions of attention_prefill, for every width that it multiplies: 64 rows by N columns
// and 16 k, sums in f32; a lane holds rows g and g + 8 and columns 8 j + 2 t.
#pragma once
#include "hopper.cuh"

#if ACTIVATION == MARTLET_BF16
#define PRODUCT_TYPES "bf16.bf16"
#else
#define PRODUCT_TYPES "f16.f16"
#endif

// Names and registers of sums.
#define NAMES_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" ", " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_40 NAMES_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39"
#define NAMES_48 NAMES_40 ", " \
    "%40, %41, %42, %43, %44, %45, %46, %47"
#define NAMES_64 NAMES_48 ", " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_128 NAMES_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" ", " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" ", " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" ", " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SUMS_8(c, i) \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), \
        "+f"(c[i + 7])
#define SUMS_32(c) SUMS_8(c, 0), SUMS_8(c, 8), SUMS_8(c, 16), SUMS_8(c, 24)
#define SUMS_40(c) SUMS_32(c), SUMS_8(c, 32)
#define SUMS_48(c) SUMS_40(c), SUMS_8(c, 40)
#define SUMS_64(c) SUMS_48(c), SUMS_8(c, 48), SUMS_8(c, 56)
#define SUMS_128(c) \
    SUMS_64(c), SUMS_8(c, 64), SUMS_8(c, 72), SUMS_8(c, 80), SUMS_8(c, 88), SUMS_8(c, 96), SUMS_8(c, 104), \
        SUMS_8(c, 112), SUMS_8(c, 120)

/// c = a b + (add ? c : 0), `N` columns in `S` sums a lane; p0 to p5 number the operands behind the sums.
///
/// matrices: a is 64 rows of 16, b N rows of 16, both in shared memory. columns: a is 64 x 16 from registers,
/// b 16 rows of N in shared memory.
#define DEFINE_PRODUCTS(N, S, p0, p1, p2, p3, p4, p5)                                                         \
    __device__ __forceinline__ void wgmma_matrices(float (&c)[S], u64 a, u64 b, int add) {                     \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\n"                                        \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." PRODUCT_TYPES " {" NAMES_##S            \
                     "}, %" #p0 ", %" #p1 ", p, 1, 1, 0, 0;\n}"                                                \
                     : SUMS_##S(c) : "l"(a), "l"(b), "r"(add));                                                \
    }                                                                                                          \
    __device__ __forceinline__ void wgmma_columns(float (&c)[S], const u32 (&a)[4], u64 b, int add) {          \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p5 ", 0;\n"                                        \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." PRODUCT_TYPES " {" NAMES_##S            \
                     "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", p, 1, 1, 1;\n}"                   \
                     : SUMS_##S(c) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));            \
    }
DEFINE_PRODUCTS(64, 32, 32, 33, 34, 35, 36, 37)
DEFINE_PRODUCTS(80, 40, 40, 41, 42, 43, 44, 45)
DEFINE_PRODUCTS(96, 48, 48, 49, 50, 51, 52, 53)
DEFINE_PRODUCTS(128, 64, 64, 65, 66, 67, 68, 69)
DEFINE_PRODUCTS(256, 128, 128, 129, 130, 131, 132, 133)
