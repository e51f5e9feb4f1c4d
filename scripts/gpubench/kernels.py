# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Rows of kernels alone, which scripts of the kernel lab time."""

import hashlib
import pathlib
import re
import subprocess
import sys
import time

from gpubench.engines import note

LAB = pathlib.Path(__file__).resolve().parent.parent / "kernel-lab"  # none in the folder that gpu-bundle makes
SOURCES = LAB.parent.parent / "Sources/CMartletCUDASources/kernels"
VARIANTS = {"WINDOW": "window", "ALIBI": "ALiBi", "SOFT_CAP": "soft cap", "ROTARY": "RoPE of neighbours"}


def lab(script, *words):
    """What a script of the lab prints."""
    command = [sys.executable, str(LAB / script), *map(str, words)]
    start = time.time()
    if script == "bench_batch.py":
        subprocess.run([*command[:2], "build", *command[2:]], check=True, capture_output=True, cwd=LAB)
    result = subprocess.run(command, capture_output=True, text=True, cwd=LAB)
    note(" ".join(command[1:]), start)
    if result.returncode:
        raise RuntimeError((result.stderr or result.stdout).strip()[-800:])
    return result.stdout


def ratios(cases):
    """Ratios to head dim 128, causal, with names: of another head dim or variant, and of both at once.

    `cases`: heads, head dim, variant ('' for causal alone), rate."""
    base = {heads: rate for heads, dim, variant, rate in cases if dim == 128 and not variant}
    one, both = [], []
    for heads, dim, variant, rate in cases:
        if heads in base and (dim != 128 or variant):
            name = " ".join(filter(None, (heads, f"D {dim}", variant)))
            (both if dim != 128 and variant else one).append((rate / base[heads], name))
    return one, both


def against_128(cases, shorter=()):
    """The worst ratio; those of both at once and of `shorter`, cases of 2,048 tokens, have no gate."""
    one, both = ratios(cases)
    detail = "goal 0.85; " + ", ".join(f"{name} {ratio:.2f}" for ratio, name in one)
    for what, found in (("both at once", both), ("2,048 tokens", ratios(shorter)[0])):
        if found:
            detail += "; at worst, {2}: {1} {0:.2f}".format(*min(found), what)
    return dict(value=min(one)[0], unit="x D 128 causal", gate=0.65, detail=detail)


class Kernels:
    def __init__(self, preset):
        self.preset, self.ratios, self.attentions = preset, {}, []

    @property
    def marks(self):
        """As those of `Bench`, which has the program's hash."""
        digest = hashlib.sha256()
        for path in sorted([*SOURCES.rglob("*.cu*"), *LAB.glob("*.py")]):
            digest.update(path.read_bytes())
        return dict(kernels=digest.hexdigest()[:12])

    def linears(self):
        """All linears of a layer in order with the norms that they share, bf16."""
        text = lab("bench_batch.py", "layer", self.preset, "bf16", "8,16,32,64")
        shares = re.findall(r"rows +(\d+) +([\d.]+) us +([\d.]+) %", text)
        return dict(value=min(float(share) for *_, share in shares), unit="% of C", gate=88,
                    detail=", ".join(f"{rows} rows {us} us, {share} %" for rows, us, share in shares))

    def w4a16(self, rows):
        """The same in int4 g128 against one row, which is the decode row's kernel."""
        if not self.ratios:
            text = lab("bench_batch.py", "layer", self.preset, "int4", "1,16,32")
            self.ratios = {int(n): (float(ratio), us) for n, us, ratio in re.findall(
                r"rows +(\d+) +([\d.]+) us +[\d.]+ % +([\d.]+) of one row", text)}
        return dict(value=self.ratios[rows][0], unit="x one row", gate={16: 1.10, 32: 1.20}[rows], most=True,
                    detail=f"{self.ratios[rows][1]} us against {self.ratios[1][1]}")

    def attention(self, kv_heads):
        """Paged decode attention of 32 heads; 1 x 32,768 has a gate of its own, so the worst share of its gate counts."""
        if not self.attentions:
            self.attentions = re.findall(
                r"(\d+) x +(\d+) heads 32/(\d+) D 128 *: +([\d.]+) us +([\d.]+) % of copy", lab("bench_attention.py", "gates"))
        cases = [(int(b), int(n), float(share)) for b, n, kv, _, share in self.attentions if int(kv) == kv_heads]
        worst = min(share / (75 if b == 1 else 88) for b, _, share in cases)
        return dict(value=100 * worst, unit="% of its gate", gate=100,
                    detail=", ".join(f"{b} x {n} {share} %" for b, n, share in cases) + " of C (gates 88, 1 x 32,768: 75)")

    def decode_variants(self):
        """Rate per byte of keys and values, 8 requests of 4,096 positions."""
        found = re.findall(r" 8 x +4096 heads (\S+) D (\d+) (?:\{'(\w+)'.*?\})?: +[\d.]+ us +([\d.]+) % of copy",
                           lab("bench_attention.py", "dims"))
        return against_128([(heads, int(dim), VARIANTS.get(variant, variant), float(share))
                            for heads, dim, variant, share in found])

    def prefill_variants(self):
        """Rate per FLOP, one prompt of 8,192 tokens and one of 2,048, 8 kv heads for 32; windows of 1,024."""
        cases = {"8192": [], "2048": []}
        for tokens, words, share in re.findall(
                r"/\[(\d+)\] .*?(HEAD_DIM=.*?): .* ([\d.]+) % of G", lab("prompts.py", "variants")):
            given = dict(word.split("=") for word in words.split())
            variant = "".join(VARIANTS[name] for name in VARIANTS if name in given)
            cases[tokens].append(("32/8", int(given["HEAD_DIM"]), variant, float(share)))
        return against_128(cases["8192"], cases["2048"])

    def rows(self):
        yield "linears", self.linears
        for rows in (16, 32):
            yield f"w4a16-{rows}", lambda r=rows: self.w4a16(r)
        for kv_heads in (32, 8, 1):
            yield f"attention-{kv_heads}", lambda h=kv_heads: self.attention(h)
        yield "variants-decode", self.decode_variants
        yield "variants-prefill", self.prefill_variants
