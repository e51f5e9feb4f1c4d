# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Checks `linear_batch` against PyTorch in f64: fresh random inputs, poisoned outputs, rows above the count.

usage: check_batch.py [short | build [CHIP ...]], build only compiles and needs no device
"""

import math
import os
import sys

import batch
import nvrtc

if sys.argv[1:2] != ["build"]:
    import torch
    from device import DTYPES, BatchLinearArguments, Kernel, RowCount, Rows, SharedNorm, error, pointer, tensor_map
    from layout import pack, paired8, plane, quantize

DEV = "cuda"
failures = 0


def check(rows, y_pad=0, **given):
    """One case: `rows` of the kernel's TOKENS are there; y and the residual have `y_pad` columns more."""
    global failures
    d = batch.definitions(**given)
    k, n, at, rt = d["INPUTS"], d["OUTPUTS"], DTYPES[d["ACTIVATION"]], DTYPES[d["RESULT"]]
    w = torch.randn(n, k, device=DEV) * k ** -0.5
    if d["GATED"]:
        w = paired8(w[:n // 2], w[n // 2:])
    codes, s, z, decoded = quantize(w, d["WEIGHT"], d["GROUP"], d["ZERO"])
    packed = pack(codes, d["WEIGHT"], d["GROUP"], s, z, d["INTERLEAVE"])
    channel = d["WEIGHT"] in (4, 8) and not d["GROUP"]
    scales = plane(s[:, 0], len(w)) if channel else None
    zeros = plane(z[:, 0], len(w)) if channel and z is not None else None
    xt = at
    x = torch.full((rows, k + 8), math.nan, device=DEV, dtype=xt)[:, :k]
    x[:] = (torch.randn(rows, k, device=DEV) * 2).to(xt)
    bias = torch.randn(n, device=DEV).to(at)
    outputs = n // 2 if d["GATED"] else n
    residual = torch.randn(rows, outputs + y_pad, device=DEV).to(at)[:, :outputs]
    y = torch.full((d["TOKENS"], outputs + y_pad), math.nan, device=DEV, dtype=rt)
    parts, gamma = d["GRID"] if d.get("NEXT_NORM") else 7, torch.randn(outputs, device=DEV).bfloat16()
    squares = torch.rand(parts, d["TOKENS"], device=DEV) * k
    scaled = torch.full((d["TOKENS"], outputs), math.nan, device=DEV, dtype=torch.bfloat16)
    factor = (squares.sum(0).double() / k + 1e-5).rsqrt()[:rows, None]
    norm = SharedNorm(Rows.of(scaled), gamma.data_ptr(), squares.data_ptr(), d["TOKENS"], parts, 1e-5, 0)
    step = torch.tensor([rows, 0, 0, 0], device=DEV, dtype=torch.int32)
    kernel = Kernel("batch/linear.cu", "linear_batch", d)
    assert kernel.facts == [batch.Shape(d).shared_bytes(), d["WARPS"] * 32, d["GRID"]], (kernel.facts, d)
    a = BatchLinearArguments(tensor_map(x, d["TOKENS"]), pointer(step), RowCount(tokens=1), Rows.of(x), Rows.of(y), Rows.of(residual),
                             pointer(packed), pointer(scales), pointer(zeros), pointer(bias), norm)
    kernel.launch(a, (d["GRID"], 1, 1))
    torch.cuda.synchronize()
    first = y.clone()
    y.fill_(math.nan)
    kernel.launch(a, (d["GRID"], 1, 1))
    torch.cuda.synchronize()
    r = x.double() * (factor if d.get("FACTOR") else 1)
    if d["GATED"]:
        pairs = decoded.double().view(-1, 2, 8, k)
        gate, up = (r @ pairs[:, i].reshape(-1, k).T[:, :outputs] for i in (0, 1))
        if d["BIAS"]:
            gate, up = gate + bias[:outputs].double(), up + bias[outputs:].double()
        r = (torch.nn.functional.silu(gate) if d["GATED"] == 1
             else torch.nn.functional.gelu(gate, approximate="tanh")) * up
    else:
        r = r @ decoded.double().T
        if d["BIAS"]:
            r = r + bias.double()
    if d["RESIDUAL"]:
        r = r + residual.double()
    e, limit = error(y[:rows, :outputs], r), 6e-3 if 2 in (d["ACTIVATION"], d["RESULT"]) else 1e-3
    if d.get("NEXT_NORM"):
        stored = y[:rows].double()
        e = max(e, error(scaled[:rows], stored * gamma.double()), error(squares.sum(0)[:rows], (stored ** 2).sum(1)))
    same = torch.equal(first[:rows, :outputs], y[:rows, :outputs])
    kept = bool(y[rows:].isnan().all() and y[:, outputs:].isnan().all())
    bad = not (e <= limit and same and kept)
    failures += bad
    print(f"{'FAIL' if bad else 'ok  '} {e:.1e} (limit {limit:.0e}) rows {rows}",
          "" if same else "differs from run to run", "" if kept else "wrote what it must not",
          " ".join(f"{key}={value}" for key, value in given.items()), flush=True)


def cases(short):
    """(rows, pad, definitions) of all checks."""
    formats = [dict(WEIGHT=2, ACTIVATION=2, RESULT=2), dict(WEIGHT=1, ACTIVATION=1, RESULT=1)]
    for weight in (8, 4):
        for group in (0, 32, 64, 128):
            for zero in (0, 1, 2):
                formats.append(dict(WEIGHT=weight, GROUP=group, ZERO=zero, ACTIVATION=1, RESULT=1))
    formats += [dict(WEIGHT=weight, GROUP=group, ZERO=zero, ACTIVATION=2, RESULT=2) for weight, group, zero in (
        (8, 32, 2), (8, 64, 1), (8, 128, 0), (4, 32, 1), (4, 64, 2), (4, 0, 0), (4, 0, 1))]
    formats += [dict(WEIGHT=8, ACTIVATION=2, RESULT=2), dict(WEIGHT=4, GROUP=128, ACTIVATION=2, RESULT=2),
                dict(WEIGHT=8, ZERO=2, ACTIVATION=2, RESULT=2)]
    chosen = [formats[0], formats[2], formats[14 + 9]] if short else formats
    for i, f in enumerate(chosen):
        tokens = (16, 32, 64, 8)[i % 4]
        yield tokens - i % 3, 0, dict(f, INPUTS=4096, OUTPUTS=12288, TOKENS=tokens, BIAS=i % 2)
        yield tokens, 8, dict(f, INPUTS=2048, OUTPUTS=2 * 5504, TOKENS=tokens, GATED=1 + i % 2, BIAS=i % 2)
        yield (9, 17, 33, 1)[i % 4], 3 * (i % 2), dict(f, INPUTS=11008, OUTPUTS=4096, RESIDUAL=1,
                                                       TOKENS=(16, 24, 40, 8)[i % 4])
    for tokens in (8, 16, 32, 64) if not short else (64,):
        for f in (formats[0], formats[2], dict(WEIGHT=4, GROUP=64, ACTIVATION=2, RESULT=0)):
            yield tokens - 1, 1, dict(f, INPUTS=576, OUTPUTS=960, TOKENS=tokens)
            yield tokens, 0, dict(f, INPUTS=1536, OUTPUTS=576, TOKENS=tokens, RESIDUAL=1)
    for f in (dict(WEIGHT=4, GROUP=128, ZERO=1), dict(WEIGHT=8, GROUP=128, ZERO=1)):
        for strips in (1, 2):
            yield 15, 0, dict(f, ACTIVATION=2, RESULT=2, INPUTS=4096, OUTPUTS=4096, TOKENS=16, STRIPS=strips, RESIDUAL=1)
    int8, asymmetric = formats[2], dict(WEIGHT=4, GROUP=64, ZERO=2, ACTIVATION=1, RESULT=1)
    yield 63, 0, dict(formats[0], INPUTS=4096, OUTPUTS=12288, TOKENS=64, WGMMA=1, BIAS=1)
    yield 32, 0, dict(asymmetric, INPUTS=4096, OUTPUTS=2 * 5504, TOKENS=32, WGMMA=1, GATED=1)
    yield 16, 0, dict(int8, ZERO=2, INPUTS=4096, OUTPUTS=1000, TOKENS=16, CLUSTER=2, BIAS=1)
    yield 62, 0, dict(formats[0], INPUTS=4096, OUTPUTS=6144, TOKENS=64)
    yield 16, 0, dict(int8, INPUTS=11008, OUTPUTS=4096, TOKENS=16, WGMMA=1, CLUSTER=4, RESIDUAL=1)
    yield 64, 0, dict(formats[0], INPUTS=4096, OUTPUTS=4096, TOKENS=64, CLUSTER=2, RESIDUAL=1)
    yield 31, 0, dict(asymmetric, INPUTS=11008, OUTPUTS=4096, TOKENS=32, CLUSTER=2, WGMMA=1, RESIDUAL=1)
    yield 16, 0, dict(int8, ZERO=1, INPUTS=4096, OUTPUTS=12288, TOKENS=16, CLUSTER=4)
    # Norms that linears share: rows of each kind of launch.
    for tokens in (8, 16, 32, 48, 64):
        for f in (formats[0], dict(WEIGHT=8, ACTIVATION=2, RESULT=2), dict(WEIGHT=4, GROUP=128, ACTIVATION=2, RESULT=2)):
            yield tokens - 3, 0, dict(f, INPUTS=11008, OUTPUTS=4096, TOKENS=tokens, RESIDUAL=1, NEXT_NORM=1)
            yield tokens, 0, dict(f, INPUTS=4096, OUTPUTS=4096, TOKENS=tokens, RESIDUAL=1, NEXT_NORM=1)
            yield tokens, 0, dict(f, INPUTS=4096, OUTPUTS=12288, TOKENS=tokens, FACTOR=1, BIAS=1)
            yield tokens - 1, 0, dict(f, INPUTS=4096, OUTPUTS=2 * 5504, TOKENS=tokens, GATED=1, FACTOR=1)
    if not short:
        yield 5, 0, dict(formats[0], INPUTS=1040, OUTPUTS=41, TOKENS=8, BIAS=1)
        yield 33, 0, dict(formats[1], INPUTS=1040, OUTPUTS=2 * 37, TOKENS=40, GATED=1, BIAS=1)
        yield 64, 0, dict(formats[0], INPUTS=4096, OUTPUTS=12288, TOKENS=64, INTERLEAVE=132)
        yield 64, 0, dict(formats[0], INPUTS=14336, OUTPUTS=4096, TOKENS=64, RESIDUAL=1, INTERLEAVE=132)
        yield 32, 0, dict(formats[-2], INPUTS=4096, OUTPUTS=2 * 11008, TOKENS=32, GATED=1, INTERLEAVE=132)
        yield 33, 0, dict(formats[0], INPUTS=4096, OUTPUTS=12288, TOKENS=64, CLUSTER=1)
        yield 64, 0, dict(formats[2], INPUTS=4096, OUTPUTS=4096, TOKENS=64, CLUSTER=1, RESIDUAL=1)
        yield 32, 0, dict(formats[0], RESULT=0, INPUTS=2048, OUTPUTS=32000, TOKENS=32)


def main():
    if sys.argv[1:2] == ["build"]:
        chips = sys.argv[2:] or ("sm_80", "sm_86", "sm_89", "sm_90a")
        jobs = []
        for _, _, given in cases(False):
            for chip in chips:
                if chip == "sm_90a" or given.get("CLUSTER", 1) == 1 and not given.get("WGMMA"):
                    jobs.append(("batch/linear.cu", batch.definitions(chip, **given), chip))
        nvrtc.build_all(jobs)
        return
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))
    for rows, pad, given in cases(sys.argv[1:] == ["short"]):
        check(rows, pad, **given)
    print(f"{failures} failures")
    sys.exit(1 if failures else 0)


main()
