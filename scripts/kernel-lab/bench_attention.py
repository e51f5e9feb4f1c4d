# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Times paged decode attention, a chain of layers in one graph: bytes of keys and values over copy bandwidth.

usage: bench_attention.py [gates] [long] [dims] [KEY=VALUE,...] ...

`gates`: 64 x 512, 8 x 4,096 and 1 x 32,768 positions with 32, 8 and 1 kv heads; `long`: longer contexts with one;
`dims`: other head dimensions, groups and variants. Definitions come from `rule`, which the host computes too; each
further word replaces some of them in the gates' cases.
"""

import sys

from nvrtc import attention_definitions, build_all

LAYERS_BYTES = 400 << 20  # a chain's layers have this much at least: eight times the second cache


def rule(requests, kv_heads, group, dim, context, multiprocessors=132, shared=233472, clusters=True):
    """Definitions for a bucket of requests, from limits alone; `shared`: bytes of a multiprocessor."""
    # Up to 8 query heads to a kv head: a warp has all of them, and two blocks share a multiprocessor; where requests are
    # few, one has it, so that short ones have a warp for each 16 positions or 32; where they are many, six small ones
    # without splits, so that one begins or ends beside the keys of others. More heads: pairs of warps
    # share positions, each with its own 8 or 16 heads, and a block has the multiprocessor.
    few, many = (group <= 8 and requests * kv_heads <= multiprocessors), group <= 8 and requests * kv_heads > 6 * multiprocessors
    if group <= 8:
        d = dict(TILES=1, TEAM=1, WARPS=8 if few else 2 if many else 4, BLOCKS=1 if few else 6 if many else 2, UNIT=16)
    else:
        d = dict(TILES=1 if group <= 16 else 2, TEAM=2, WARPS=8, BLOCKS=1, UNIT=32)
    heads = min(group, 8 * d["TILES"] * d["TEAM"])
    widths = [c for c in (2, 4, 8) if heads % c == 0] if clusters else []

    def fits(ring):
        probe = {**d, "RING": ring, "GROUP": group, "HEAD_DIM": dim, "CLUSTER": max(widths, default=1)}
        return shared_bytes(probe) + 1024 <= shared // d["BLOCKS"]
    while not fits(2) and d["BLOCKS"] > 1:
        d["BLOCKS"] -= 1
    while not fits(2) and d["WARPS"] > d["TEAM"]:
        d["WARPS"] //= 2
    d["RING"] = max([ring for ring in range(2, 9) if fits(ring)], default=2)
    d["SPLIT_UNITS"] = 12 if few else 8
    blocks, places = requests * kv_heads * -(-group // heads), multiprocessors * d["BLOCKS"]
    most = max(1, context // 16 // d["SPLIT_UNITS"])
    # Waves of blocks, each as long as its part of a request, and 6 % of one for start and end.
    splits = 1 if many else min(range(1, min(most, places) + 1), key=lambda n: -(-blocks * n // places) * (1 / n + 0.06))
    # A cluster's blocks share what the last split would have to combine alone: 16 parts at most. Clusters of 8 do
    # not fill the chip where each has 8 multiprocessors: half of it then.
    cluster = next((c for c in widths if splits // c <= 16), max(widths, default=1))
    if d["TEAM"] == 2 and blocks <= 8 and 8 in widths:
        cluster, splits = 8, min(splits, multiprocessors // 2 // blocks)
    elif cluster > 2:
        splits = min(splits, places * 31 // 32 // blocks)
    d["CLUSTER"] = cluster if splits >= cluster else 1
    d["SPLITS"] = splits - splits % d["CLUSTER"]
    return d


def shared_bytes(d):
    """Dynamic shared memory of a block."""
    dim, teams = d["HEAD_DIM"], d["WARPS"] // d["TEAM"]
    heads = min(d["GROUP"], 8 * d["TILES"] * d["TEAM"])
    chunks, padded = dim // 8, -(-dim // 32) * 32
    key, value = (chunks, chunks) if chunks % 8 == 0 else ((chunks + 3) // 8 * 8 + 4, chunks | 1)
    unit = 16 * d["UNIT"] * (key + value)
    query = padded * 2 + (64 if padded * 2 % 128 == 0 else 0)
    parts = -(-(heads * query + -(-dim // 64) * 256) // 128) * 128
    total = parts + teams * max(d["RING"] * unit, -(-heads * (dim + 2) * 4 // 16) * 16)
    return total + (heads * (dim * 4 + 8) + 16 if d["CLUSTER"] > 1 else 0)


def measure(copy, b, length, heads, kv_heads, dim, d, context=0):
    """Microseconds of a layer, and its bytes of keys and values over copy bandwidth."""
    import torch
    from device import AttentionArguments, Kernel, Pages, Rotation, Rows, graph_time, pointer
    dev = "cuda"
    kernel = Kernel("decode/attention.cu", "attention_decode", d)
    assert kernel.facts[0] == shared_bytes(d), (kernel.facts, shared_bytes(d))
    tiles, columns = kernel.facts[2], -(-max(length, context) // 64)
    used = -(-length // 64)
    layer = 2 * kv_heads * 64 * dim * 2
    layers = max(4, -(-LAYERS_BYTES // (layer * b * used)))
    cache = torch.randn(b * used, layers, 2, kv_heads, 64, dim, device=dev, dtype=torch.bfloat16)
    table = torch.zeros(b, columns, device=dev, dtype=torch.int32)
    table[:, :used] = torch.randperm(b * used, device=dev, dtype=torch.int32).view(b, used)
    positions = torch.full((b,), length - 1, device=dev, dtype=torch.int32)
    zero = torch.zeros(b, device=dev, dtype=torch.int32)
    step = torch.tensor([b, b, b, 0, b], device=dev, dtype=torch.int32)
    angle = torch.rand(length, dim // 2, device=dev)
    qkv = torch.randn(b, (heads + 2 * kv_heads) * dim, device=dev).bfloat16()
    y = torch.empty(b, heads * dim, device=dev, dtype=torch.bfloat16)
    groups, cluster = d["SPLITS"] // max(d["CLUSTER"], 1), max(d["CLUSTER"], 1)
    partials = torch.zeros(b, heads, groups, dim + 2, device=dev)
    counters = torch.zeros(b * kv_heads * tiles * cluster, device=dev, dtype=torch.int32)
    slopes = torch.rand(heads, device=dev) * 0.01
    calls = [AttentionArguments(
        pointer(step), pointer(positions), Rows.of(qkv), Rows.of(qkv, heads * dim),
        Rows.of(qkv, (heads + kv_heads) * dim), Rows.of(y), Rotation(pointer(angle), pointer(angle), dim // 2, 0),
        Pages(cache.data_ptr(), layer * layers, layer * layers, layer * (i % layers), pointer(zero), None, pointer(table),
              None, columns, 64, kv_heads, dim),
        pointer(slopes), pointer(partials), pointer(counters), length if d["WINDOW"] else 0, dim ** -0.5, 30.0)
        for i in range(max(8, layers))]

    def launch():
        for a in calls:
            kernel.launch(a, (d["SPLITS"], kv_heads * tiles, b))

    ms = graph_time(launch, 2, 5) / len(calls)
    del cache
    torch.cuda.empty_cache()
    return ms * 1e3, b * length * kv_heads * dim * 4 / ms / copy


GATES = [(b, length, 32, kv_heads, 128, {}) for kv_heads in (32, 8, 1) for b, length in ((64, 512), (8, 4096), (1, 32768))]
LONG = [(b, length, 32, 1, 128, {}) for b, length in ((64, 4096), (8, 32768), (1, 131072))]
DIMS = [(8, 4096, 32, kv_heads, dim, {}) for kv_heads in (32, 8, 2) for dim in (64, 80, 96, 128, 256)] + [
    (8, 4096, 32, 8, 128, variant) for variant in (dict(WINDOW=1), dict(ALIBI=1), dict(SOFT_CAP=1), dict(ROTARY=2))] + [
    (64, 512, 8, 1, 256, {}), (1, 32768, 8, 1, 256, {}), (1, 32768, 8, 2, 128, {}), (1, 32768, 32, 2, 128, {}), (192, 512, 32, 8, 128, {})]


def definitions(case, given):
    b, length, heads, kv_heads, dim, variant = case
    return attention_definitions(**{
        **dict(ACTIVATION=2, KV=2, HEAD_DIM=dim, GROUP=heads // kv_heads),
        **rule(b, kv_heads, heads // kv_heads, dim, length), **variant, **given})


def main():
    words = sys.argv[1:] or ["gates"]
    runs = [(case, {}) for name, cases in (("gates", GATES), ("long", LONG), ("dims", DIMS)) if name in words for case in cases]
    for word in words:
        if "=" in word:
            given = {k: int(v) for k, v in (pair.split("=") for pair in word.split(","))}
            runs += [(case, given) for case in GATES]
    build_all([("decode/attention.cu", definitions(*run), "sm_90a") for run in runs])
    import torch
    from device import copy_bandwidth
    copy = copy_bandwidth()
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.3f} TB/s")
    for case, given in runs:
        b, length, heads, kv_heads, dim, variant = case
        d = definitions(case, given)
        us, share = measure(copy, b, length, heads, kv_heads, dim, d)
        names = "WARPS TEAM TILES RING UNIT BLOCKS SPLITS CLUSTER".split()
        print(f"{b:3} x {length:6} heads {heads}/{kv_heads} D {dim} {variant or ''}: {us:8.1f} us {share * 100:5.1f} % of copy  "
              + " ".join(f"{n} {d[n]}" for n in names) + f" {given or ''}", flush=True)


if __name__ == "__main__":
    main()
