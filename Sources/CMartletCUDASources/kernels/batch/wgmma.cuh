// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Warpgroup matrix instructions with 16, 32, 48 and 64 columns, a from registers; as PTX of sm_90a.
#pragma once
#include "hopper.cuh"

/// The instruction of so many columns: its sums, the four registers of a, and b as operands of the text; then the sums.
#define MARTLET_WGMMA_OF(TYPE, COLUMNS, SUMS, A, B, ...)                                                            \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32." TYPE "." TYPE " {" SUMS "}, {" A "}, " B   \
                 ", 1, 1, 1, 0;" : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define MARTLET_WGMMA(COLUMNS, ...)                                                                                 \
    if constexpr (TYPE == MARTLET_BF16) MARTLET_WGMMA_OF("bf16", COLUMNS, __VA_ARGS__);                             \
    else MARTLET_WGMMA_OF("f16", COLUMNS, __VA_ARGS__)

/// c += a b: a 64 x 16 from registers, b COLUMNS rows of 16 in shared memory; c: rows g, g + 8, columns 8 j + 2 t.
template <int TYPE, int COLUMNS>
__device__ __forceinline__ void wgmma_registers(float (&c)[COLUMNS / 2], const u32 (&a)[4], u64 b) {
    if constexpr (COLUMNS == 16) {
        MARTLET_WGMMA(16,
            "%0, %1, %2, %3, %4, %5, %6, %7",
            "%8, %9, %10, %11", "%12",
            "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]));
    } else if constexpr (COLUMNS == 32) {
        MARTLET_WGMMA(32,
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15",
            "%16, %17, %18, %19", "%20",
            "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
            "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]));
    } else if constexpr (COLUMNS == 48) {
        MARTLET_WGMMA(48,
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23",
            "%24, %25, %26, %27", "%28",
            "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
            "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
            "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]));
    } else if constexpr (COLUMNS == 64) {
        MARTLET_WGMMA(64,
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",
            "%32, %33, %34, %35", "%36",
            "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
            "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
            "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
            "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]));
    }
}
#undef MARTLET_WGMMA
#undef MARTLET_WGMMA_OF
