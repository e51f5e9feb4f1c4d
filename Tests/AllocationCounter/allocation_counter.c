// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Counts allocations of the thread by standing in for malloc, in tests only. glibc keeps its own under
// other names; sanitizers stand in for malloc themselves, so nothing is counted under them.

#include "allocation_counter.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define MARTLET_COUNTS 0
#endif
#endif
#ifndef MARTLET_COUNTS
#ifdef __GLIBC__
#define MARTLET_COUNTS 1
#else
#define MARTLET_COUNTS 0
#endif
#endif

#if MARTLET_COUNTS

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static _Thread_local int64_t count;

void *malloc(size_t size) {
    count += 1;
    return __libc_malloc(size);
}

void *calloc(size_t elements, size_t size) {
    count += 1;
    return __libc_calloc(elements, size);
}

void *realloc(void *old, size_t size) {
    count += 1;
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count += 1;
    return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size) {
    count += 1;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    count += 1;
    void *memory = __libc_memalign(alignment, size);
    if (!memory) return ENOMEM;
    *result = memory;
    return 0;
}

int64_t martlet_allocation_count(void) { return count; }

#else

int64_t martlet_allocation_count(void) { return -1; }

#endif
