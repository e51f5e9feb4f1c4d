// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// The part of the CUDA driver, NVRTC and cuBLASLt interfaces that Martlet calls, declared here so that
// neither a build nor a run needs NVIDIA's headers or libraries. Each interface is a table of functions
// filled by dlopen and dlsym, so a test can put functions of its own in their place.
#ifndef MARTLET_DRIVER_H
#define MARTLET_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef int martlet_cu_result;
typedef int martlet_cu_device;
typedef uint64_t martlet_cu_address;
typedef void *martlet_cu_handle;  // context, stream, event, module, function, graph, executable graph

/// CUlaunchAttribute: an id and a value of up to 64 bytes.
typedef struct {
    int id;
    char pad[4];
    union {
        int number;
        char bytes[64];
    } value;
} martlet_cu_launch_attribute;

/// CUlaunchConfig.
typedef struct {
    unsigned grid_x, grid_y, grid_z;
    unsigned block_x, block_y, block_z;
    unsigned shared_bytes;
    martlet_cu_handle stream;
    martlet_cu_launch_attribute *attributes;
    unsigned attribute_count;
} martlet_cu_launch_config;

/// Functions of libcuda.so.1, by their exported names without version suffix.
typedef struct {
    martlet_cu_result (*cuInit)(unsigned flags);
    martlet_cu_result (*cuDriverGetVersion)(int *version);
    martlet_cu_result (*cuGetErrorName)(martlet_cu_result result, const char **name);
    martlet_cu_result (*cuGetErrorString)(martlet_cu_result result, const char **text);
    martlet_cu_result (*cuDeviceGetCount)(int *count);
    martlet_cu_result (*cuDeviceGet)(martlet_cu_device *device, int ordinal);
    martlet_cu_result (*cuDeviceGetName)(char *name, int length, martlet_cu_device device);
    martlet_cu_result (*cuDeviceGetAttribute)(int *value, int attribute, martlet_cu_device device);
    martlet_cu_result (*cuDeviceTotalMem)(size_t *bytes, martlet_cu_device device);
    martlet_cu_result (*cuDevicePrimaryCtxRetain)(martlet_cu_handle *context, martlet_cu_device device);
    martlet_cu_result (*cuDevicePrimaryCtxRelease)(martlet_cu_device device);
    martlet_cu_result (*cuCtxSetCurrent)(martlet_cu_handle context);
    martlet_cu_result (*cuMemGetInfo)(size_t *free, size_t *total);
    martlet_cu_result (*cuMemAlloc)(martlet_cu_address *address, size_t bytes);
    martlet_cu_result (*cuMemFree)(martlet_cu_address address);
    martlet_cu_result (*cuMemAllocHost)(void **address, size_t bytes);
    martlet_cu_result (*cuMemFreeHost)(void *address);
    martlet_cu_result (*cuMemcpyHtoDAsync)(
        martlet_cu_address to, const void *from, size_t bytes, martlet_cu_handle stream);
    martlet_cu_result (*cuMemcpyDtoHAsync)(
        void *to, martlet_cu_address from, size_t bytes, martlet_cu_handle stream);
    martlet_cu_result (*cuMemcpyDtoDAsync)(
        martlet_cu_address to, martlet_cu_address from, size_t bytes, martlet_cu_handle stream);
    martlet_cu_result (*cuMemsetD8Async)(
        martlet_cu_address to, unsigned char value, size_t bytes, martlet_cu_handle stream);
    martlet_cu_result (*cuStreamCreate)(martlet_cu_handle *stream, unsigned flags);
    martlet_cu_result (*cuStreamDestroy)(martlet_cu_handle stream);
    martlet_cu_result (*cuStreamSynchronize)(martlet_cu_handle stream);
    martlet_cu_result (*cuStreamWaitEvent)(
        martlet_cu_handle stream, martlet_cu_handle event, unsigned flags);
    martlet_cu_result (*cuStreamBeginCapture)(martlet_cu_handle stream, int mode);
    martlet_cu_result (*cuStreamEndCapture)(martlet_cu_handle stream, martlet_cu_handle *graph);
    martlet_cu_result (*cuGraphInstantiateWithFlags)(
        martlet_cu_handle *executable, martlet_cu_handle graph, unsigned long long flags);
    martlet_cu_result (*cuGraphLaunch)(martlet_cu_handle executable, martlet_cu_handle stream);
    martlet_cu_result (*cuGraphExecDestroy)(martlet_cu_handle executable);
    martlet_cu_result (*cuGraphDestroy)(martlet_cu_handle graph);
    martlet_cu_result (*cuEventCreate)(martlet_cu_handle *event, unsigned flags);
    martlet_cu_result (*cuEventRecordWithFlags)(
        martlet_cu_handle event, martlet_cu_handle stream, unsigned flags);
    martlet_cu_result (*cuEventQuery)(martlet_cu_handle event);
    martlet_cu_result (*cuEventSynchronize)(martlet_cu_handle event);
    martlet_cu_result (*cuEventElapsedTime)(
        float *milliseconds, martlet_cu_handle start, martlet_cu_handle end);
    martlet_cu_result (*cuEventDestroy)(martlet_cu_handle event);
    martlet_cu_result (*cuModuleLoadDataEx)(
        martlet_cu_handle *module, const void *image, unsigned option_count, int *options,
        void **values);
    martlet_cu_result (*cuModuleUnload)(martlet_cu_handle module);
    martlet_cu_result (*cuModuleGetFunction)(
        martlet_cu_handle *function, martlet_cu_handle module, const char *name);
    martlet_cu_result (*cuModuleGetGlobal)(
        martlet_cu_address *address, size_t *bytes, martlet_cu_handle module, const char *name);
    martlet_cu_result (*cuFuncSetAttribute)(martlet_cu_handle function, int attribute, int value);
    martlet_cu_result (*cuFuncGetAttribute)(int *value, int attribute, martlet_cu_handle function);
    martlet_cu_result (*cuLaunchKernelEx)(
        const martlet_cu_launch_config *config, martlet_cu_handle function, void **parameters,
        void **extra);
    martlet_cu_result (*cuTensorMapEncodeTiled)(
        void *map, int type, uint32_t rank, void *address, const uint64_t *sizes,
        const uint64_t *strides, const uint32_t *box, const uint32_t *element_strides,
        int interleave, int swizzle, int promotion, int fill);
} martlet_cuda;

/// Functions of libnvrtc.
typedef struct {
    int (*nvrtcVersion)(int *major, int *minor);
    const char *(*nvrtcGetErrorString)(int result);
    int (*nvrtcCreateProgram)(
        void **program, const char *source, const char *name, int header_count,
        const char *const *headers, const char *const *header_names);
    int (*nvrtcDestroyProgram)(void **program);
    int (*nvrtcCompileProgram)(void *program, int option_count, const char *const *options);
    int (*nvrtcGetProgramLogSize)(void *program, size_t *bytes);
    int (*nvrtcGetProgramLog)(void *program, char *log);
    int (*nvrtcGetCUBINSize)(void *program, size_t *bytes);
    int (*nvrtcGetCUBIN)(void *program, char *cubin);
    int (*nvrtcGetPTXSize)(void *program, size_t *bytes);
    int (*nvrtcGetPTX)(void *program, char *ptx);
} martlet_nvrtc;

/// Functions of libcublasLt.
typedef struct {
    size_t (*cublasLtGetVersion)(void);
} martlet_cublaslt;

/// How a library was searched for.
typedef enum {
    MARTLET_LIBRARY_LOADED = 0,
    MARTLET_LIBRARY_MISSING = 1,  // no file of that name
    MARTLET_LIBRARY_TOO_OLD = 2,  // the file lacks a function
    MARTLET_LIBRARY_DAMAGED = 3,  // the file named is no library, or ends too early
} martlet_library_state;

/// What became of a library: the file that was opened, or the reason why there is none.
typedef struct {
    martlet_library_state state;
    char detail[256];  // the file's name; what is wrong with it; the name of the missing function
} martlet_library;

/// Fills a table from the first of the library's usual names, or from `path` if it is not null.
///
/// A path of "none" hides the library, an empty one is as none given. Libraries stay loaded for the life of
/// the process.
martlet_library martlet_cuda_load(martlet_cuda *table, const char *path);
/// As `martlet_cuda_load`, for NVRTC.
martlet_library martlet_nvrtc_load(martlet_nvrtc *table, const char *path);
/// As `martlet_cuda_load`, for cuBLASLt.
martlet_library martlet_cublaslt_load(martlet_cublaslt *table, const char *path);

/// Encodes a matrix of 16-bit numbers for bulk copies of boxes of 64 columns, swizzled over 128 bytes.
///
/// `map`: 128 bytes at a multiple of 64. `is_bf16` or f16; `stride` in bytes, a multiple of 16. What lies
/// outside of the matrix reads as zeros.
martlet_cu_result martlet_cuda_encode_matrix(
    const martlet_cuda *table, void *map, int is_bf16, martlet_cu_address address, uint64_t columns,
    uint64_t rows, uint64_t stride, unsigned box_rows);

/// Starts a kernel whose one parameter is a struct.
///
/// `is_dependent` lets it begin before the kernel in front of it has ended (programmatic dependent
/// launch); it then waits by itself.
martlet_cu_result martlet_cuda_launch(
    const martlet_cuda *table, martlet_cu_handle function, const unsigned grid[3], unsigned block,
    unsigned shared_bytes, martlet_cu_handle stream, int is_dependent, const void *arguments);

#endif
