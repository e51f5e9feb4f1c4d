# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Times the linears of a layer for 1 to 64 rows: weight bytes over copy bandwidth.

usage: bench_batch.py layer SHAPE FORMAT ROWS,... [KEY=VALUE ...]   all linears of all layers in order, `definitions`
       bench_batch.py sweep SHAPE FORMAT ROWS LINEAR [KEY=VALUES ...]   one linear, every configuration
       bench_batch.py trace SHAPE FORMAT ROWS LINEAR [KEY=VALUE ...]   where a linear's microseconds go
       bench_batch.py build ...                                     compiles what the rest of the line needs
Rows 1 are the decode kernel's. LINEAR: qkv, o, gate_up, down. Several commands, " / " between them, share one run. With
NORM=kernel in the environment norms are kernels of their own, with NORM=0 a layer has none.
"""

import os
import sys

import batch
import nvrtc

SHAPES = {"baichuan2-7b": (4096, 11008, 12288, 4096, 8), "mistral-7b": (4096, 14336, 6144, 4096, 8)}
FORMATS = {"bf16": dict(WEIGHT=2, ACTIVATION=2, RESULT=2), "int8": dict(WEIGHT=8, ACTIVATION=2, RESULT=2),
           "int4": dict(WEIGHT=4, GROUP=128, ACTIVATION=2, RESULT=2)}
SHOWN = ("GRID", "CLUSTER", "WARPS", "GROUPS", "STRIPS", "DEPTH", "STEP", "PANEL", "BUFFERS", "WGMMA")
DEV = "cuda"


def kinds(shape):
    h, inner, qkv, attended, _ = SHAPES[shape]
    return dict(qkv=dict(INPUTS=h, OUTPUTS=qkv), o=dict(INPUTS=attended, OUTPUTS=h, RESIDUAL=1),
                gate_up=dict(INPUTS=h, OUTPUTS=2 * inner, GATED=1), down=dict(INPUTS=inner, OUTPUTS=h, RESIDUAL=1))


def parsed(words):
    return {k: int(v) for k, v in (word.split("=") for word in words)}


def layer_definitions(shape, form, rows, given):
    """Of a layer's linears; one row's norm is a linear's prologue, else two linears share it, or it is a kernel in front."""
    found, norms = [], os.environ.get("NORM", "shared")
    for name, kind in kinds(shape).items():
        if rows == 1:
            norm = 1 if name in ("qkv", "gate_up") else 0
            found.append(nvrtc.linear_definitions(**FORMATS[form], **kind, TOKENS=1, NORM=norm,
                                                  INTERLEAVE=given.get("INTERLEAVE", 0)))
            continue
        if name in ("qkv", "gate_up") and norms == "kernel":
            found.append(norm_definitions(form, kind["INPUTS"]))
        if norms == "shared":
            kind = {**kind, "FACTOR" if name in ("qkv", "gate_up") else "NEXT_NORM": 1}
        found.append(batch.definitions(**FORMATS[form], **kind, TOKENS=rows, **given))
    return found


def norm_definitions(form, columns):
    act = FORMATS[form]["ACTIVATION"]
    return dict(ACTIVATION=act, COLUMNS=columns)


def sweep_definitions(shape, form, rows, kind, words):
    free = {name: [int(v) for v in values.split(",")] for name, values in (word.split("=") for word in words)}
    fixed = {name: values[0] for name, values in free.items() if len(values) == 1}
    found = []
    for d in batch.candidates(**FORMATS[form], **kinds(shape)[kind], TOKENS=rows, **fixed):
        if all(d[name] in values for name, values in free.items()) and d not in found and plausible(d):
            found.append(d)
    return found


def plausible(d):
    s = batch.Shape(d)
    ring = d["WARPS"] * d["DEPTH"] * d["STRIPS"] * s.words * 512
    ahead = min(d["BUFFERS"], s.panels) * d["PANEL"] * d["GROUPS"] * d["TOKENS"] * 2
    most = batch.ceil(d["INPUTS"], d["CLUSTER"]) * d["TOKENS"] * 2
    return (6 <= d["WARPS"] <= 24 and 48 << 10 <= ring <= 160 << 10
            and (s.panels <= d["BUFFERS"] or d["BUFFERS"] in (3, 4)) and (ahead >= min(24 << 10, most)))


def source(d):
    if "COLUMNS" in d:
        return "prefill/rows.cu", "norm_prefill"
    return ("batch/linear.cu", "linear_batch") if "CLUSTER" in d else ("decode/linear.cu", "linear_decode")


def build(commands):
    jobs = []
    for mode, shape, form, rows, *words in commands:
        if mode == "trace":
            found = [dict(batch.definitions(**FORMATS[form], **kinds(shape)[words[0]], TOKENS=int(rows),
                                            **parsed(words[1:])), TRACE=1)]
        elif mode == "sweep":
            found = sweep_definitions(shape, form, int(rows), words[0], words[1:])
            print(shape, form, rows, words, len(found), "configurations", flush=True)
        else:
            found = [d for r in rows.split(",") for d in layer_definitions(shape, form, int(r), parsed(words))]
        jobs += [(source(d)[0], d, "sm_90a") for d in found]
    nvrtc.build_all(list({str(job): job for job in jobs}.values()))


class Bench:
    def __init__(self):
        import torch
        import device
        import layout
        self.torch, self.device, self.weights = torch, device, layout.random_weights
        self.copy = device.copy_bandwidth()
        torch.cuda.empty_cache()
        print(f"{torch.cuda.get_device_name()}: copy {self.copy / 1e9:.3f} TB/s", flush=True)
        self.kept, self.traces = {}, None

    def stack(self, form, ks, layers):
        key = (form, str(ks), layers)
        if key not in self.kept:
            self.kept.clear()
            self.torch.cuda.empty_cache()
            self.kept[key] = [[self.weights(FORMATS[form], k["INPUTS"], k["OUTPUTS"]) for k in ks]
                              for _ in range(layers)]
        return self.kept[key]

    def time(self, form, definitions, stack):
        torch, dev = self.torch, self.device
        at = dev.DTYPES[FORMATS[form]["ACTIVATION"]]
        rows = next(d["TOKENS"] for d in definitions if "TOKENS" in d)
        step = torch.tensor([rows] * 4, device=DEV, dtype=torch.int32)
        linears = [d for d in definitions if "INPUTS" in d]
        wide = max(max(d["INPUTS"], d["OUTPUTS"]) for d in linears)
        scales, gamma = torch.full((wide + 16,), 0.0005, device=DEV), torch.ones(wide, device=DEV, dtype=at)
        flow, calls = {}, []
        squares = torch.ones(132, rows, device=DEV)

        def buffer(name, columns):
            if (name, columns) not in flow:
                flow[name, columns] = torch.randn(rows, columns, device=DEV).to(at)
            return dev.Rows.of(flow[name, columns])

        for d in definitions:
            if "kernel" not in d:
                d["kernel"] = dev.Kernel(*source(d), d)
        for weights in stack:
            left = list(weights)
            for d in definitions:
                kernel = d["kernel"]
                head = (dev.pointer(step), dev.RowCount(tokens=1))
                if "COLUMNS" in d:
                    a = dev.RowNormArguments(*head, buffer("r", d["COLUMNS"]), buffer("x", d["COLUMNS"]),
                                             dev.pointer(gamma), 1e-5)
                    calls.append((kernel, a, rows, 256))
                    continue
                w = dev.pointer(left.pop(0))
                out = d["OUTPUTS"] // 2 if d["GATED"] else d["OUTPUTS"]
                ends = (buffer("x", d["INPUTS"]), buffer("y", out), buffer("r", out))
                norm = dev.SharedNorm(buffer("scaled", wide), dev.pointer(gamma), dev.pointer(squares), rows, 132, 1e-5, 0)
                if "CLUSTER" in d:
                    traces = self.traces[len(calls)].data_ptr() if self.traces is not None else None
                    a = dev.BatchLinearArguments(dev.tensor_map(flow["x", d["INPUTS"]], rows), *head, *ends, w,
                                                 dev.pointer(scales), None, None, norm, traces)
                else:
                    a = dev.LinearArguments(*ends, w, dev.pointer(scales), None, dev.pointer(gamma), None, 1e-5)
                calls.append((kernel, a, kernel.facts[2], None))

        def launch():
            for kernel, a, blocks, threads in calls:
                kernel.launch(a, (blocks, 1, 1), threads)

        return dev.graph_time(launch, 5, 5) / len(stack)

    def trace(self, shape, form, rows, kind, *words):
        """Where the time of a linear goes: moments of all blocks of each launch, means over launches."""
        torch, dev = self.torch, self.device
        k = kinds(shape)[kind]
        d = dict(batch.definitions(**FORMATS[form], **k, TOKENS=int(rows), **parsed(words)), TRACE=1)
        stack = self.stack(form, [k], 16)
        self.traces = torch.zeros(16, d["GRID"], 8, device=DEV, dtype=torch.int64)
        self.time(form, [d], stack)
        t = (self.traces[4:, :, :6] - self.traces[4:, :, :1].amin(1, keepdim=True)).double() / 1e3
        self.traces = None
        print(f"{shape} {form} {rows} {kind}: us from the first block's start, least / mean / greatest;",
              " ".join(f"{n}={d[n]}" for n in SHOWN))
        for i, name in enumerate(("start", "ring asked for", "producers done", "products done", "parts there", "end")):
            print(f"  {name:15} {t[:, :, i].amin(1).mean():6.2f} {t[:, :, i].mean():6.2f} {t[:, :, i].amax(1).mean():6.2f}", flush=True)

    def layer(self, shape, form, rows, *words):
        h, layers = SHAPES[shape][0], SHAPES[shape][4]
        stack = self.stack(form, list(kinds(shape).values()), layers)
        moved = sum(w.numel() for w in stack[0])
        given, base = parsed(words), None
        for r in map(int, rows.split(",")):
            ms = self.time(form, layer_definitions(shape, form, r, given), stack)
            base = ms if r == 1 else base
            print(f"{shape:13} {form:5} rows {r:3} {ms * 1e3:7.1f} us {moved / ms / self.copy * 100:5.1f} %",
                  f"{ms / base:.3f} of one row" if base else "", " ".join(words), flush=True)

    def sweep(self, shape, form, rows, kind, *words):
        k = kinds(shape)[kind]
        stack = self.stack(form, [k], max(8, int(1.2e9 / (k["INPUTS"] * k["OUTPUTS"] * FORMATS[form]["WEIGHT"] / 4))))
        moved = stack[0][0].numel()
        results, refused = [], set()
        for d in sweep_definitions(shape, form, int(rows), kind, words):
            kernel = self.device.Kernel(*source(d), d)
            active = kernel.active_clusters(d["GRID"], d["CLUSTER"]) if d["CLUSTER"] > 1 else d["GRID"]
            if active * d["CLUSTER"] < d["GRID"]:
                refused.add((active, d["CLUSTER"]))
                continue
            d["kernel"] = kernel
            ms = self.time(form, [d], stack)
            del d["kernel"]
            results.append((ms, d))
        results.sort(key=lambda r: r[0])
        for active, size in refused:
            print("only", active, "clusters of", size, "at once")
        for ms, d in results[:6] + results[6::max(1, len(results) // 4)]:
            print(f"{shape} {form} {rows} {kind}: {ms * 1e3:6.2f} us {moved / ms / self.copy * 100:5.1f} %",
                  " ".join(f"{name}={d[name]}" for name in SHOWN), flush=True)


def main():
    words = sys.argv[1:]
    building = words[:1] == ["build"]
    commands = [c.split() for c in " ".join(words[1:] if building else words).split("/")]
    if building:
        build(commands)
        return
    bench = Bench()
    for mode, *rest in commands:
        getattr(bench, mode)(*rest)


main()
