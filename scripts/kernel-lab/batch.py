# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Which constants `linear_batch` is built with: a rule, and the limits that it must keep.

What a host must know to bind the kernel stands here as code: `definitions` chooses, `shared_bytes` counts.
"""

import itertools

from nvrtc import words_of

# Clusters of so many blocks that an H100 runs at once (ask cuOccupancyMaxActiveClusters), one block a multiprocessor.
CLUSTERS = {1: 132, 2: 66, 4: 30, 8: 15}
# More than half of a multiprocessor's shared memory: one block each.
ALONE = {"sm_80": 84 << 10, "sm_86": 52 << 10, "sm_89": 52 << 10, "sm_90a": 116 << 10}
SHARED_LIMIT = {"sm_80": 166912, "sm_86": 101376, "sm_89": 101376, "sm_90a": 232448}
DEFAULTS = dict(GROUP=0, ZERO=0, GATED=0, BIAS=0, RESIDUAL=0, INTERLEAVE=0, WGMMA=0)


def ceil(a, b):
    return -(-a // b)


class Shape:
    """What follows from a kernel's definitions, as the kernel derives it."""

    def __init__(self, d, chip="sm_90a"):
        self.d, self.chip = d, chip
        self.word_k, self.words = words_of(d["WEIGHT"], d["INPUTS"])
        self.quantized = d["WEIGHT"] in (4, 8)
        self.chunk_k = self.word_k * self.words
        self.strip_chunks = d["INPUTS"] // self.chunk_k
        self.groups = self.chunk_k // d["GROUP"] if self.quantized and d["GROUP"] else 0
        self.strips = ceil(d["OUTPUTS"], 16)
        self.most = ceil(self.strips, d["GRID"] // d["CLUSTER"])
        self.splits = d["CLUSTER"] * d["GROUPS"]
        self.panels = ceil(ceil(self.strip_chunks, self.splits) * self.chunk_k, d["PANEL"])

    def shared_bytes(self):
        d = self.d
        place = self.words * 512 + self.groups * 32 * (8 if d["ZERO"] else 4)
        rings = d["WARPS"] * d["DEPTH"] * d["STRIPS"] * place
        x = d["BUFFERS"] * d["GROUPS"] * d["TOKENS"] * d["PANEL"] * 2
        rows = self.most * d["TOKENS"]
        received = (d["CLUSTER"] - 1) * ceil(rows, 2 * d["CLUSTER"]) * 2 * 64
        barriers = max(x + rings, d["GROUPS"] * rows * 64) + (d["BUFFERS"] + 1) * 16
        sums = d["TOKENS"] * 4 if self.quantized and not d["GROUP"] and d["ZERO"] else 0
        norm = (max(d["WARPS"] * 32 // d["TOKENS"], 1) * d["TOKENS"] * 4 if d.get("FACTOR") else rows * 4 if d.get("NEXT_NORM") else 0)
        channels = self.most * 64 * (2 if d["ZERO"] else 1) if self.quantized and not d["GROUP"] else 0
        return max(ceil(barriers, 128) * 128 + received + (d["GROUPS"] + d["CLUSTER"]) * sums + norm + channels, ALONE[self.chip])

    def fits(self, limit):
        d = self.d
        steps = self.words // d["STEP"]
        return (d["WARPS"] // d["GROUPS"] * d["STRIPS"] >= self.most
                and d["WARPS"] % d["GROUPS"] == 0 and self.words % d["STEP"] == 0 and self.groups % steps == 0
                and d["BUFFERS"] <= min(self.panels, d["WARPS"]) and self.shared_bytes() <= limit)


def candidates(**given):
    """All configurations worth a try of a linear on sm_90a: shape, format and TOKENS are given, others may be."""
    free = dict(CLUSTER=(1, 2, 4, 8), STRIPS=(1, 2, 3, 4), GROUPS=(1, 2, 3, 4, 6, 8, 11, 12), DEPTH=(1, 2, 3, 4, 6, 8),
                STEP=(1, 2, 4), PANEL=(64, 128, 256, 512), BUFFERS=(1, 2, 3, 4, 6, 8))
    free = {name: (given[name],) if name in given else values for name, values in free.items()}
    for choice in itertools.product(*free.values()):
        d = {**DEFAULTS, **given, **dict(zip(free, choice))}
        if not is_panel(d["PANEL"], d) or d["WGMMA"] and d["STEP"] * words_of(d["WEIGHT"], d["INPUTS"])[0] < 32:
            continue
        d["GRID"] = given.get("GRID", CLUSTERS[d["CLUSTER"]] * d["CLUSTER"])
        most = ceil(ceil(d["OUTPUTS"], 16), d["GRID"] // d["CLUSTER"])
        d["WARPS"] = given.get("WARPS", row_warps(d, most) * d["GROUPS"])
        if d["WARPS"] <= 24 and registers(d) <= room(d) and Shape(d).fits(SHARED_LIMIT["sm_90a"]):
            yield d


def definitions(chip="sm_90a", **given):
    """What a linear is built with: shape, format and TOKENS are given, others may be."""
    d = {**DEFAULTS, **given}
    is_hopper = chip == "sm_90a"
    tokens, bits = d["TOKENS"], {4: 4, 8: 8}.get(d["WEIGHT"], 16)
    word_k, words = words_of(d["WEIGHT"], d["INPUTS"])
    strips, chunks = ceil(d["OUTPUTS"], 16), d["INPUTS"] // (word_k * words)

    def choose(name, value):
        d[name] = given.get(name, value)
        return d[name]

    # For 48 and 64 rows warpgroup instructions: each reads x from shared memory once for 64 rows of the weight. Of
    # 4-bit codes, which take longest to become operands, for 32 too.
    choose("WGMMA", int(is_hopper and tokens % 16 == 0 and tokens >= (32 if bits == 4 else 48) and word_k * words % 64 == 0))
    # Two blocks cut K where x is long, and twice what a block reads of the weight: the exchange costs 2 us. Sooner
    # where a block would have two strips, half of what a warpgroup multiplies.
    x_bytes, weight_bytes = d["INPUTS"] * tokens * 2, d["INPUTS"] * ceil(strips, CLUSTERS[1]) * 2 * bits
    # Warpgroups hide less of x: sooner still, where an owner's strips stay a block's.
    long = (500 if strips <= 2 * CLUSTERS[1] else 600) << 10
    is_cut = (x_bytes >= max(weight_bytes, 256 << 10) and ceil(strips, CLUSTERS[2]) <= 16 if d["WGMMA"]
              else x_bytes > long and x_bytes >= 2 * weight_bytes)
    cluster = choose("CLUSTER", 2 if is_hopper and is_cut else 1)
    # One block a multiprocessor, of at most 16 strips.
    choose("GRID", min(CLUSTERS[cluster] * cluster * ceil(strips, CLUSTERS[1] * 16), strips * cluster))
    most = ceil(strips, d["GRID"] // cluster)
    groups_of_chunk = word_k * words // d["GROUP"] if bits < 16 and d["GROUP"] else 0
    choose("STEP", 2 if words % 2 == 0 and groups_of_chunk % (words // 2) == 0 else words)
    panels = [p for p in (256, 128, 64) if is_panel(p, d)]
    # An eighth to all of what an H100 has room for.
    for strip_count, share in itertools.product((1, 2, 3, 4), (8, 6, 4, 3, 2, 1)):
        choose("STRIPS", strip_count)
        rows = row_warps(d, most)
        # 4-bit codes take longest to become operands: more warps for them.
        most_warps = 16 if d["WGMMA"] else max((16 if bits == 4 else 12) * share // 8, rows)
        # x: four panels of 128 KB in all, of 144 KB for warpgroups, whose panels are best of 128 inputs or more.
        x_limit = share * ((18 if d["WGMMA"] else 16) << 10)
        most_groups = x_limit // (4 * tokens * 128 * 2) if d["WGMMA"] else 8
        choose("GROUPS", next((g for g in ((8, 4, 2) if not d["WGMMA"] else (3, 2) if tokens > 32 else (2,))
                               if g <= most_groups and rows * g <= most_warps and g * cluster <= chunks), 1))
        if choose("WARPS", rows * d["GROUPS"]) > (24 if "GROUPS" in given else 16):
            continue
        # Weights: 16-bit ones want 100 KB under way; more of others delays x.
        choose("PANEL", next((p for p in panels if 4 * d["GROUPS"] * tokens * p * 2 <= x_limit), panels[-1]))
        ring = {16: 100, 8: 76, 4: 64 if d["WGMMA"] else 56}[bits] * share // 8
        deepest = 8 if not d["WGMMA"] else 4 if bits == 16 else 3
        depth = choose("DEPTH", max(min(2 * ring // (d["WARPS"] * d["STRIPS"] * words), deepest, ceil(chunks, d["GROUPS"] * cluster)), 1))
        for buffers in (4, 3, 2, 1):
            choose("BUFFERS", min(buffers, Shape({**d, "BUFFERS": 1}).panels))
            for d["DEPTH"] in range(depth, 0, -1) if "DEPTH" not in given else (depth,):
                if Shape(d, chip).fits(SHARED_LIMIT[chip]) and registers(d) <= room(d):
                    return d
    raise SystemExit(f"no configuration for {given}")


def is_panel(k, d):
    """Whether a panel holds whole chunks, or a chunk whole panels of whole steps."""
    word_k, words = words_of(d["WEIGHT"], d["INPUTS"])
    if words % d["STEP"]:
        return False
    return k % (word_k * words) == 0 or word_k * words % k == 0 and k % (word_k * d["STEP"]) == 0


def row_warps(d, most):
    """Warps for so many strips; warpgroups are of four."""
    warps = ceil(most, d["STRIPS"])
    return ceil(warps, 4) * 4 if d["WGMMA"] else warps


def registers(d):
    """Registers of a thread, about."""
    return 56 + d["STRIPS"] * d["TOKENS"] // 2 + (16 * d["STRIPS"] if d["WGMMA"] else 0)


def room(d):
    """Registers that a thread can have."""
    return {1: 255, 2: 255, 3: 168, 4: 128, 5: 96}.get(ceil(d["WARPS"], 4), 80)
