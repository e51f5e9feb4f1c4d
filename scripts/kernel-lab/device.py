# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Kernels on the device: modules, launches (plain or programmatic) on PyTorch's stream, timing."""

import ctypes
from ctypes import byref, c_float, c_int32, c_int64, c_uint32, c_void_p

import nvrtc
import torch

torch.zeros(1, device="cuda")  # makes the context that the driver calls below use
cuda = ctypes.CDLL("libcuda.so.1")
DTYPES = {0: torch.float32, 1: torch.float16, 2: torch.bfloat16}


def check(code, what):
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, byref(text))
        raise RuntimeError(f"{what}: {code} {text.value}")


class Attribute(ctypes.Structure):
    _fields_ = [("id", c_int32), ("pad", c_int32), ("value", c_int32 * 16)]


class Config(ctypes.Structure):
    _fields_ = [("grid", c_uint32 * 3), ("block", c_uint32 * 3), ("shared", c_uint32),
                ("stream", c_void_p), ("attributes", c_void_p), ("count", c_uint32)]


class Kernel:
    """A function of a module; `facts` are the numbers of its `<name>_launch` array."""

    def __init__(self, source, name, defines, chip="sm_90a"):
        self.name, self.defines = name, defines
        self.cubin, self.report = nvrtc.build(source, defines, chip)
        module = c_void_p()
        check(cuda.cuModuleLoadData(byref(module), self.cubin), f"load {name}")
        self.function = c_void_p()
        check(cuda.cuModuleGetFunction(byref(self.function), module, name.encode()), name)
        address, size = c_void_p(), ctypes.c_size_t()
        self.facts = []
        # One division of the first cache for all: kernels with different ones do not overlap.
        check(cuda.cuFuncSetAttribute(self.function, 9, 100), "carve-out")
        if cuda.cuModuleGetGlobal_v2(byref(address), byref(size), module, f"{name}_launch".encode()) == 0:
            numbers = (c_uint32 * (size.value // 4))()
            check(cuda.cuMemcpyDtoH_v2(numbers, address, size), "facts")
            self.facts = list(numbers)
            if self.facts[0] <= 232448:
                check(cuda.cuFuncSetAttribute(self.function, 8, self.facts[0]), f"{name}: {self.facts[0]} bytes")

    def active_clusters(self, blocks, cluster):
        """How many clusters of so many blocks run at the same time."""
        config, attribute, count = Config(), Attribute(id=4), c_int32()
        attribute.value[:3] = (cluster, 1, 1)
        config.grid[:], config.block[:], config.shared = (blocks, 1, 1), (self.facts[1], 1, 1), self.facts[0]
        config.attributes, config.count = ctypes.addressof(attribute), 1
        check(cuda.cuOccupancyMaxActiveClusters(byref(count), self.function, byref(config)), "clusters")
        return count.value

    def launch(self, arguments, grid, threads=None, shared=None, dependent=True):
        config, attribute = Config(), Attribute(id=6)
        attribute.value[0] = 1
        config.grid[:] = grid
        config.block[:] = (threads or self.facts[1], 1, 1)
        config.shared = self.facts[0] if self.facts and shared is None else shared or 0
        config.stream = torch.cuda.current_stream().cuda_stream
        config.attributes = ctypes.addressof(attribute)
        config.count = 1 if dependent else 0
        pointers = (c_void_p * 1)(ctypes.addressof(arguments))
        check(cuda.cuLaunchKernelEx(byref(config), self.function, pointers, None), self.name)


class Rows(ctypes.Structure):
    _fields_ = [("base", c_void_p), ("stride", c_int64)]

    @staticmethod
    def of(t, offset=0):
        return Rows(t.data_ptr() + offset * t.element_size(), t.stride(0)) if t is not None else Rows()


class RowCount(ctypes.Structure):
    _fields_ = [("constant", c_int32), ("tokens", c_int32), ("requests", c_int32), ("logit_rows", c_int32)]


class LinearArguments(ctypes.Structure):
    _fields_ = [("x", Rows), ("y", Rows), ("residual", Rows), ("weight", c_void_p), ("scales", c_void_p), ("zeros", c_void_p),
                ("gamma", c_void_p), ("bias", c_void_p), ("epsilon", c_float), ("trace", c_void_p)]


class SharedNorm(ctypes.Structure):
    _fields_ = [("scaled", Rows), ("weight", c_void_p), ("squares", c_void_p), ("stride", c_int32), ("parts", c_int32),
                ("epsilon", c_float), ("reserved", c_float)]


class BatchLinearArguments(ctypes.Structure):
    _fields_ = [("x_map", c_uint32 * 32), ("step", c_void_p), ("rows", RowCount), ("x", Rows), ("y", Rows), ("residual", Rows),
                ("weight", c_void_p), ("scales", c_void_p), ("zeros", c_void_p), ("bias", c_void_p), ("norm", SharedNorm), ("trace", c_void_p)]


def tensor_map(t, box_rows, box_columns=64):
    """A matrix of 16-bit numbers for the copy engine: boxes swizzled over 128 bytes."""
    room = ctypes.create_string_buffer(192)  # for 128 bytes from a multiple of 64 on
    skip = -ctypes.addressof(room) % 64
    check(cuda.cuTensorMapEncodeTiled(
        c_void_p(ctypes.addressof(room) + skip), 6 if t.dtype == torch.float16 else 9, 2, c_void_p(t.data_ptr()),
        (ctypes.c_uint64 * 2)(t.shape[1], t.shape[0]), (ctypes.c_uint64 * 1)(t.stride(0) * 2),
        (c_uint32 * 2)(box_columns, box_rows), (c_uint32 * 2)(1, 1), 0, 3, 2, 0), "tensor map")
    return (c_uint32 * 32).from_buffer_copy(room.raw[skip:skip + 128])


class RowNormArguments(ctypes.Structure):
    _fields_ = [("step", c_void_p), ("rows", RowCount), ("x", Rows), ("y", Rows), ("weight", c_void_p),
                ("epsilon", c_float)]


class Rotation(ctypes.Structure):
    _fields_ = [("cosines", c_void_p), ("sines", c_void_p), ("pairs", c_int32), ("reserved", c_int32)]


class Pages(ctypes.Structure):
    _fields_ = [("base", c_void_p), ("page_bytes", c_int64), ("block_bytes", c_int64),
                ("layer_offset", c_int64), ("start", c_void_p), ("length", c_void_p), ("table", c_void_p),
                ("slot", c_void_p), ("table_columns", c_int32), ("block_size", c_int32),
                ("kv_heads", c_int32), ("head_dim", c_int32)]


class AttentionArguments(ctypes.Structure):
    _fields_ = [("step", c_void_p), ("positions", c_void_p), ("q", Rows), ("k", Rows), ("v", Rows), ("y", Rows),
                ("rotation", Rotation), ("kv", Pages), ("slopes", c_void_p), ("partials", c_void_p), ("counters", c_void_p),
                ("window", c_int32), ("scale", c_float), ("soft_cap", c_float), ("trace", c_void_p)]


class EmbeddingArguments(ctypes.Structure):
    _fields_ = [("step", c_void_p), ("sources", c_void_p), ("previous", c_void_p), ("given", c_void_p),
                ("y", Rows), ("codes", c_void_p), ("scales", c_void_p), ("zeros", c_void_p),
                ("outputs", c_int32), ("inputs", c_int32), ("group_size", c_int32), ("group_stride", c_int32),
                ("chunk_words", c_int32), ("group_bytes", c_int32)]


def pointer(t):
    return t.data_ptr() if t is not None else None


def graph_time(launch, replays=10, repeats=7):
    """Median milliseconds of one replay of a graph of what `launch` launches."""
    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    for _ in range(2):
        graph.replay()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / replays)
    return sorted(times)[repeats // 2]


def copy_bandwidth(gigabytes=4):
    """Bytes per millisecond of a large copy, read and written bytes counted."""
    a = torch.empty(gigabytes << 30, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    times = []
    for _ in range(12):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        b.copy_(a)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return 2 * a.numel() / sorted(times)[6]


def error(x, reference):
    x, reference = x.double(), reference.double()
    return ((x - reference).norm() / reference.norm()).item()
