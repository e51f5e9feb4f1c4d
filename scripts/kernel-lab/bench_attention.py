# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Times paged decode attention: bytes of keys and values over copy bandwidth.

usage: bench_attention.py [KEY=VALUE,...] ...   each word: definitions that replace the case's own
"""

import sys

import torch
from device import AttentionArguments, Kernel, Pages, Rotation, Rows, copy_bandwidth, graph_time, pointer
from nvrtc import attention_definitions

DEV, LAYERS = "cuda", 4
MULTIPROCESSORS = 132


def splits_of(blocks, units, warps, resident):
    """Splits with the least time: waves of blocks, each as long as its rounds of loads and three for the rest."""
    def cost(splits):
        each = -(-units // splits)
        return -(-blocks * splits // (MULTIPROCESSORS * resident)) * (-(-each // warps) + 3)
    return min(range(1, min(64, max(units // warps, 1)) + 1), key=cost)


def case(copy, b, length, heads, kv_heads, dim, given):
    d = dict(ACTIVATION=2, KV=2, HEAD_DIM=dim, GROUP=heads // kv_heads, WARPS=4, BLOCKS=3, IDENTITY=1)
    d["TILES"] = 2 if d["GROUP"] > 8 else 1
    if d["TILES"] == 2:
        d["BLOCKS"] = 2
    d.update(given)
    tiles = -(-d["GROUP"] // (8 * d["TILES"]))
    d["SPLIT_UNITS"] = d["WARPS"]
    d["SPLITS"] = d.get("SPLITS") or splits_of(b * kv_heads * tiles, length // 16, d["WARPS"], d["BLOCKS"])
    kernel = Kernel("decode/attention.cu", "attention_decode", attention_definitions(**d))
    columns = length // 64
    cache = torch.randn(b * columns, LAYERS, 2, kv_heads, 64, dim, device=DEV, dtype=torch.bfloat16)
    table = torch.randperm(b * columns, device=DEV, dtype=torch.int32).view(b, columns)
    positions = torch.full((b,), length - 1, device=DEV, dtype=torch.int32)
    zero = torch.zeros(b, device=DEV, dtype=torch.int32)
    step = torch.tensor([b, b, b, 0], device=DEV, dtype=torch.int32)
    angle = torch.rand(length, dim // 2, device=DEV)
    qkv = torch.randn(b, (heads + 2 * kv_heads) * dim, device=DEV).bfloat16()
    y = torch.empty(b, heads * dim, device=DEV, dtype=torch.bfloat16)
    partials = torch.empty(b, heads + 16, d["SPLITS"], dim + 2, device=DEV)
    counters = torch.zeros(b * kv_heads * tiles, device=DEV, dtype=torch.int32)
    layer = 2 * kv_heads * 64 * dim * 2
    calls = [AttentionArguments(
        pointer(step), pointer(positions), pointer(zero), Rows.of(qkv), Rows.of(qkv, heads * dim),
        Rows.of(qkv, (heads + kv_heads) * dim), Rows.of(y), Rotation(pointer(angle), pointer(angle), dim // 2, 0),
        Pages(cache.data_ptr(), layer * LAYERS, layer * LAYERS, layer * (i % LAYERS), pointer(zero), None, pointer(table),
              None, columns, 64, kv_heads, dim),
        None, pointer(partials), pointer(counters), 0, 0, dim ** -0.5, 0, 0) for i in range(8)]

    def launch():
        for a in calls:
            kernel.launch(a, (d["SPLITS"], kv_heads * tiles, b))

    ms = graph_time(launch, 3, 5) / len(calls)
    moved = b * length * kv_heads * dim * 4
    print(f"{b:3} x {length:6} heads {heads}/{kv_heads} D {dim} splits {d['SPLITS']:3}: {ms * 1e3:8.1f} us "
          f"{moved / ms / copy * 100:5.1f} % of copy  {given}", flush=True)


copy = copy_bandwidth()
torch.cuda.empty_cache()
print(f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.3f} TB/s")
for word in sys.argv[1:] or [""]:
    given = {k: int(v) for k, v in (pair.split("=") for pair in word.split(",") if pair)}
    for heads, kv_heads in ((32, 32), (32, 8), (32, 1)):
        for b, length in ((64, 512), (8, 4096), (1, 32768)):
            case(copy, b, length, heads, kv_heads, 128, dict(given))
