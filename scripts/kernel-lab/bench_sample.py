# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Checks and times the sampler: ids, states and log-probabilities against the rule in PyTorch, and another kernel.

usage: bench_sample.py [reference=CASES] [check=CASES old=FILE] [sizes=V,...] [requests=B] [time] [KEY=VALUE ...]
`reference` compares random cases with the rule in PyTorch, `check` with another kernel of the same arguments and one
block per request, bit for bit. Definitions follow (ACTIVATION, CLUSTER), all combined where they have several values.
"""

import ctypes
import itertools
import math
import os
import struct
import sys
from ctypes import c_int32, c_void_p

import numpy as np
import torch
from device import DTYPES, Kernel, Rows, graph_time, pointer
from nvrtc import resources

DEV = "cuda"
TOP = 256
ONE = 1 << 40
FIELDS = ("step query_start logit_rows row_use mask parameters bias state_slot history_start history marks "
          "adjusted").split()
RESULTS = "tokens status log_probability top_tokens top_values top_counts result".split()


class SampleArguments(ctypes.Structure):
    _fields_ = ([(name, c_void_p) for name in FIELDS] + [("logits", Rows)] + [(name, c_void_p) for name in RESULTS]
                + [("vocabulary", c_int32), ("slot_count", c_int32)])


DEFAULTS = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, repetition=1.0, presence=0.0,
                frequency=0.0, seed_low=1, seed_high=2, position=3, log_probabilities=-1, bias_start=0, bias_count=0,
                prompt_count=0, flags=0)


def packed(parameters):
    """The words of a request's record."""
    p = {**DEFAULTS, **parameters}
    return struct.pack("<fi6f3I4iI", *(p[name] for name in DEFAULTS))


def tensor(x, dtype=np.int32):
    return torch.from_numpy(np.array(x, dtype=dtype, ndmin=1)).to(DEV)


class Batch:
    """Inputs of one launch: `requests` are dicts of parameters with `rows`, `bias`, `history` and `slot`."""

    def __init__(self, requests, logits, slots, masks=None, use=None, marks=None):
        self.requests, self.logits = requests, logits
        rows, self.vocabulary = logits.shape
        self.slots = slots
        self.marks = marks if marks is not None else torch.zeros(slots, self.vocabulary, device=DEV, dtype=torch.int32)
        starts, sources, bias, history, history_start, words = [0], [], [], [], [0], []
        for r in requests:
            sources += range(starts[-1], starts[-1] + r["rows"])
            starts.append(starts[-1] + r["rows"])
            words.append(packed({**{k: v for k, v in r.items() if k in DEFAULTS}, "bias_start": len(bias),
                                 "bias_count": len(r["bias"])}))
            bias += r["bias"]
            history += r["history"]
            history_start.append(len(history))
        self.use = np.ones(rows, np.int32) if use is None else use
        self.masks = masks
        self.inputs = dict(
            step=tensor([rows, len(requests), rows, 0 if masks is None else 1]), query_start=tensor(starts),
            logit_rows=tensor(sources), row_use=tensor(self.use),
            parameters=tensor(np.frombuffer(b"".join(words), np.int32)),
            mask=tensor(masks if masks is not None else [0]),
            bias=tensor(np.frombuffer(b"".join(struct.pack("<if", *b) for b in bias) or b"\0" * 8, np.int32)),
            state_slot=tensor([r["slot"] for r in requests]), history_start=tensor(history_start),
            history=tensor(history or [0]),
            adjusted=torch.full((len(requests), self.vocabulary), math.nan, device=DEV))
        self.outputs = {
            name: torch.empty((rows, TOP) if name in ("top_tokens", "top_values") else rows, device=DEV,
                              dtype=torch.float32 if name in ("log_probability", "top_values") else torch.int32)
            for name in RESULTS}

    def arguments(self, marks):
        given = {name: pointer(t) for name, t in {**self.inputs, **self.outputs, "marks": marks}.items()}
        return SampleArguments(**given, logits=Rows.of(self.logits), vocabulary=self.vocabulary, slot_count=self.slots)

    def grid(self, kernel):
        return (kernel.defines.get("CLUSTER", 1) * len(self.requests), 1, 1)

    def run(self, kernel):
        """Results as CPU tensors of bits, marks among them."""
        marks = self.marks.clone()
        for t in self.outputs.values():
            t.fill_(-7)
        kernel.launch(self.arguments(marks), self.grid(kernel), 512, 0, dependent=False)
        torch.cuda.synchronize()
        found = {name: t.view(torch.int32).cpu() for name, t in self.outputs.items()}
        # Behind a list's end stands whatever was there.
        behind = torch.arange(TOP)[None] >= found["top_counts"].clamp(0, TOP)[:, None]
        for name in ("top_tokens", "top_values"):
            found[name][behind] = 0
        return {**found, "marks": marks}


# ---- Random cases -------------------------------------------------------------------------------------------


def random_row(rng, v):
    kind = rng.integers(0, 12)
    x = torch.from_numpy(rng.standard_normal(v, dtype=np.float32)).to(DEV) * float(rng.choice([0.3, 1, 3, 10]))
    if kind == 0:
        x = (x * 4).round() / 4
    elif kind == 1:
        x = torch.full_like(x, float(rng.choice([0, -3.5, 20])))
    elif kind == 2:
        x = x.sort(descending=bool(rng.integers(0, 2))).values
    elif kind == 3:
        x = x.bfloat16().float()
    elif kind == 4:
        x = (x > 1).float() * float(rng.choice([0.5, 30]))
    elif kind == 5:
        x[int(rng.integers(0, v))] += 50
    elif kind == 6:
        x = x * float(rng.choice([1e-6, 1e3, 1e30]))
    elif kind == 7:
        x = x.half().float() * (torch.rand_like(x) > 0.5)
    if rng.random() < 0.03:
        x[int(rng.integers(0, v))] = float(rng.choice([math.nan, math.inf, -math.inf]))
    return x


def pick(rng, usual, *others, share=0.5):
    return usual if rng.random() < share else others[rng.integers(0, len(others))]


def random_batch(rng, v, requests):
    slots, cases = requests + 1, []
    for i in range(requests):
        filters = rng.random()
        share = 1.0 if filters < 0.15 else 0.6 if filters < 0.7 else 0.0
        near = int(rng.integers(1, v + 1))
        history = [int(t) for t in rng.integers(-2, min(v, int(rng.choice([8, 300, v]))) + 2, rng.integers(0, 60))]
        bias = [(int(rng.integers(-2, min(v, 40) + 2)), float(rng.choice(
            [1, -1, 5, 0.3, -100, math.inf, -math.inf, math.nan, 3e38]))) for _ in range(rng.integers(0, 20))]
        cases.append(dict(
            rows=int(rng.integers(1, 4)) if rng.random() < 0.2 else 1,
            slot=i if rng.random() < 0.85 else int(pick(rng, -1, slots)), history=history,
            prompt_count=int(rng.integers(0, len(history) + 1)), bias=bias if rng.random() < 0.25 else [],
            temperature=float(pick(rng, 1.0, 0.0, 0.7, 0.1, 1.5, 10, 1e-3, 1e6)),
            top_k=int(pick(rng, 0, 1, 2, 5, 40, 64, 200, 256, 257, 511, 512, 1000, v, v + 5, near, near, share=share)),
            top_p=float(pick(rng, 1.0, 0.95, 0.5, 0.1, 0.99999, 0.0, rng.random(), 0.9, share=share)),
            min_p=float(pick(rng, 0.0, 0.05, 0.5, 1.0, 1e-6, 2.0, share=max(share, 0.5))),
            typical_p=float(pick(rng, 1.0, 0.9, 0.5, 0.1, 0.0, share=max(share, 0.4))),
            repetition=float(pick(rng, 1.0, 1.2, 0.8, 2.0)), presence=float(pick(rng, 0.0, 0.5, -0.5)),
            frequency=float(pick(rng, 0.0, 0.3, -0.2)), seed_low=int(rng.integers(0, 1 << 32)),
            seed_high=int(rng.integers(0, 1 << 32)), position=int(rng.integers(0, 5000)),
            log_probabilities=int(pick(rng, -1, 0, 1, 5, 20, 256)), flags=int(rng.random() < 0.2)))
    rows = sum(c["rows"] for c in cases)
    logits = torch.empty(rows, v, device=DEV)
    for o in range(rows):
        logits[o] = random_row(rng, v)
    masks = None
    if rng.random() < 0.3:
        bits = torch.rand(rows, (v + 31) // 32 * 32, device=DEV) < tensor(
            rng.choice([1.0, 0.5, 0.01, 20 / v, 0.0], rows, p=[0.3, 0.3, 0.2, 0.15, 0.05]), np.float32)[:, None]
        masks = np.packbits(bits.cpu().numpy(), axis=1, bitorder="little").view(np.int32)
    marks = torch.zeros(slots, v, device=DEV, dtype=torch.int32)
    seen = rng.choice([0, 1, 3, -2**31, -2**31 + 2], (slots, min(v, 200)), p=[0.8] + [0.05] * 4)
    marks[:, :seen.shape[1]] = tensor(seen)
    use = (rng.random(rows) < 0.95).astype(np.int32)
    return Batch(cases, logits, slots, masks, use, marks)


def differences(batch, found, expected):
    """Names of results that differ, with the first row of each."""
    bad = []
    for name, x in expected.items():
        if name in found and not torch.equal(found[name], x):
            at = (found[name] != x).reshape(len(x), -1).any(1).nonzero()[0].item()
            bad.append((name, at, found[name][at].flatten()[:4].tolist(), x[at].flatten()[:4].tolist()))
    return bad


def owner_of(batch, row):
    for r in batch.requests:
        if row < r["rows"]:
            return r
        row -= r["rows"]


REQUESTS = [48]
SIZES = [33, 100, 1000, 4099, 32000, 125696, 125696]


def check(kernel, cases, other, seed, reference=False):
    rng, done, failed = np.random.default_rng(seed), 0, 0
    while done < cases:
        v = int(rng.choice(SIZES))
        batch = random_batch(rng, v, REQUESTS[0])
        batch.logits = batch.logits.to(DTYPES[kernel.defines["ACTIVATION"]])
        found = batch.run(kernel)
        expected = rule(batch) if reference else batch.run(other)
        done += len(batch.logits)
        for name, at, got, wanted in differences(batch, found, expected):
            failed += 1
            if failed < 12:
                request = owner_of(batch, at) if name != "marks" else ""
                print(f"FAIL V {v} {name} row {at}: {got}, expected {wanted};", request)
    print(f"{'FAIL' if failed else 'ok  '} {kernel.defines} {'rule' if reference else 'other kernel'}: {done} cases, "
          f"{failed} differ (seed {seed})", flush=True)
    return failed


# ---- The rule in PyTorch ------------------------------------------------------------------------------------


def weight(x):
    """exp(x) in units of 2^-40 by single IEEE operations."""
    x = x.clamp(min=-60)
    shifted = x * float(np.float32(1.44269504)) + 12582912.0
    whole = shifted - 12582912.0
    r = (x - whole * 0.693359375) - whole * float(np.float32(-2.12194440e-4))
    p = r * float(np.float32(1) / np.float32(5040)) + float(np.float32(1) / np.float32(720))
    for n in (120, 24, 6, 2, 1, 1):
        p = p * r + float(np.float32(1) / np.float32(n))
    n = shifted.view(torch.int32) - 0x4B400000
    return (p * ((n + 127) << 23).view(torch.float32) * 2.0 ** 40).long()


def logarithm(x):
    m, e = math.frexp(x)
    m, e = m * 2, float(e - 1)
    if m > 1.4142135623730951:
        m, e = m / 2, e + 1
    z = (m - 1) / (m + 1)
    square, total = z * z, 0.0
    for k in range(23, 0, -2):
        total = total * square + 1 / k
    return e * 0.6931471805599453 + 2 * z * total


def philox(position, k0, k1):
    c = [position, 0, 0, 0]
    for i in range(10):
        if i:
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k1, a & 0xFFFFFFFF]
    return c[0]


def part(fraction, total):
    return min(math.ceil(float(np.float32(fraction)) * float(total)), total) if fraction > 0 else 1


def first(keys, sizes, target):
    """Indices, rising, of the shortest run by falling key, then rising index, that reaches the target."""
    order = keys.sort(descending=True, stable=True).indices
    sums = sizes[order].cumsum(0)
    return order[sums - sizes[order] < max(target, 1)].sort().values


def rule_row(x, p, mask, marks):
    """(token, status, log-probability, top tokens, top values) of one row."""
    v = len(x)
    if not torch.isfinite(x).all():
        return -1, 1, 0.0, [], []
    y = x.clone()
    if mask is not None:
        y[~mask] = -math.inf

    def put(index, value):
        y[index] = torch.where(value.isnan(), -math.inf, value.clamp(max=3.4028234663852886e38))

    for token, number in p["bias"]:
        if 0 <= token < v:
            put(token, y[token] + tensor(number, np.float32))
    if marks is not None and (p["repetition"], p["presence"], p["frequency"]) != (1, 0, 0):
        seen = (marks != 0).nonzero().flatten()
        counts = (marks[seen] & 0x7FFFFFFF).float()
        repetition, presence, frequency = (
            tensor(p[name], np.float32) for name in ("repetition", "presence", "frequency"))
        z = torch.where(y[seen] > 0, y[seen] / repetition, y[seen] * repetition)
        put(seen, torch.where(counts > 0, (z - presence) - counts * frequency, z))
    greatest = y.max()
    if greatest == -math.inf:
        return -1, 3, 0.0, [], []
    temperature = tensor(p["temperature"], np.float32)
    if not p["temperature"] > 0 or p["top_k"] == 1:
        token = int((y == greatest).nonzero()[0])
    else:
        ids = (y != -math.inf).nonzero().flatten()
        if p["top_k"] > 0:
            ids = ids[first(y[ids], torch.ones_like(ids), p["top_k"])]
        s = (y[ids] - greatest) / temperature
        w = weight(s)

        def keep(chosen):
            nonlocal ids, s, w
            ids, s, w = ids[chosen], s[chosen], w[chosen]

        if p["top_p"] < 1:
            keep(first(s, w, part(p["top_p"], int(w.sum()))))
        if p["min_p"] > 0:
            keep(w >= math.ceil(float(np.float32(min(p["min_p"], 1))) * ONE))
        if p["typical_p"] < 1:
            total = int(w.sum())
            mean = torch.where(w > 0, w.double() * s.double(), 0).sum().item() / float(total)
            keep(first(-(tensor(mean, np.float32) - s).abs(), w, part(p["typical_p"], total)))
        total = int(w.sum())
        point = total * (philox(p["position"], p["seed_low"], p["seed_high"]) >> 8) >> 24
        token = int(ids[int((w.cumsum(0) > point).nonzero()[0])])
    if p["log_probabilities"] < 0:
        return token, 0, 0.0, [], []
    greatest = x.max()
    normaliser = greatest.item() + logarithm(float(int(weight(x - greatest).sum())) / ONE)
    top = x.sort(descending=True, stable=True).indices[:min(p["log_probabilities"], TOP)].tolist()
    return token, 0, x[token].item() - normaliser, top, [x[t].item() - normaliser for t in top]


def rule(batch):
    rows = len(batch.logits)
    found = {name: torch.full(batch.outputs[name].shape, 0, dtype=torch.int32) for name in RESULTS}
    marks, o = batch.marks.clone(), 0
    history = batch.inputs["history_start"].tolist()
    for i, p in enumerate(batch.requests):
        own = marks[p["slot"]] if 0 <= p["slot"] < batch.slots else None
        if own is not None:
            if p["flags"] & 1:
                own.zero_()
            for j, token in enumerate(p["history"]):
                if 0 <= token < batch.vocabulary:
                    if j < p["prompt_count"]:
                        own[token] |= -2**31
                    else:
                        own[token] += 1
        for _ in range(p["rows"]):
            result = (-1, 2, 0.0, [], [])
            if batch.use[o]:
                mask = None
                if batch.masks is not None:
                    mask = torch.from_numpy(np.unpackbits(
                        batch.masks[o].view(np.uint8), bitorder="little")[:batch.vocabulary].astype(bool)).to(DEV)
                result = rule_row(batch.logits[o].float(), p, mask, own)
            token, status, probability, top, values = result
            found["tokens"][o] = found["result"][o] = token
            found["status"][o] = status
            found["log_probability"][o] = int(np.float32(probability).view(np.int32))
            found["top_counts"][o] = len(top)
            found["top_tokens"][o, :len(top)] = torch.tensor(top, dtype=torch.int32)
            found["top_values"][o, :len(top)] = torch.from_numpy(np.array(values, np.float32).view(np.int32).copy())
            if own is not None and token >= 0:
                own[token] += 1
            o += 1
    return {**found, "marks": marks}


# ---- Time ---------------------------------------------------------------------------------------------------

SETTINGS = {
    "greedy": dict(temperature=0.0),
    "greedy, penalties": dict(temperature=0.0, repetition=1.1, presence=0.1, frequency=0.1),
    "top-k 40": dict(top_k=40),
    "top-k 40, top-p 0.95, penalties": dict(top_k=40, top_p=0.95, repetition=1.1, presence=0.1, frequency=0.1),
    "top-p 0.95": dict(top_p=0.95),
    "top-p 0.95 of sharp": dict(top_p=0.95, temperature=0.5),
    "temperature": dict(),
    "min-p 0.05": dict(min_p=0.05),
    "typical-p 0.9": dict(typical_p=0.9),
    "all, 20 log-probabilities": dict(top_k=1000, top_p=0.99, min_p=1e-4, typical_p=0.95, repetition=1.1, presence=0.1,
                                      frequency=0.1, log_probabilities=20),
}


def measure(kernels, v=125696):
    """Microseconds behind a kernel that emptied the caches and one that wrote the logits, as after a decode step."""
    junk = torch.zeros(32 << 20, device=DEV)
    rng = np.random.default_rng(1)
    for requests in (1, 64):
        source = torch.randn(requests, v, device=DEV) * 3
        logits = torch.empty_like(source)

        def before():
            junk.add_(1)
            logits.copy_(source)

        bare = graph_time(before, 10, 9)
        for name, setting in SETTINGS.items():
            cases = [dict(rows=1, slot=i, history=[int(t) for t in rng.integers(0, v, 300)], bias=[], **setting)
                     for i in range(requests)]
            batch, row = Batch(cases, logits, requests), []
            for kernel in kernels:
                a, grid = batch.arguments(batch.marks), batch.grid(kernel)
                launch = lambda: kernel.launch(a, grid, 512, 0, dependent=False)
                slow = kernel.name == "old"
                cold = graph_time(lambda: (before(), launch()), 1 if slow else 10, 3 if slow else 9) - bare
                warm = graph_time(launch, 1 if slow else 10, 3 if slow else 9)
                row.append(f"{cold * 1e3:8.1f} {warm * 1e3:8.1f}")
            print(f"{requests:3} x {name:32}", "   ".join(row), flush=True)


def main():
    words = dict(word.split("=", 1) if "=" in word else (word, "") for word in sys.argv[1:])
    old = words.pop("old", None)
    cases, reference, times = int(words.pop("check", 0)), int(words.pop("reference", 0)), "time" in words
    words.pop("time", None)
    SIZES[:] = map(int, words.pop("sizes").split(",")) if "sizes" in words else SIZES
    REQUESTS[0] = int(words.pop("requests", 48))
    words = {"ACTIVATION": "0", **words}
    kernels = [Kernel("plain/sample.cu", "sample_plain", dict(zip(words, map(int, values))))
               for values in itertools.product(*(text.split(",") for text in words.values()))]
    others = {kernel.defines["ACTIVATION"]: None for kernel in kernels}
    if old:
        others = {t: Kernel(os.path.abspath(old), "sample_plain", dict(ACTIVATION=t)) for t in others}
    for kernel in kernels:
        print(kernel.defines, "%d registers, %d bytes of spills" % resources(kernel.report))
    failed, seed = 0, int.from_bytes(os.urandom(4), "little")
    for kernel in kernels:
        if reference:
            failed += check(kernel, reference, None, seed, True)
        if cases and old:
            failed += check(kernel, cases, others[kernel.defines["ACTIVATION"]], seed + 1)
    if times:
        other = others.get(0)
        if other:
            other.name = "old"
        print(f"{torch.cuda.get_device_name()}: us, cold and warm, of", [k.defines for k in kernels], old or "")
        measure([k for k in kernels if not k.defines["ACTIVATION"]] + ([other] if other else []))
    sys.exit(1 if failed else 0)


main()
