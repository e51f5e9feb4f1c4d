# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Checks and times the kernels of prompts against PyTorch, in shares of the rate of an 8192^3 bf16 product.

usage: prompts.py [build] [attention] [linear] [bench] [variants] [tiles]

attention_prefill (sm_90a) and attention_prefill_mma, linear_prefill (sm_90a) and linear_prefill_mma; the last of
each pair as compute_80 PTX, as `--force-sm 80` runs it, or for the chip MARTLET_LAB_SINGLE. `build` only compiles and
needs no device. Outputs are poisoned, inputs fresh; `bench` times what it names besides checking it; `variants` times
other head dims and attention variants, without the checks of `attention`; `tiles` times the linears of a layer with every
shared tile that 96 to 1,024 rows may have: PrefillTile.time in Sources is fitted to such a table.
"""

import ctypes
import math
import os
import sys
from ctypes import c_float, c_int32, c_uint32, c_void_p

from nvrtc import build_all

WARPGROUPS = "sm_90a"
SINGLE = os.environ.get("MARTLET_LAB_SINGLE", "compute_80")
HOPPER_DIMS = (64, 80, 96, 128, 256)


def attention_kernel(dim, single=False, heads=32, kv_heads=32, activation=2, window=0, cap=0, alibi=0, **given):
    """(source, kernel, definitions, chip) as the host chooses them."""
    d = dict(ACTIVATION=activation, HEAD_DIM=dim, HEADS=heads, KV_HEADS=kv_heads, WINDOW=window, SOFT_CAP=cap, ALIBI=alibi)
    if single or dim not in HOPPER_DIMS:
        long = dim > 128
        d |= dict(WARPS=4, ROW_TILES=1 if long else 2, KEYS=32 if long else 64) | given
        return "prefill/attention_mma.cu", "attention_prefill_mma", d, SINGLE
    d |= dict(GROUPS=3 if dim == 64 and not cap else 2) | given
    return "prefill/attention.cu", "attention_prefill", d, WARPGROUPS


def linear_kernel(inputs, outputs, weight, group=0, zero=0, single=True, gated=0, bias=0, residual=0, activation=2, result=2, interleave=0, tokens=128, stages=0, shared=1, cluster=1, factor=0, next_norm=0):
    d = dict(WEIGHT=weight, GROUP=group, ZERO=zero, ACTIVATION=activation, RESULT=result, INPUTS=inputs, OUTPUTS=outputs, GATED=gated, BIAS=bias,
             RESIDUAL=residual, INTERLEAVE=interleave)
    if single:
        return "prefill/linear_mma.cu", "linear_prefill_mma", d | dict(STAGES=stages or (2 if weight < 4 else 3), TOKENS=tokens), SINGLE
    stages, numbers, codes = {
        64: (4, 11, 8), 80: (4, 10, 8), 96: (4, 9, 8), 112: (4, 9, 7), 128: (4, 9, 7), 160: (4, 7, 6), 176: (4, 7, 6), 192: (4, 7, 5), 208: (4, 6, 5), 256: (4, 4 if shared else 5, 4)}[tokens]
    return "prefill/linear.cu", "linear_prefill", d | dict(
        TOKENS=tokens, SHARED=shared, CLUSTER=cluster, FACTOR=factor, NEXT_NORM=next_norm, STAGES=stages,
        WEIGHT_STAGES=numbers if weight < 4 else codes), WARPGROUPS


# (kernel, lengths, new tokens): cases that are checked, and those that are timed.
CHECKS = [(attention_kernel(dim, single, **v), lengths, new)
          for single in (False, True) for dim in (64, 80, 96, 128, 256)
          for v, lengths, new in (({}, [300, 64, 1, 777], [300, 3, 1, 500]), (dict(kv_heads=8, activation=1), [1000, 513], [400, 513]))]
CHECKS += [(attention_kernel(dim, single, kv_heads=4, **v), [900, 1300], [900, 577])
           for single in (False, True) for dim in (64, 96, 128, 256) for v in (dict(window=300), dict(alibi=1), dict(cap=1))]
CHECKS += [(attention_kernel(dim, heads=8, kv_heads=2), [333, 70], [333, 9]) for dim in (16, 32, 112, 192)]
TIMED = [(attention_kernel(dim, single), [n], [n]) for single in (False, True) for n in (8192, 2048) for dim in HOPPER_DIMS]
VARIANTS = [(attention_kernel(dim, kv_heads=8, **v), [n], [n])
            for n in (8192, 2048) for dim in HOPPER_DIMS for v in ({}, dict(window=1024), dict(alibi=1), dict(cap=1))]
TIMED += VARIANTS + [(attention_kernel(128, single, kv_heads=8, **v), [8192], [8192])
                     for single in (False, True) for v in (dict(window=4096), dict(activation=1))]
LINEAR_CHECKS = [linear_kernel(512, 272, weight, group, zero, single, gated, bias, residual, tokens=tokens)
                 for single, tokens in ((True, 128), (True, 256), (False, 128), (False, 192), (False, 256))
                 for weight, group, zero in ((2, 0, 0), (8, 0, 0), (8, 32, 2), (4, 0, 0), (4, 32, 1), (4, 64, 0), (4, 128, 2))
                 for gated, bias, residual in ((0, 1, 1), (1, 0, 0))]
LINEAR_CHECKS += [linear_kernel(512, 272, weight, group, zero, single, activation=1, result=1, residual=1)
                  for single in (True, False) for weight, group, zero in ((1, 0, 0), (8, 0, 0), (8, 32, 2), (4, 32, 1), (4, 128, 0))]
LINEAR_CHECKS += [linear_kernel(2048, 4368, 4, 128, 0, single, interleave=132, tokens=128 if single else 256) for single in (True, False)]
LINEAR_CHECKS += [linear_kernel(4096, 1040, weight, group, 0, False, tokens=tokens, residual=1)
                  for weight, group in ((2, 0), (8, 0), (4, 128)) for tokens in (96, 128, 176, 192, 208, 256)]
LINEAR_CHECKS += [linear_kernel(inputs, outputs, weight, group, 0, False, tokens=tokens, cluster=2, **more)
                  for inputs, outputs, more in ((4096, 1040, dict(residual=1)), (4096, 12288, {}), (512, 272, dict(gated=1)))
                  for weight, group in ((2, 0), (8, 0), (4, 128)) for tokens in (64, 96, 112, 128, 160, 192, 256)]
LINEAR_CHECKS += [linear_kernel(inputs, outputs, weight, group, 0, False, tokens=256, shared=0, **more)
                  for inputs, outputs, more in ((4096, 1040, dict(residual=1)), (512, 272, dict(gated=1)))
                  for weight, group in ((2, 0), (8, 0), (4, 128))]
LINEAR_CHECKS += [linear_kernel(4096, 1040, weight, 0, 0, False, tokens=tokens, shared=shared, result=0)
                  for weight in (2, 8) for tokens, shared in ((128, 1), (192, 1), (256, 0))]
# Norms that linears share: with each kind of tile that has them.
LINEAR_CHECKS += [linear_kernel(inputs, outputs, weight, group, 0, False, tokens=tokens, cluster=cluster, **more)
                  for weight, group, tiles in ((2, 0, ((64, 2), (96, 2), (112, 2), (128, 2), (160, 2), (192, 2), (256, 2))), (8, 0, (
                      (96, 1), (128, 1), (160, 1), (176, 1), (192, 1), (208, 1), (112, 2), (128, 2), (160, 2), (192, 2), (256, 2))), (4, 128, ((96, 1), (176, 1), (192, 1), (208, 1), (256, 2))))
                  for tokens, cluster in tiles
                  for inputs, outputs, more in ((2048, 4096, dict(residual=1, next_norm=1)), (4096, 1040, dict(factor=1)), (512, 272, dict(gated=1, factor=1)))]
SHAPES = [(4096, 12288, {}), (4096, 4096, dict(residual=1)), (4096, 22016, dict(gated=1)), (11008, 4096, dict(residual=1))]
# Kernels of a layer, and the tokens they are timed with: a tile's tokens, whether blocks share tiles, blocks of a cluster.
LINEAR_TIMED = [([linear_kernel(k, n, weight, group, single=single, tokens=tile, shared=shared, cluster=cluster, **more)
                  for k, n, more in SHAPES], tokens)
                for weight, group in ((2, 0), (8, 0), (4, 128))
                for single, tile, shared, cluster, tokens in [(True, 128, 0, 1, (2048, 8192)), (False, 256, 0, 1, (1024, 2048, 8192))] + [
                    (False, *kind) for kind in
                    ([(64, 1, 2, (96, 128)), (96, 1, 2, (192,))] if weight == 2 else [(128, 1, 1, (96, 128)), (192, 1, 1, (192,))]) + [
                        (128, 1, 2, (256,)), (160, 1, 2, (320, 640)), (192, 1, 2, (384, 768)), (256, 1, 2, (512, 1024))]]]
TILED = [([linear_kernel(k, n, weight, group, single=False, tokens=tile, cluster=cluster, **more,
                         **(dict(next_norm=1) if more.get("residual") else dict(factor=1))) for k, n, more in SHAPES], (rows,))
         for weight, group in ((2, 0), (8, 0), (4, 128)) for rows in (96, 128, 160, 176, 192, 208, 224, 256, 288, 320, 384, 448, 512, 768, 1024)
         for tile in (64, 96, 112, 128, 160, 176, 192, 208, 256) for cluster in (1, 2)
         if -(-rows // (tile * cluster)) * tile * cluster <= max(1.3 * rows, 128) and (cluster == 2 or weight > 2 and rows <= tile < 256)]

words = sys.argv[1:]
if "build" not in words:
    import torch
    from device import (DTYPES, Kernel, Pages, RowCount, Rows, SharedNorm, error, graph_time, pointer, tensor_map)
    from layout import pack, paired8, plane, quantize, random_weights

failures = 0



def verdict(name, e, limit, more=""):
    global failures
    bad = not e <= limit
    failures += bad
    print(f"{'FAIL' if bad else 'ok  '} {name}: {e:.1e} (limit {limit:.0e}) {more}", flush=True)


def structure(*fields):
    """An argument struct of (name, type, value)."""
    made = type("Arguments", (ctypes.Structure,), {"_fields_": [(n, t) for n, t, _ in fields]})
    return made(*[v for _, _, v in fields])


def median_ms(work, runs=7):
    for _ in range(2):
        work()
    times = []
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[runs // 2]


def attention(case, rate=None):
    (source, name, d, chip), lengths, new = case
    kernel, dev = Kernel(source, name, d, chip), "cuda"
    dim, heads, kv_heads, at = d["HEAD_DIM"], d["HEADS"], d["KV_HEADS"], DTYPES[d["ACTIVATION"]]
    tile, total, b = kernel.facts[2], sum(new), len(lengths)
    blocks = [-(-n // 64) for n in lengths]
    columns, pages = max(blocks), sum(blocks) + 2
    cache = torch.randn(pages, 2, kv_heads, 64, dim, device=dev).to(at)
    order, table = torch.randperm(pages)[:sum(blocks)].tolist(), []
    for n in blocks:
        table.append(order[:n] + [-1] * (columns - n))
        order = order[n:]
    for n, row in zip(lengths, table):
        cache[row[(n - 1) // 64], :, :, n - (n - 1) // 64 * 64:] = math.nan  # what others may have left there
    numbers = lambda x: torch.tensor(x, device=dev, dtype=torch.int32)
    starts = [sum(new[:i]) for i in range(b + 1)]
    tables, start, length = numbers(table), numbers([0] * b), numbers(lengths)
    query_start, step = numbers(starts), numbers([total, b, b, 0, 0])
    q = torch.randn(total, heads * dim, device=dev).to(at)
    y = torch.full((total, heads * dim), math.nan, device=dev, dtype=at)
    slopes = torch.tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)], device=dev)
    scale, cap = dim ** -0.5, 30.0 if d["SOFT_CAP"] else 0.0
    fits = lambda n: n * max(lengths) * dim * 4 * kv_heads // heads <= 40e6
    at_once = max(n for n in range(1, heads + 1) if heads % n == 0 and (n == 1 or fits(n)))
    page = 2 * kv_heads * 64 * dim * 2
    task = [("step", c_void_p, pointer(step)),
            ("pages", Pages, Pages(cache.data_ptr(), page, page, 0, pointer(start), pointer(length), pointer(tables), None,
                                   columns, 64, kv_heads, dim)),
            ("query_start", c_void_p, pointer(query_start)), ("y", Rows, Rows.of(y)), ("slopes", c_void_p, pointer(slopes)),
            ("scale", c_float, scale), ("soft_cap", c_float, cap), ("head_group", c_int32, at_once), ("reserved", c_int32, 0)]
    tiles, taken = heads * (total // tile + b), numbers([0])
    if source == "prefill/attention.cu":
        rows = cache.view(-1, dim)
        fields = [("q", c_uint32 * 32, tensor_map(q, tile)), ("cache", c_uint32 * 32, tensor_map(rows, 64))] + task + [("taken", c_void_p, pointer(taken))]
        blocks_launched = min(132, tiles)
    else:
        fields, blocks_launched = [("q", Rows, Rows.of(q))] + task, tiles
    a = aligned(structure(*fields))
    work = lambda: kernel.launch(a, (blocks_launched, 1, 1), dependent=False)
    work()
    torch.cuda.synchronize()
    worst = flop = 0
    for r in range(b):
        n, m = lengths[r], new[r]
        kv = cache[torch.tensor(table[r][:blocks[r]], device=dev)].transpose(1, 2).transpose(0, 2)  # [kv][head][block][64][D]
        position, key = torch.arange(n - m, n, device=dev)[:, None], torch.arange(n, device=dev)[None]
        keep = key <= position
        if d["WINDOW"]:
            keep &= key > position - d["WINDOW"]
        flop += 4 * dim * heads * keep.sum().item()
        some = range(heads) if n <= 2048 else (0, heads - 1)
        for h in some:
            k, v = (kv[i, h // (heads // kv_heads)].reshape(-1, dim)[:n].float() for i in (0, 1))
            qq = q[starts[r]:starts[r + 1], h * dim:(h + 1) * dim].float()
            s = qq @ k.T * scale
            if cap:
                s = cap * torch.tanh(s / cap)
            if d["ALIBI"]:
                s = s + slopes[h] * (key - position)
            out = s.masked_fill(~keep, -math.inf).softmax(-1) @ v
            worst = max(worst, error(y[starts[r]:starts[r + 1], h * dim:(h + 1) * dim], out))
    if torch.isnan(y).any():
        worst = math.nan
    more = ""
    if rate:
        ms = median_ms(work)
        more = f"{ms * 1e3:8.0f} us {flop / ms / 1e9:5.0f} TF {flop / ms / rate * 100:5.1f} % of G"
    shown = " ".join(f"{k}={v}" for k, v in d.items() if v)
    if int(taken):
        worst = math.nan
    verdict(f"{name} {lengths}/{new} {shown}", worst, 1e-2 if d["ACTIVATION"] == 2 else 2e-3, more)


def aligned(arguments):
    """The struct at an address that tensor maps want; the struct keeps its memory."""
    room = (ctypes.c_uint8 * (ctypes.sizeof(arguments) + 128))()
    skip = -ctypes.addressof(room) % 64
    ctypes.memmove(ctypes.addressof(room) + skip, ctypes.addressof(arguments), ctypes.sizeof(arguments))
    return type(arguments).from_buffer(room, skip)


def linear(case, tokens, rate=None):
    """Checks one linear, or returns milliseconds and FLOP if a rate is given."""
    source, name, d, chip = case
    kernel, dev = Kernel(source, name, d, chip), "cuda"
    k, n, weight, group, gated = (d[x] for x in ("INPUTS", "OUTPUTS", "WEIGHT", "GROUP", "GATED"))
    xt, rt, channel = DTYPES[d["ACTIVATION"]], DTYPES[d["RESULT"]], weight >= 4 and not group
    outputs = n // 2 if gated else n
    # Whole tiles, as an engine's buffers mostly have them: boxes that reach past the last row take twice as long.
    rows = -(-tokens // d.get("TOKENS", 1)) * d.get("TOKENS", 1) if rate else tokens
    x = (torch.randn(rows, k, device=dev)).to(xt)
    sums = torch.empty(132 * 128 * 256, device=dev)
    flags = torch.zeros(132 * 2, device=dev, dtype=torch.int32)
    if rate:
        # None of them is still in the second cache when its turn comes.
        packed = [random_weights(d, k, n) for _ in range(max(3, int(300e6 / (k * n * (2 if weight < 4 else weight / 8)))))]
        scales, zeros, decoded = torch.full((n + 16,), 0.0005, device=dev), None, None
    else:
        w = torch.randn(n, k, device=dev) * k ** -0.5
        if gated:
            w = paired8(w[:n // 2], w[n // 2:])
        codes, s, z, decoded = quantize(w, weight, group, d["ZERO"])
        packed = [pack(codes, weight, group, s, z, d["INTERLEAVE"])]
        scales, zeros = plane(s[:, 0], len(w)) if channel else None, None
    bias, residual = torch.randn(n, device=dev).to(rt), torch.randn(tokens, outputs, device=dev).to(rt)
    y = torch.full((tokens, outputs), math.nan, device=dev, dtype=rt)
    step = torch.tensor([tokens, 1, 1, 0], device=dev, dtype=torch.int32)
    tiles = -(-n // 128) * -(-tokens // d.get("TOKENS", 256))
    parts, gamma = -(-n // 128) * 2 if d.get("NEXT_NORM") else 5, torch.randn(outputs, device=dev).bfloat16()
    squares = torch.rand(parts, tokens, device=dev) * k
    scaled = torch.full((tokens, outputs), math.nan, device=dev, dtype=torch.bfloat16)
    factor = (squares.sum(0).double() / k + 1e-5).rsqrt()[:, None]
    norm = SharedNorm(Rows.of(scaled), gamma.data_ptr(), squares.data_ptr(), tokens, parts, 1e-5, 0)
    calls = [aligned(structure(
        ("x", *((c_uint32 * 32, tensor_map(x, d["TOKENS"])) if source == "prefill/linear.cu" else (Rows, Rows.of(x)))),
        ("step", c_void_p, pointer(step)), ("rows", RowCount, RowCount(tokens=1)), ("y", Rows, Rows.of(y)),
        ("residual", Rows, Rows.of(residual)), ("weight", c_void_p, pointer(p)), ("scales", c_void_p, pointer(scales)),
        ("zeros", c_void_p, None), ("bias", c_void_p, pointer(bias)), ("sums", c_void_p, pointer(sums)),
        ("flags", c_void_p, pointer(flags)), ("norm", SharedNorm, norm))) for p in packed]
    turn = [0]

    def work(dependent=False):
        kernel.launch(calls[turn[0] % len(calls)], (132 if source == "prefill/linear.cu" else tiles, 1, 1), dependent=dependent)
        turn[0] += 1

    work()
    torch.cuda.synchronize()
    if rate:
        # Short ones in a chain, as an engine launches them; long ones by themselves.
        shared = d.get("SHARED", 0)
        ms = graph_time(lambda: [work(True) for _ in range(24)], 3, 5) / 24 if shared else median_ms(work)
        flop, moved = 2 * tokens * k * n, packed[0].numel() * packed[0].element_size()
        print(f"     {name} {weight} bits {k} x {n}, {tokens} tokens in tiles of {d['TOKENS']}: {ms * 1e3:.0f} us "
              f"{flop / ms / rate * 100:.1f} % of G, weight {moved / ms / 1e9:.2f} TB/s", flush=True)
        return ms, flop
    r = x.double() * (factor if d.get("FACTOR") else 1)
    if gated:
        pairs = decoded.double().view(-1, 2, 8, k)
        gate, up = (r @ pairs[:, i].reshape(-1, k).T[:, :outputs] for i in (0, 1))
        r = torch.nn.functional.silu(gate) * up
    else:
        r = r @ decoded.double().T
        if d["BIAS"]:
            r = r + bias.double()
        if d["RESIDUAL"]:
            r = r + residual.double()
    shown = " ".join(f"{k}={v}" for k, v in d.items() if v)
    if d.get("NEXT_NORM"):
        # What the norm behind needs, beside results as they are stored.
        stored = y.double()
        off = max(error(scaled, stored * gamma.double()), error(squares.sum(0), (stored ** 2).sum(1)))
        verdict(f"{name} {tokens} tokens, for the norm behind, {shown}", off, 6e-3)
    # A second launch finds the flags as the first did, and adds in the same order.
    first = y.clone()
    work()
    torch.cuda.synchronize()
    verdict(f"{name} {tokens} tokens {shown}", error(y, r) if torch.equal(y, first) and not flags.any() else math.nan, 6e-3)


def library(k, n, tokens):
    """Milliseconds of PyTorch's bf16 product in a chain, weights cold."""
    weights = [torch.randn(n, k, device="cuda").bfloat16() for _ in range(max(3, int(300e6 / (k * n * 2))))]
    x = torch.randn(tokens, k, device="cuda").bfloat16()
    return graph_time(lambda: [torch.mm(x, weights[i % len(weights)].T) for i in range(24)], 3, 5) / 24


def main():
    timed = words and "bench" in words
    attentions = (TIMED if timed and "attention" in words else []) + (VARIANTS if "variants" in words else [])
    checks = CHECKS if "attention" in words else []
    linears = (LINEAR_TIMED if timed and "linear" in words else []) + (TILED if "tiles" in words else [])
    linear_checks = LINEAR_CHECKS if "linear" in words else []
    chosen = [c[0] for c in checks + attentions] + linear_checks + sum((cases for cases, _ in linears), [])
    build_all([(source, d, chip) for source, _, d, chip in chosen])
    if "build" in words:
        return
    a, c = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    rate = 2 * 8192 ** 3 / median_ms(lambda: a @ c)
    del a, c
    print(f"{torch.cuda.get_device_name()}: G {rate / 1e9:.0f} TFLOP/s")
    for case in checks:
        attention(case)
    for case in attentions:
        attention(case, rate)
    for case in linear_checks:
        for tokens in (300, 170, 1, 128):
            linear(case, tokens)
    for cases, counts in linears:
        for tokens in counts:
            parts = [linear(case, tokens, rate) for case in cases]
            ms, flop = (sum(p[i] for p in parts) for i in (0, 1))
            d = cases[0][2]
            print(f"     {cases[0][1]} {d['WEIGHT']} bits, a layer, {tokens} tokens in tiles of {d['TOKENS']} x {d.get('CLUSTER', 1)}: "
                  f"{ms * 1e3:.0f} us, {flop / ms / rate * 100:.1f} % of G", flush=True)
            if d["WEIGHT"] == 2 and d.get("SHARED") and not d["FACTOR"]:
                print(f"     cuBLAS, the same: {sum(library(k, n, tokens) for k, n, _ in SHAPES) * 1e3:.0f} us", flush=True)
    sys.exit(f"{failures} failures" if failures else 0)


main()
