// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#include "martlet_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#ifdef __linux__
#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

/// A function to look up: its exported name and where its address goes.
typedef struct {
    const char *name;
    size_t offset;
} entry;

#define AT(table, field) offsetof(table, field)
#define CU(field) {#field, AT(martlet_cuda, field)}
#define CU2(field) {#field "_v2", AT(martlet_cuda, field)}
#define RTC(field) {#field, AT(martlet_nvrtc, field)}

static const entry cuda_entries[] = {
    CU(cuInit),
    CU(cuDriverGetVersion),
    CU(cuGetErrorName),
    CU(cuGetErrorString),
    CU(cuDeviceGetCount),
    CU(cuDeviceGet),
    CU(cuDeviceGetName),
    CU(cuDeviceGetAttribute),
    CU2(cuDeviceTotalMem),
    CU(cuDevicePrimaryCtxRetain),
    CU2(cuDevicePrimaryCtxRelease),
    CU(cuCtxSetCurrent),
    CU2(cuMemGetInfo),
    CU2(cuMemAlloc),
    CU2(cuMemFree),
    CU2(cuMemAllocHost),
    CU(cuMemFreeHost),
    CU2(cuMemcpyHtoDAsync),
    CU2(cuMemcpyDtoHAsync),
    CU2(cuMemcpyDtoDAsync),
    CU(cuMemsetD8Async),
    CU(cuStreamCreate),
    CU2(cuStreamDestroy),
    CU(cuStreamSynchronize),
    CU(cuStreamWaitEvent),
    CU2(cuStreamBeginCapture),
    CU(cuStreamEndCapture),
    CU(cuGraphInstantiateWithFlags),
    CU(cuGraphLaunch),
    CU(cuGraphExecDestroy),
    CU(cuGraphDestroy),
    CU(cuEventCreate),
    CU(cuEventRecordWithFlags),
    CU(cuEventQuery),
    CU(cuEventSynchronize),
    CU(cuEventElapsedTime),
    CU2(cuEventDestroy),
    CU(cuModuleLoadDataEx),
    CU(cuModuleUnload),
    CU(cuModuleGetFunction),
    CU2(cuModuleGetGlobal),
    CU(cuFuncSetAttribute),
    CU(cuFuncGetAttribute),
    CU(cuLaunchKernelEx),
    CU(cuTensorMapEncodeTiled),
};

static const entry nvrtc_entries[] = {
    RTC(nvrtcVersion),        RTC(nvrtcGetErrorString), RTC(nvrtcCreateProgram),
    RTC(nvrtcDestroyProgram), RTC(nvrtcCompileProgram), RTC(nvrtcGetProgramLogSize),
    RTC(nvrtcGetProgramLog),  RTC(nvrtcGetCUBINSize),   RTC(nvrtcGetCUBIN),
    RTC(nvrtcGetPTXSize),     RTC(nvrtcGetPTX),
};

static const entry cublaslt_entries[] = {
    {"cublasLtGetVersion", AT(martlet_cublaslt, cublasLtGetVersion)},
};

static const char *const cuda_names[] = {"libcuda.so.1", NULL};
// Where the loader looks, then where the toolkit lies, which it may know nothing of.
#define NAMES(library)                                                                   \
    library ".so.13", "/usr/local/cuda/lib64/" library ".so.13", library ".so.12",       \
        "/usr/local/cuda/lib64/" library ".so.12", library ".so", NULL
static const char *const nvrtc_names[] = {NAMES("libnvrtc")};
static const char *const cublaslt_names[] = {NAMES("libcublasLt")};

static martlet_library outcome(martlet_library_state state, const char *detail) {
    martlet_library result = {.state = state};
    snprintf(result.detail, sizeof result.detail, "%s", detail ? detail : "");
    return result;
}

#ifdef __linux__
static int lies_within(uint64_t start, uint64_t count, uint64_t size) {
    return start <= size && count <= size - start;
}

/// Whether a file is as long as its tables of segments and sections say.
static int is_whole(int file, const Elf64_Ehdr *head, uint64_t size) {
    if (!lies_within(head->e_shoff, (uint64_t)head->e_shnum * head->e_shentsize, size)) return 0;
    for (unsigned i = 0; i < head->e_phnum; ++i) {
        Elf64_Phdr segment;
        // Wraps around where the header lies; what is read is checked.
        const uint64_t place = head->e_phoff + (uint64_t)i * head->e_phentsize;
        if (!lies_within(place, sizeof segment, size)) return 0;
        if (pread(file, &segment, sizeof segment, (off_t)place) != sizeof segment) return 0;
        if (!lies_within(segment.p_offset, segment.p_filesz, size)) return 0;
    }
    return 1;
}
#endif

/// Why a file cannot be a library; null for one that may be, or that the loader is to complain of.
///
/// The loader maps segments without a look at the file's length: of a file cut short it touches pages that are
/// not there, which ends the process.
static const char *damage(const char *path) {
    const char *reason = NULL;
#ifdef __linux__
    if (!strchr(path, '/')) return NULL;  // found by the loader, in its own folders
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return NULL;
    struct stat status;
    Elf64_Ehdr head;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) ||
        pread(file, &head, sizeof head, 0) != sizeof head ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64) {
        reason = "not a shared library";
    } else if (!is_whole(file, &head, (uint64_t)status.st_size)) {
        reason = "cut short, as by a copy that did not end";
    }
    close(file);
#else
    (void)path;
#endif
    return reason;
}

static martlet_library load(
    void *table, size_t table_bytes, const entry *entries, size_t count, const char *const *names,
    const char *path) {
    memset(table, 0, table_bytes);
    if (path && strcmp(path, "none") == 0) {
        return outcome(MARTLET_LIBRARY_MISSING, "hidden by the environment");
    }
    const char *given[] = {path, NULL};
    if (path && *path) {
        names = given;
        const char *reason = damage(path);
        if (reason) {
            martlet_library result = {.state = MARTLET_LIBRARY_DAMAGED};
            // A long path must not push the reason out.
            snprintf(result.detail, sizeof result.detail, "%.190s: %s", path, reason);
            return result;
        }
    }
    void *library = NULL;
    martlet_library first = {0};
    const char *opened = NULL;
    for (size_t i = 0; names[i] && !library; ++i) {
        library = damage(names[i]) ? NULL : dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library) {
            opened = names[i];
        } else if (i == 0) {
            first = outcome(MARTLET_LIBRARY_MISSING, dlerror());
        }
    }
    if (!library) return first;
    for (size_t i = 0; i < count; ++i) {
        void *function = dlsym(library, entries[i].name);
        if (!function) {
            memset(table, 0, table_bytes);
            return outcome(MARTLET_LIBRARY_TOO_OLD, entries[i].name);
        }
        memcpy((char *)table + entries[i].offset, &function, sizeof function);
    }
    return outcome(MARTLET_LIBRARY_LOADED, opened);
}

#define LOAD(kind)                                                                       \
    load(                                                                                \
        table, sizeof *table, kind##_entries, sizeof kind##_entries / sizeof(entry),     \
        kind##_names, path)

martlet_library martlet_cuda_load(martlet_cuda *table, const char *path) { return LOAD(cuda); }

/// Loads the file that NVRTC opens by its bare name, from the folder of NVRTC itself.
static void load_builtins(const martlet_nvrtc *table, const char *path) {
    const char *slash = path ? strrchr(path, '/') : NULL;
    int major = 0, minor = 0;
    if (!slash || table->nvrtcVersion(&major, &minor) != 0) return;
    char name[1024];
    snprintf(
        name, sizeof name, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - path), path, major,
        minor);
    dlopen(name, RTLD_NOW | RTLD_LOCAL);
}

martlet_library martlet_nvrtc_load(martlet_nvrtc *table, const char *path) {
    martlet_library library = LOAD(nvrtc);
    if (library.state == MARTLET_LIBRARY_LOADED) {
        load_builtins(table, path && *path ? path : library.detail);
    }
    return library;
}

martlet_library martlet_cublaslt_load(martlet_cublaslt *table, const char *path) {
    return LOAD(cublaslt);
}

martlet_cu_result martlet_cuda_encode_matrix(
    const martlet_cuda *table, void *map, int is_bf16, martlet_cu_address address, uint64_t columns,
    uint64_t rows, uint64_t stride, unsigned box_rows) {
    const uint64_t sizes[] = {columns, rows}, strides[] = {stride};
    const uint32_t box[] = {64, box_rows}, ones[] = {1, 1};
    // CU_TENSOR_MAP_DATA_TYPE_FLOAT16, _BFLOAT16; no interleave, SWIZZLE_128B, L2_128B, zeros outside.
    return table->cuTensorMapEncodeTiled(
        map, is_bf16 ? 9 : 6, 2, (void *)(uintptr_t)address, sizes, strides, box, ones, 0, 3, 2, 0);
}

martlet_cu_result martlet_cuda_launch(
    const martlet_cuda *table, martlet_cu_handle function, const unsigned grid[3], unsigned block,
    unsigned shared_bytes, martlet_cu_handle stream, int is_dependent, const void *arguments) {
    // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    martlet_cu_launch_attribute attribute = {.id = 6, .value.number = 1};
    martlet_cu_launch_config config = {
        .grid_x = grid[0],
        .grid_y = grid[1],
        .grid_z = grid[2],
        .block_x = block,
        .block_y = 1,
        .block_z = 1,
        .shared_bytes = shared_bytes,
        .stream = stream,
        .attributes = &attribute,
        .attribute_count = is_dependent ? 1 : 0,
    };
    void *parameters[] = {(void *)arguments};
    return table->cuLaunchKernelEx(&config, function, parameters, NULL);
}
