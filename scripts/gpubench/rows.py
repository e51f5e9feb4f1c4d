# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Rows of `martlet bench`, build and run on an engine of one shape."""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import time

from gpubench.engines import SHAPES, Engines, note

CODES = ("bf16", "int8", "int4")
DECODE_GATE = {"bf16": 94, "int8": 88, "int4": 77}
PREFILL_GATE = {2048: 78, 8192: 72}  # of bf16
CODED_PREFILL_GATE = {2048: 0.85, 8192: 0.93}  # of bf16's rate in the same file
# With the code of an older GPU.
OLD_DECODE_GATE = {"bf16": 86, "int8": 76, "int4": 63}
OLD_PREFILL_GATE = {2048: 45, 8192: 45}
BATCHES = {"bf16": (8, 32, 64, 128, 192), "int8": (8, 32, 64, 128, 256), "int4": (8, 32, 64, 128, 256)}


def work(row):
    """The device's time beside the wall's, and what started its kernels, over all steps of a case."""
    device, wall = row["device ms/step"], row["wall ms/step"]
    text = f"device {device:.3f} of {wall:.3f} ms a step ({100 * device / wall:.1f} %)"
    if row.get("kernels/step"):
        text += f", {row['launches/step']:.1f} launches and {row['kernels/step']:.1f} kernels"
    return text


class Bench:
    def __init__(self, program, preset, force_sm=None):
        self.suffix = f"/sm_{force_sm}" if force_sm else ""
        self.program, self.preset, self.batches = program, preset, {}
        self.more = ["--force-sm", force_sm] if force_sm else []
        self.decode_gate = OLD_DECODE_GATE if force_sm else DECODE_GATE
        self.prefill_gate = OLD_PREFILL_GATE if force_sm else PREFILL_GATE
        (self.layers, self.hidden, self.inner, self.heads, self.kv_heads, self.head_dim,
         self.vocabulary) = SHAPES[preset]

    def begin(self, ceilings, engines, results):
        """What rows are measured against and with; `results`: the file that the comparison's lies beside."""
        self.at, self.engines = ceilings, Engines(self.program, engines)
        self.marks = dict(program=hashlib.sha256(pathlib.Path(self.program).read_bytes()).hexdigest()[:12])
        card = re.sub(r"\W+", "-", ceilings.name)
        self.compared = results.with_name(f"{results.stem}-classic-{self.marks['program']}-{card}.json")

    def martlet(self, weights, *flags):
        command = [
            self.program, "bench", str(self.engines(self.preset, weights)), "--device", "cuda", "--output", "json",
            *map(str, flags), *self.more]
        start = time.time()
        result = subprocess.run(command, capture_output=True, text=True)
        note(" ".join(command[1:]), start)
        if result.returncode:
            raise RuntimeError(result.stderr.strip()[-800:])
        return json.loads(result.stdout)

    def alone(self, weights, *flags):
        """Kernels of a step one by one: how many steps of the plan started any, and their time."""
        found = self.martlet(weights, *flags, "--warm-up", 0, "--num-runs", 1, "--profile")
        (case,), steps = found["cases"], [step for step in found["steps"] if step["us"]]
        runs = round(case["latency ms"] / case["wall ms/step"])
        ms = sum(step["us"] for step in steps) / runs / 1e3
        return f"{sum(step['count'] for step in steps)} plan steps, {ms:.3f} ms one by one"

    @property
    def linear_weights(self):
        qkv = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim
        return self.layers * (qkv + self.heads * self.head_dim * self.hidden + 3 * self.hidden * self.inner)

    def prefill_flop(self, tokens):
        """Linears of all layers, the head for one row, and causal attention."""
        pairs = tokens * (tokens + 1) / 2
        return (2 * tokens * self.linear_weights + 2 * self.hidden * self.vocabulary
                + 4 * self.layers * self.heads * self.head_dim * pairs)

    def key(self, name):
        return f"{self.preset}/{name}{self.suffix}"

    def lowered(self, gate):
        return gate - 3 if self.preset == "mistral-7b" else gate

    def decode(self, weights):
        limits = ("--max-context", 512)
        row = self.martlet(weights, "--input-output-len", "128,128", *limits)[0]
        rate, bytes_ = row["decode tokens/s"], row["MB/step"] * 1e6
        flop = 2 * (self.linear_weights + self.hidden * self.vocabulary)
        return dict(value=100 * rate * bytes_ / self.at.copy, unit="% of C", gate=self.lowered(self.decode_gate[weights]),
                    detail=f"{rate:.1f} tokens/s, {bytes_ / 1e9:.3f} GB and {flop / 1e9:.1f} GFLOP a token, {work(row)}, "
                    + self.alone(weights, "--input-output-len", "1,16", *limits))

    def prefill(self, weights, tokens):
        flags = ("--input-output-len", f"{tokens},1", "--max-num-tokens", tokens, "--max-context", 8192 + 64)
        row = self.martlet(weights, *flags)[0]
        seconds, flop = row["latency ms"] / 1e3, self.prefill_flop(tokens)
        gate = (dict(gate=self.lowered(self.prefill_gate[tokens])) if weights == "bf16" else
                dict(of=(self.key(f"prefill-bf16-{tokens}"), CODED_PREFILL_GATE[tokens])))
        return dict(gate, value=100 * flop / seconds / self.at.product, unit="% of G",
                    detail=f"{seconds * 1e3:.2f} ms, {flop / 1e12:.2f} TFLOP, {tokens / seconds:.0f} tokens/s, "
                    f"{100 * flop / seconds / self.at.steady:.1f} % of steady G, {work(row)}, {self.alone(weights, *flags)}")

    def host(self):
        """The work of the engine's thread, of the weights whose steps hide the least."""
        row = self.martlet("int4", "--input-output-len", "1,256", "--max-context", 512)[0]
        beside = 1e3 * (row["wall ms/step"] - row["device ms/step"])
        return dict(value=1e3 * row["host ms/step"], unit="us a decode step", gate=30, most=True,
                    detail=f"wall less device {beside:.1f} us, {work(row)}")

    def sampling(self, size):
        """Decode time with filters and penalties against greedy."""
        limits = ("--batch-size", size, "--input-output-len", "128,128", "--max-context", 512, "--max-batch-size", size)
        greedy = self.martlet("bf16", *limits)[0]["decode tokens/s"]
        drawn = self.martlet("bf16", *limits, "--temperature", 0.8, "--top-k", 40, "--top-p", 0.95, "--repetition-penalty", 1.1,
                             "--presence-penalty", 0.1, "--frequency-penalty", 0.1)[0]["decode tokens/s"]
        return dict(value=100 * (greedy / drawn - 1), unit="% more time", gate={1: 5, 64: 8}[size], most=True,
                    detail=f"{greedy:.1f} tokens/s greedy, {drawn:.1f} drawn")

    def batch(self, weights, size):
        # 256 requests of 576 tokens beside int8 weights exceed 80 GB: theirs end at 512. Prompts must end before the
        # first answer.
        prompt, answer, tokens = (448, 128, 2048) if size < 256 else (448, 64, 8192)
        if (weights, answer) not in self.batches:  # all sizes in one process
            sizes = [other for other in BATCHES[weights] if (other < 256) == (size < 256)]
            self.batches[weights, answer] = {row["batch"]: row for row in self.martlet(
                weights, "--batch-size", ";".join(map(str, sizes)), "--input-output-len", f"{prompt},{answer}",
                "--max-context", prompt + answer, "--max-batch-size", max(sizes), "--max-num-tokens", tokens,
                "--memory-fraction", 0.98, "--num-runs", 2, "--warm-up", 1)}
        row = self.batches[weights, answer][size]
        if row["decode tokens/s"] <= 0:
            raise ValueError(f"{size} requests never drew tokens at once")
        step = size / row["decode tokens/s"]
        kv = 2 * self.layers * self.kv_heads * self.head_dim * 2 * (prompt + answer // 2) * size
        bytes_ = row["MB/step"] * 1e6
        flop = 2 * size * (self.linear_weights + self.hidden * self.vocabulary)
        floor = max((bytes_ - kv) / self.at.copy, flop / self.at.product) + kv / self.at.copy
        return dict(value=step / floor, unit="x roofline", gate=1.30, most=True,
                    detail=f"{step * 1e3:.2f} ms a step, floor {floor * 1e3:.2f} ms, {bytes_ / 1e9:.2f} GB, "
                    f"{flop / 1e12:.2f} TFLOP, {size / step:.0f} tokens/s; with the prompts {work(row)}")

    def build(self, weights):
        self.engines.checkpoint(self.preset)
        self.engines.path(self.preset, weights).unlink(missing_ok=True)
        seconds = self.engines.build(self.preset, weights)
        size = self.engines.path(self.preset, weights).stat().st_size
        return dict(value=seconds, unit="s", gate=60, most=True, detail=f"engine of {size / 1e9:.2f} GB")

    def start(self, weights):
        """From exec to the first token of an engine in the page cache; the second of two runs."""
        engine = self.engines(self.preset, weights)
        for _ in range(2):
            begin = time.time()
            program = subprocess.Popen(
                [self.program, "run", engine, "--device", "cuda", "--input-ids", "1,2,3,4", "--max-output-len", "8",
                 "--max-context", "512", "--max-batch-size", "1"], stdout=subprocess.PIPE)
            program.stdout.read(1)
            seconds = time.time() - begin
            program.stdout.read()
            if program.wait():
                raise RuntimeError("the run failed")
        return dict(value=seconds, unit="s", gate=2, most=True, detail=f"{engine.stat().st_size / 1e9:.2f} GB")

    def compare(self):
        """Figures of the classic comparison, which keeps them in a file and draws them; what was left out."""
        if not self.compared.exists():
            script = pathlib.Path(__file__).resolve().parent.parent / "compare-transformers.py"
            command = [sys.executable, script, "--program", self.program, "--engine", self.engines(self.preset, "int8-all"),
                       "--results", self.compared, "--chart", self.compared.with_suffix(".svg")]
            start = time.time()
            result = subprocess.run(command, capture_output=True, text=True)
            note("compare-transformers.py", start)
            if result.returncode:
                raise RuntimeError((result.stderr or result.stdout).strip()[-800:])
        found = json.loads(self.compared.read_text())
        return found["rows"], f"; {found['left_out']}" if found["left_out"] else ""

    def classic(self):
        """Latency of 32 and 128 tokens in, 50 out."""
        rows, left_out = self.compare()
        theirs, ours = rows[0][1], rows[-1][1]
        return dict(value=min(100 * (1 - a / b) for a, b in zip(ours, theirs)), unit="% less", gate=85, detail="; ".join(
            f"{name} {' and '.join(f'{1e3 * seconds:.1f}' for seconds in latency)} ms" for name, latency, _ in rows) + left_out)

    def classic_memory(self):
        rows, left_out = self.compare()
        return dict(value=100 * (1 - rows[-1][2] / rows[0][2]), unit="% less", gate=46, detail="; ".join(
            f"{name} {memory / 1e9:.2f} GB" for name, _, memory in rows) + left_out)

    def rows(self):
        for weights in ("bf16", "int8"):
            yield f"build-{weights}", lambda w=weights: self.build(w)
            yield f"start-{weights}", lambda w=weights: self.start(w)
        for weights in CODES:
            yield f"decode-{weights}", lambda w=weights: self.decode(w)
        yield "host", self.host
        for weights in CODES:
            for tokens in PREFILL_GATE:
                yield f"prefill-{weights}-{tokens}", lambda w=weights, t=tokens: self.prefill(w, t)
        for size in (1, 64):
            yield f"sampling-{size}", lambda s=size: self.sampling(s)
        for weights, sizes in BATCHES.items():
            for size in sizes:
                yield f"batch-{weights}-{size}", lambda w=weights, s=size: self.batch(w, s)
        if self.preset == "baichuan2-7b" and not self.more:  # the other side has this shape
            yield "classic", self.classic
            yield "classic-memory", self.classic_memory
