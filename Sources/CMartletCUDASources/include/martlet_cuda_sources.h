// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// The text of all kernels, so that the program can compile them anywhere.
#ifndef MARTLET_CUDA_SOURCES_H
#define MARTLET_CUDA_SOURCES_H

#include <stddef.h>

/// A file under kernels/.
typedef struct {
    const char *path;  // as in `plain/linear.cu`
    const char *text;  // not ended by a zero byte
    size_t count;
} martlet_cuda_source;

/// All files, and how many there are; headers end in .cuh.
const martlet_cuda_source *martlet_cuda_sources(size_t *count);

#endif
