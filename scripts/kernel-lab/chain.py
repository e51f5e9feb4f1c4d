# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""A whole decode step of the baichuan2-7b shape in one CUDA graph with programmatic dependent launches.

usage: chain.py PRECISION[:KEY=VALUE,...] ...   e.g.  chain.py bf16 int8:A_SPLITS=1 int4:act=2,DEPTH=1
Precisions: bf16, int8 (per channel), int4 (g128 symmetric, head int8). Keys in capitals are definitions
of the linear kernels (A_... of the attention kernel), act the activations' type (1 f16, 2 bf16),
interleave 0 or 1, ctx the context. Prints tokens per second and bytes (weights, scales, KV) over
copy bandwidth, and checks the last hidden state and the logits against PyTorch in f32.
"""

import sys
import time

import torch
from bench_attention import rule
from device import (DTYPES, AttentionArguments, EmbeddingArguments, Kernel, LinearArguments, Pages, Rotation, Rows,
                    copy_bandwidth, error, graph_time, pointer)
from nvrtc import attention_definitions, linear_definitions
from layout import pack, paired8, plane, quantize

DEV, H, F, N, D, V, LAYERS, GRID = "cuda", 4096, 11008, 32, 128, 125696, 32, 132


class Model:
    """Random packed weights, buffers, and a reference of one token's step."""

    def __init__(self, precision, act, interleave, ctx):
        torch.manual_seed(7)
        self.key = (precision, act, interleave, ctx)
        self.act, self.at, self.ctx, self.interleave = act, DTYPES[act], ctx, interleave
        self.body = dict(bf16=dict(WEIGHT=2), int8=dict(WEIGHT=8), int4=dict(WEIGHT=4, GROUP=128))[precision]
        self.head = dict(WEIGHT=2) if precision == "bf16" else dict(WEIGHT=8)
        at, self.bytes = self.at, 0
        columns = (ctx + 63) // 64
        self.block = 2 * N * 64 * D
        self.cache = torch.randn(columns, LAYERS, 2, N, 64, D, device=DEV, dtype=at)
        self.table = torch.randperm(columns, device=DEV, dtype=torch.int32).view(1, columns)
        keys = self.cache[self.table[0].long()].permute(1, 2, 3, 0, 4, 5).reshape(LAYERS, 2, N, -1, D)
        self.positions = torch.tensor([ctx - 1], device=DEV, dtype=torch.int32)
        self.zero = torch.zeros(1, device=DEV, dtype=torch.int32)
        angle = torch.arange(ctx, device=DEV).double()[:, None] * 10000.0 ** (-torch.arange(64, device=DEV).double() / 64)
        self.cosines, self.sines = angle.cos().float(), angle.sin().float()
        self.embedding = torch.randn(V, H, device=DEV, dtype=at)
        self.step = torch.tensor([1, 1, 1, 0, 1], device=DEV, dtype=torch.int32)
        self.sources = torch.tensor([-1], device=DEV, dtype=torch.int32)
        self.token = torch.tensor([777], device=DEV, dtype=torch.int32)
        nan = lambda *shape, dtype=at: torch.full(shape, float("nan"), device=DEV, dtype=dtype)
        self.h, self.qkv, self.attended, self.gated = nan(1, H), nan(1, 3 * H), nan(1, H), nan(1, F)
        self.logits = nan(1, V, dtype=torch.float32)
        self.layers = []
        h = self.embedding[777].float()
        norm = lambda x, gamma: x * torch.rsqrt(x.pow(2).mean() + 1e-6) * gamma.float()
        for layer in range(LAYERS):
            gammas = [(torch.rand(H, device=DEV) + 0.5).to(at) for _ in range(2)]
            parts = []
            for i, (n, k) in enumerate(((3 * H, H), (H, H), (2 * F, H), (H, F))):
                w = torch.randn(n, k, device=DEV) * 0.02
                if i == 2:
                    w = paired8(w[:F], w[F:])
                parts.append(self.packed(w, self.body))
            qkv, o, gate_up, down = parts
            q, k, v = (qkv[2] @ norm(h, gammas[0])).view(3, N, D)
            c, s = self.cosines[-1], self.sines[-1]
            turn = lambda x: torch.cat((x[:, :64] * c - x[:, 64:] * s, x[:, 64:] * c + x[:, :64] * s), 1)
            ks, vs = keys[layer].float()[:, :, :ctx].clone()
            ks[:, -1], vs[:, -1] = turn(k), v
            p = torch.softmax(torch.einsum("hd,hnd->hn", turn(q), ks) * D ** -0.5, 1)
            h = h + o[2] @ torch.einsum("hn,hnd->hd", p, vs).flatten()
            gu = (gate_up[2] @ norm(h, gammas[1])).view(-1, 2, 8)
            h = h + down[2] @ (torch.nn.functional.silu(gu[:, 0]) * gu[:, 1]).flatten()
            self.layers.append((gammas, [p[:2] for p in parts]))
            del parts, qkv, o, gate_up, down, w
        self.bytes += 2 * LAYERS * 2 * N * D * ctx
        self.last_gamma = (torch.rand(H, device=DEV) + 0.5).to(at)
        *self.head_weight, decoded = self.packed(torch.randn(V, H, device=DEV) * 0.02, self.head)
        self.expected, self.expected_logits = h, decoded @ norm(h, self.last_gamma)
        del decoded, keys
        torch.cuda.empty_cache()

    def packed(self, w, scheme):
        codes, s, z, decoded = quantize(w, scheme["WEIGHT"], scheme.get("GROUP", 0), 0)
        grouped = scheme.get("GROUP", 0)
        bytes_ = pack(codes, scheme["WEIGHT"], grouped, s if grouped else None, None, GRID if self.interleave else 0)
        scales = plane(s[:, 0], len(w)) if s is not None and not grouped else None
        self.bytes += bytes_.numel() + (scales.numel() * 4 if scales is not None else 0)
        return bytes_, scales, decoded

    def launcher(self, options, dependent=True):
        """A function that launches one token's kernels."""
        act = self.act
        shares = {**rule(1, N, 1, D, 32768), **{k[2:]: v for k, v in options.items() if k.startswith("A_")}}
        options = {k: v for k, v in options.items() if k.isupper() and not k.startswith("A_")}
        linear = lambda scheme, **d: Kernel("decode/linear.cu", "linear_decode", linear_definitions(**{
            "ACTIVATION": act, "RESULT": act, "INTERLEAVE": GRID if self.interleave else 0, **scheme, **d, **options}))
        kinds = [linear(self.body, INPUTS=H, OUTPUTS=3 * H, NORM=1), linear(self.body, INPUTS=H, OUTPUTS=H, RESIDUAL=1),
                 linear(self.body, INPUTS=H, OUTPUTS=2 * F, GATED=1, NORM=1),
                 linear(self.body, INPUTS=F, OUTPUTS=H, RESIDUAL=1)]
        head = linear(self.head, INPUTS=H, OUTPUTS=V, NORM=1, RESULT=0)
        attention = Kernel("decode/attention.cu", "attention_decode", attention_definitions(
            ACTIVATION=act, KV=act, HEAD_DIM=D, GROUP=1, **shares, **{k: v for k, v in options.items() if k == "TRACE"}))
        partials = torch.zeros(N, shares["SPLITS"], D + 2, device=DEV)
        counters = torch.zeros(N, device=DEV, dtype=torch.int32)
        embedding = Kernel("plain/linear.cu", "embedding_plain", dict(ACTIVATION=act, RESULT=act, WEIGHT=act, SCALE=0, ZERO=0))
        zero, launches, keep = self.zero, [], [partials, counters]

        def call(kernel, arguments, grid, threads=None, dependent_=None):
            keep.append(arguments)
            launches.append((kernel, arguments, grid, threads, dependent if dependent_ is None else dependent_))

        def call_linear(kernel, weight, x, y, gamma=None, residual=None):
            call(kernel, LinearArguments(Rows.of(x), Rows.of(y), Rows.of(residual), pointer(weight[0]), pointer(weight[1]), None,
                                         pointer(gamma), None, 1e-6), (GRID, 1, 1))

        call(embedding, EmbeddingArguments(
            pointer(self.step), pointer(self.sources), pointer(self.token), None, Rows.of(self.h),
            pointer(self.embedding), None, None, V, H, 0, 0), (1, 16, 1), 256, False)
        splits = attention.facts[3]
        self.attention_blocks = splits * N
        for layer, (gammas, weights) in enumerate(self.layers):
            call_linear(kinds[0], weights[0], self.h, self.qkv, gammas[0])
            layer_bytes = self.block * 2
            call(attention, AttentionArguments(
                pointer(self.step), pointer(self.positions), Rows.of(self.qkv), Rows.of(self.qkv, H),
                Rows.of(self.qkv, 2 * H), Rows.of(self.attended), Rotation(pointer(self.cosines), pointer(self.sines), 64, 0),
                Pages(self.cache.data_ptr(), layer_bytes * LAYERS, layer_bytes * LAYERS, layer_bytes * layer, pointer(zero),
                      None, pointer(self.table), None, self.table.shape[1], 64, N, D),
                None, pointer(partials), pointer(counters), 0, D ** -0.5, 0), (splits, N, 1))
            call_linear(kinds[1], weights[1], self.attended, self.h, None, self.h)
            call_linear(kinds[2], weights[2], self.h, self.gated, gammas[1])
            call_linear(kinds[3], weights[3], self.gated, self.h, None, self.h)
        call_linear(head, self.head_weight, self.h, self.logits, self.last_gamma)
        self.traces = torch.zeros(len(launches), 256, 8, device=DEV, dtype=torch.int64)
        for i, (_, arguments, *_) in enumerate(launches):
            if hasattr(arguments, "trace"):
                arguments.trace = self.traces[i].data_ptr()
        self.keep = keep

        def launch():
            for kernel, arguments, grid, threads, is_dependent in launches:
                kernel.launch(arguments, grid, threads, dependent=is_dependent)
        launch.kernels = kinds + [head, attention]
        return launch

    def check(self, launch):
        for t in (self.h, self.qkv, self.attended, self.gated, self.logits):
            t.fill_(float("nan"))
        launch()
        torch.cuda.synchronize()
        return f"h {error(self.h[0], self.expected):.1e} logits {error(self.logits[0], self.expected_logits):.1e}"


def trace_table(model):
    """Mean microseconds between a kernel's moments over layers 8...27, and from one kernel to the next."""
    t = model.traces[1:1 + 5 * LAYERS].view(LAYERS, 5, 256, 8)[8:28].double().cpu() / 1e3
    print("  us: start to wait, wait (mean, last), x, stream, finish (mean, max); last start after the kernel "
          "before ended; kernel's end after that end")
    ends = []
    for kind, name in enumerate(("qkv", "attention", "o", "gate-up", "down")):
        blocks = model.attention_blocks if kind == 1 else GRID
        x = t[:, kind, :blocks]
        before = (t[:, kind - 1, :GRID if kind != 2 else model.attention_blocks, 5].amax(1) if kind else
                  torch.cat((t[:1, 0, :GRID, 0].amax(1), t[:-1, 4, :GRID, 5].amax(1))))
        if not kind:
            x, before = x[1:], before[1:]
        step = x[:, :, 1:6] - x[:, :, 0:5]
        f = lambda v: f"{v.mean():6.2f}"
        print(f"  {name:10}", f(step[:, :, 0]), f(step[:, :, 1]), f((x[:, :, 2].amax(1) - before)), "|", f(step[:, :, 2]),
              f(step[:, :, 3]), f(step[:, :, 4]), f(step[:, :, 4].amax(1)), "|", f(x[:, :, 0].amax(1) - before),
              f(x[:, :, 5].amax(1) - before), "| end spread", f(x[:, :, 5].amax(1) - x[:, :, 5].amin(1)))


def main():
    copy, model = copy_bandwidth(), None
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.3f} TB/s", flush=True)
    for word in sys.argv[1:]:
        precision, _, rest = word.partition(":")
        options = {k: int(v) for k, v in (pair.split("=") for pair in rest.split(",") if pair)}
        key = (precision, options.get("act", 2 if precision == "bf16" else 1), options.get("interleave", 0),
               options.get("ctx", 192))
        if model is None or model.key != key:
            begin, model = time.time(), None
            torch.cuda.empty_cache()
            model = Model(*key)
            print(f"== {key}: {model.bytes / 1e9:.3f} GB, built in {time.time() - begin:.0f} s", flush=True)
        try:
            launch = model.launcher(options, options.get("pdl", 1) == 1)
            checked = model.check(launch) if not options.get("trusted") else ""
            ms = graph_time(launch, 5, 5)
        except RuntimeError as problem:
            print(f"{word}: {problem}", flush=True)
            return
        if options.get("TRACE"):
            trace_table(model)
        print(f"{word}: {ms:.4f} ms {1e3 / ms:.1f} tok/s {model.bytes / ms / copy * 100:.1f} % of copy; {checked}", flush=True)


main()
