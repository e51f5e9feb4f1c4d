// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// copy_plain: pieces of a step's inputs from page-locked memory of the host, or of its results to it.
//
// A copy by the driver waits for its engine at both ends: H100, between two decode steps 7.2 us before the results' copy
// and 5.6 before the next inputs', 19.9 us from the last kernel's end to the inputs'; by this kernel 9.7 (CUPTI).
// Bytes: each once over the bus. Grid (8, 1, 1). Recording an event took the host 3.3 to 7 us; `stamp` is no call.
#include "martlet.cuh"

struct CopyPiece {
    const u32* from;
    u32* to;
    i64 words;
};
struct CopyArguments {
    i64 count;
    CopyPiece pieces[8];
    u64* stamp;  // of the host: gets the GPU's nanoseconds when all in front has ended; nullptr: none
};

MARTLET_KERNEL __launch_bounds__(256) copy_plain(const __grid_constant__ CopyArguments a) {
    wait_for_producers();
    if (a.stamp && blockIdx.x == 0 && threadIdx.x == 0) {
        u64 now;
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
        *a.stamp = now;
    }
    const int turns = 4, threads = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
    for (int p = 0; p < a.count; ++p) {
        const CopyPiece piece = a.pieces[p];
        for (i64 i = first; i < piece.words; i += turns * threads) {
            u32 words[turns];
            // Of the host's memory no cache keeps anything.
#pragma unroll
            for (int j = 0; j < turns; ++j) {
                i64 at = i + j * threads;
                if (at < piece.words) asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(words[j]) : "l"(piece.from + at));
            }
#pragma unroll
            for (int j = 0; j < turns; ++j) {
                i64 at = i + j * threads;
                if (at < piece.words) piece.to[at] = words[j];
            }
        }
    }
}
