# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Times the linears of a layer in order, for several numbers of rows: weight bytes over copy bandwidth.

usage: bench_linear.py [SHAPE[:KEY=VALUE,...]] ...   shapes: baichuan2-7b, mistral-7b, smollm2
Weights are random codes in the packed layout, distinct per layer, so that no cache holds them.
"""

import sys

import torch
from device import DTYPES, Kernel, LinearArguments, Rows, copy_bandwidth, graph_time, pointer
from layout import random_weights
from nvrtc import linear_definitions

DEV = "cuda"
SHAPES = {"baichuan2-7b": (4096, 11008, 12288, 4096, 8), "mistral-7b": (4096, 14336, 6144, 4096, 8),
          "smollm2": (576, 1536, 960, 576, 30)}
FORMATS = [("bf16", dict(WEIGHT=2, ACTIVATION=2, RESULT=2)), ("int8", dict(WEIGHT=8, ACTIVATION=1, RESULT=1)),
           ("int4g128", dict(WEIGHT=4, GROUP=128, ACTIVATION=1, RESULT=1))]


def main():
    copy = copy_bandwidth()
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.3f} TB/s; us per layer and % of copy, rows 1, 2, 4, 8")
    for word in sys.argv[1:] or ["baichuan2-7b"]:
        shape, _, rest = word.partition(":")
        h, inner, qkv, attended, layers = SHAPES[shape]
        given = {k: int(v) for k, v in (pair.split("=") for pair in rest.split(",") if pair)}
        kinds = [dict(INPUTS=h, OUTPUTS=qkv, NORM=1), dict(INPUTS=attended, OUTPUTS=h, RESIDUAL=1),
                 dict(INPUTS=h, OUTPUTS=2 * inner, GATED=1, NORM=1), dict(INPUTS=inner, OUTPUTS=h, RESIDUAL=1)]
        for name, f in FORMATS:
            if f.get("GROUP") and h % 128:
                f = dict(f, GROUP=64)
            at = DTYPES[f["ACTIVATION"]]
            stack = [[random_weights(f, k["INPUTS"], k["OUTPUTS"]) for k in kinds] for _ in range(layers)]
            moved = sum(w.numel() for layer in stack for w in layer)
            scales = torch.full((2 * inner + 16,), 0.0005, device=DEV)
            gamma = torch.ones(max(h, inner), device=DEV, dtype=at)
            row = []
            for tokens in (1, 2, 4, 8):
                flow = [torch.randn(tokens, n, device=DEV).to(at) for n in (h, qkv, attended, inner)]
                ends = [(flow[0], flow[1]), (flow[2], flow[0]), (flow[0], flow[3]), (flow[3], flow[0])]
                kernels = [Kernel("decode/linear.cu", "linear_decode", linear_definitions(**f, **k, TOKENS=tokens, **given))
                           for k in kinds]
                calls = [(kernel, LinearArguments(
                    Rows.of(x), Rows.of(y), Rows.of(flow[0]), pointer(w), pointer(scales), None, pointer(gamma), None, 1e-5))
                    for layer in stack for kernel, w, (x, y) in zip(kernels, layer, ends)]

                def launch():
                    for kernel, a in calls:
                        kernel.launch(a, (kernel.facts[2], 1, 1))

                if max(kernel.facts[0] for kernel in kernels) > 232448:
                    row.append("too much shared memory")
                    continue
                ms = graph_time(launch, 5, 5)
                row.append(f"{ms * 1e3 / layers:7.1f} us {moved / ms / copy * 100:5.1f} %")
            print(f"{shape:13} {name:9}", "  ".join(row), given or "", flush=True)
            del stack


main()
