# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Checks the decode kernels against PyTorch in f64: fresh random inputs, poisoned outputs.

usage: check.py [short | build [CHIP ...]], build only compiles and needs no device
"""

import math
import sys

import nvrtc
from bench_attention import rule
from nvrtc import attention_definitions, linear_definitions

if sys.argv[1:2] != ["build"]:
    import torch
    from device import DTYPES, AttentionArguments, Kernel, LinearArguments, Pages, Rotation, Rows, error, pointer
    from layout import pack, paired8, plane, quantize

DEV = "cuda"
failures = 0


def verdict(name, e, limit):
    global failures
    bad = not e <= limit
    failures += bad
    print(f"{'FAIL' if bad else 'ok  '} {name}: {e:.1e} (limit {limit:.0e})", flush=True)


def linear(**given):
    d = linear_definitions(**given)
    k, n, tokens, at = d["INPUTS"], d["OUTPUTS"], d["TOKENS"], DTYPES[d["ACTIVATION"]]
    gated = d["GATED"]
    w = torch.randn(n, k, device=DEV) * k ** -0.5
    if gated:
        w = paired8(w[:n // 2], w[n // 2:])
    codes, s, z, decoded = quantize(w, d["WEIGHT"], d["GROUP"], d["ZERO"])
    packed = pack(codes, d["WEIGHT"], d["GROUP"], s, z, d["INTERLEAVE"])
    channel = d["WEIGHT"] in (4, 8) and not d["GROUP"]
    scales = plane(s[:, 0], len(w)) if channel else None
    zeros = plane(z[:, 0], len(w)) if channel and z is not None else None
    x = (torch.randn(tokens, k, device=DEV) * 2).to(at)
    gamma = (torch.rand(k, device=DEV) + 0.5).to(at)
    bias = torch.randn(n, device=DEV).to(at)
    outputs = n // 2 if gated else n
    residual = torch.randn(tokens, outputs, device=DEV).to(at)
    y = torch.full((tokens, outputs), math.nan, device=DEV, dtype=DTYPES[d["RESULT"]])
    a = LinearArguments(Rows.of(x), Rows.of(y), Rows.of(residual), pointer(packed), pointer(scales), pointer(zeros),
                        pointer(gamma), pointer(bias), 1e-5)
    kernel = Kernel("decode/linear.cu", "linear_decode", d)
    kernel.launch(a, (d["GRID"], 1, 1))
    torch.cuda.synchronize()
    r = x.double()
    if d["NORM"]:
        r = r * torch.rsqrt(r.pow(2).mean(1, keepdim=True) + 1e-5) * gamma.double()
    if gated:
        pairs = decoded.double().view(-1, 2, 8, k)
        gate, up = (r @ pairs[:, i].reshape(-1, k).T[:, :outputs] for i in (0, 1))
        if d["BIAS"]:
            gate, up = gate + bias[:outputs].double(), up + bias[outputs:].double()
        r = torch.nn.functional.silu(gate) * up if gated == 1 else torch.nn.functional.gelu(gate, approximate="tanh") * up
    else:
        r = r @ decoded.double().T
        if d["BIAS"]:
            r = r + bias.double()
    if d["RESIDUAL"]:
        r = r + residual.double()
    name = " ".join(f"{key}={value}" for key, value in given.items())
    verdict(name, error(y, r), 6e-3 if d["ACTIVATION"] == 2 else 1e-3)
    if tokens > 1 and d["ACTIVATION"] == 2 and d["WEIGHT"] in (4, 8):
        # x is rounded to f16 there: a row beyond it has no finite results, the others are what they were.
        before = y.clone()
        x[1, k // 2] = 1e8
        kernel.launch(a, (d["GRID"], 1, 1))
        torch.cuda.synchronize()
        rest = torch.arange(tokens, device=DEV) != 1
        verdict(name + " beyond f16", float(torch.isfinite(y[1]).sum() + (y[rest] != before[rest]).sum()), 0)


def attention(lengths, kv_heads=2, **given):
    d = attention_definitions(**given)
    group, dim, at, kt = d["GROUP"], d["HEAD_DIM"], DTYPES[d["ACTIVATION"]], DTYPES[d["KV"]]
    heads, b, columns = group * kv_heads, len(lengths), max(lengths) // 64 + 2
    pages = b * columns
    cache = torch.full((pages, 2, 2, kv_heads, 64, dim), math.nan, device=DEV, dtype=kt)  # two layers a page
    table = torch.randperm(pages, device=DEV, dtype=torch.int32).view(b, columns)
    keys = [torch.randn(n, kv_heads, dim, device=DEV).to(kt) for n in lengths]
    values = [torch.randn(n, kv_heads, dim, device=DEV).to(kt) for n in lengths]
    for r, n in enumerate(lengths):
        for p in range(0, n - 1, 64):
            m = min(64, n - 1 - p)
            cache[table[r, p // 64].long(), 1, 0, :, :m] = keys[r][p:p + m].transpose(0, 1)
            cache[table[r, p // 64].long(), 1, 1, :, :m] = values[r][p:p + m].transpose(0, 1)
    qkv = torch.randn(b, (heads + 2 * kv_heads) * dim, device=DEV).to(at)
    pairs = dim // 2 if d["ROTARY"] == 1 else dim // 4
    angle = torch.arange(max(lengths), device=DEV).double()[:, None] * 10000.0 ** (
        -torch.arange(pairs, device=DEV).double() / pairs)
    cosines, sines = angle.cos().float(), angle.sin().float()
    positions = torch.tensor(lengths, device=DEV, dtype=torch.int32) - 1
    start = torch.zeros(b, device=DEV, dtype=torch.int32)
    slopes = torch.rand(heads, device=DEV) * 0.1
    y = torch.full((b, heads * dim), math.nan, device=DEV, dtype=at)
    step = torch.tensor([b, b, b, 0, b], device=DEV, dtype=torch.int32)
    kernel = Kernel("decode/attention.cu", "attention_decode", d)
    tiles = kernel.facts[2]
    partials = torch.zeros(b, heads, d["SPLITS"] // d["CLUSTER"], dim + 2, device=DEV)
    counters = torch.zeros(b * kv_heads * tiles * d["CLUSTER"], device=DEV, dtype=torch.int32)
    layer = 2 * kv_heads * 64 * dim * 2
    window = 100 if d["WINDOW"] else 0
    a = AttentionArguments(
        pointer(step), pointer(positions), Rows.of(qkv), Rows.of(qkv, heads * dim),
        Rows.of(qkv, (heads + kv_heads) * dim), Rows.of(y), Rotation(pointer(cosines), pointer(sines), pairs, 0),
        Pages(cache.data_ptr(), layer * 2, layer * 2, layer, pointer(start), None, pointer(table), None, columns,
              64, kv_heads, dim),
        pointer(slopes), pointer(partials), pointer(counters), window, dim ** -0.5, 30.0)
    kernel.launch(a, (d["SPLITS"], kv_heads * tiles, b))
    torch.cuda.synchronize()

    def turn(x, p):
        if not d["ROTARY"]:
            return x
        c, s, r = cosines[p].double(), sines[p].double(), x.clone()
        first, second = ((slice(0, pairs), slice(pairs, 2 * pairs)) if d["ROTARY"] == 1
                         else (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)))
        r[:, first] = x[:, first] * c - x[:, second] * s
        r[:, second] = x[:, second] * c + x[:, first] * s
        return r

    expected = torch.empty(b, heads * dim, device=DEV, dtype=torch.float64)
    written = 0.0
    for i in range(b):
        p = lengths[i] - 1
        q, k, v = qkv[i].double().split((heads * dim, kv_heads * dim, kv_heads * dim))
        q, k, v = turn(q.view(heads, dim), p), turn(k.view(kv_heads, dim), p), v.view(kv_heads, dim)
        ks, vs = keys[i].double(), values[i].double()
        ks[p], vs[p] = k.to(kt).double(), v.to(kt).double()
        block = cache[table[i, p // 64].long(), 1, :, :, p % 64].double()
        written = max(written, error(block[0], k), error(block[1], v))
        scores = torch.einsum("hd,nhd->hn", q.to(kt).double(), ks.repeat_interleave(group, 1)) * dim ** -0.5
        if d["SOFT_CAP"]:
            scores = 30 * torch.tanh(scores / 30)
        at_ = torch.arange(p + 1, device=DEV)
        if d["ALIBI"]:
            scores = scores + slopes.double()[:, None] * (at_ - p)
        if window:
            scores = scores.masked_fill(at_ <= p - window, -math.inf)
        expected[i] = torch.einsum("hn,nhd->hd", scores.softmax(1), vs.repeat_interleave(group, 1)).flatten()
    name = f"attention {lengths} kv heads {kv_heads} " + " ".join(f"{key}={value}" for key, value in given.items())
    verdict(name, error(y, expected), 8e-3 if 2 in (d["KV"], d["ACTIVATION"]) else 1.5e-3)
    verdict("  written", written, 5e-3)
    verdict("  counters and parts", float(counters.abs().sum()) + float((partials.view(torch.int32) != 0).sum()), 0)


def cases(short):
    """(kind, arguments) of all checks."""
    found = []

    def linear(**given):
        found.append(("linear", (), given))

    def attention(lengths, **given):
        found.append(("attention", (lengths,), given))

    formats = [dict(WEIGHT=2, ACTIVATION=2, RESULT=2), dict(WEIGHT=1, ACTIVATION=1, RESULT=1)]
    for activation in (1, 2):
        for weight in (8, 4):
            for group in (0, 32, 64, 128):
                for zero in (0, 1, 2):
                    if activation == 2 and (group in (32, 64) or zero == 2):
                        continue
                    formats.append(dict(WEIGHT=weight, GROUP=group, ZERO=zero, ACTIVATION=activation,
                                        RESULT=activation))
    if short:
        formats = [formats[0], dict(WEIGHT=4, GROUP=128, ACTIVATION=1, RESULT=1)]
    for f in formats:
        linear(**f, INPUTS=1024, OUTPUTS=3000, NORM=1, BIAS=1)
        linear(**f, INPUTS=2048, OUTPUTS=2 * 1000, TOKENS=4, NORM=1, GATED=1, BIAS=1, INTERLEAVE=20, GRID=20)
        if not short:
            linear(**f, INPUTS=11008, OUTPUTS=4096, RESIDUAL=1)
            linear(**f, INPUTS=11008, OUTPUTS=520, RESIDUAL=1, TOKENS=8)
    for inputs, outputs in ((576, 960), (1536, 576), (2048, 11264), (5632, 2048)):
        for f in (dict(WEIGHT=2, ACTIVATION=2, RESULT=2, GRID=64), dict(WEIGHT=8, ACTIVATION=1, RESULT=1, GRID=64),
                  dict(WEIGHT=4, GROUP=64, ACTIVATION=2, RESULT=0, GRID=64)):
            linear(**f, INPUTS=inputs, OUTPUTS=outputs, NORM=1, TOKENS=2)
        if short:
            break
    linear(WEIGHT=2, ACTIVATION=2, RESULT=2, INPUTS=1040, OUTPUTS=40, TOKENS=2, NORM=1)
    linear(WEIGHT=8, ACTIVATION=1, RESULT=0, INPUTS=4096, OUTPUTS=32000, NORM=1, TOKENS=2)
    linear(WEIGHT=2, ACTIVATION=2, RESULT=0, INPUTS=576, OUTPUTS=49152, NORM=1, TOKENS=8)
    linear(WEIGHT=2, ACTIVATION=2, RESULT=2, INPUTS=4096, OUTPUTS=12288, NORM=1, INTERLEAVE=132)
    both = [dict(ACTIVATION=2, KV=2), dict(ACTIVATION=1, KV=1), dict(ACTIVATION=2, KV=1)]
    ring = dict(both[0], HEAD_DIM=128)
    lengths = [1, 15, 16, 17, 64, 65, 192, 333]
    for f in both[:1] if short else both:
        attention(lengths, **f, HEAD_DIM=128, GROUP=1, WARPS=8, BLOCKS=1, SPLITS=1)
        attention(lengths + [1500], **f, HEAD_DIM=128, GROUP=4)
    if not short:
        for requests in (1, 8, 64, 512):  # as engines hold them for 8 kv heads
            for group in (1, 4, 12, 32):
                attention(lengths + [3000], **ring, GROUP=group, **rule(requests, 8, group, 128, 32768))
        for dim in (64, 80, 96, 256):
            attention(lengths, **{**ring, "HEAD_DIM": dim}, GROUP=2, SPLITS=3)
        attention(lengths, **ring, GROUP=16, TILES=2, WARPS=8, BLOCKS=1, kv_heads=1)
        attention(lengths, **both[1], HEAD_DIM=64, GROUP=12, kv_heads=1, ALIBI=1)
        attention(lengths, **ring, GROUP=1, ROTARY=2)
        attention([1, 16, 64, 65, 130, 192, 256, 400], **ring, GROUP=1, SPLITS=4)
        attention([1, 300, 2000], **both[1], HEAD_DIM=64, GROUP=8)
        attention([2300, 4000], **ring, GROUP=8)
        attention(lengths, **both[1], HEAD_DIM=128, GROUP=2, ROTARY=0, ALIBI=1)
        attention(lengths, **ring, GROUP=2, WINDOW=1, SPLITS=2, SPLIT_UNITS=2)
        attention(lengths, **both[1], HEAD_DIM=128, GROUP=2, SOFT_CAP=1)
    queries = dict(ring, kv_heads=1, WARPS=8, BLOCKS=1, SPLITS=16)
    attention([1, 17, 333, 1500], **ring, GROUP=4)
    attention([1, 17, 333, 1500, 4000], **ring, GROUP=4, CLUSTER=4)
    attention([1, 17, 333, 1500, 4000], **queries, GROUP=32, TEAM=4, RING=5, CLUSTER=8)
    if not short:
        attention([5000], **{**ring, **both[1]}, GROUP=1)
        attention([1, 130, 5000], **queries, GROUP=32, TEAM=2, TILES=2)
        attention([1, 130, 5000], **{**queries, "WARPS": 4}, GROUP=32, TILES=4, CLUSTER=8)
        attention([1, 130, 2000], **queries, GROUP=20, TEAM=2, RING=2, CLUSTER=2)
        for dim in (64, 80, 96, 256):
            attention([1, 100, 700], **{**ring, "HEAD_DIM": dim}, GROUP=6, CLUSTER=2)
            attention([1, 100, 700], **{**ring, "HEAD_DIM": dim}, WARPS=8, BLOCKS=1, GROUP=12, TEAM=2)
        attention([1, 100, 1700], **ring, GROUP=8, WINDOW=1, ROTARY=2, CLUSTER=2)
        attention([1, 100, 1700], **ring, GROUP=8, ALIBI=1, ROTARY=0)
        attention([1, 100, 1700], **ring, GROUP=8, SOFT_CAP=1)
        attention([700] * 48, **ring, GROUP=4, kv_heads=8)  # enough blocks that copies come late
        attention(lengths + [1500], **ring, RING=2, GROUP=4, UNIT=32)
        attention([1, 17, 333, 1500, 4000], **queries, GROUP=32, TEAM=4, RING=2, UNIT=32, CLUSTER=4)
        attention([1, 100, 1700], **ring, RING=2, GROUP=8, WINDOW=1, UNIT=32)
        attention([1, 100, 700], **{**ring, "HEAD_DIM": 80}, RING=2, GROUP=4, UNIT=32)
    return found


def main():
    if sys.argv[1:2] == ["build"]:
        chips = sys.argv[2:] or ("sm_80", "sm_86", "sm_89", "sm_90a")
        jobs = []
        for kind, _, given in cases(False):
            d = dict(given)
            d.pop("kv_heads", None)
            d = linear_definitions(**d) if kind == "linear" else attention_definitions(**d)
            jobs += [(f"decode/{kind}.cu", d, chip) for chip in chips if chip == "sm_90a" or d.get("CLUSTER", 1) == 1]
        nvrtc.build_all(jobs)
        return
    torch.manual_seed(int.from_bytes(__import__("os").urandom(4), "little"))
    for kind, positional, given in cases(sys.argv[1:] == ["short"]):
        (linear if kind == "linear" else attention)(*positional, **given)
    print(f"{failures} failures")
    sys.exit(1 if failures else 0)


main()
