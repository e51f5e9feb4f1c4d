#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""The classic comparison: Martlet int8 against Hugging Face transformers bf16, on this machine's GPU, in one run.

usage: scripts/compare-transformers.py [--program MARTLET] [--engine FILE] [--runs N] [--compile-seconds S]
    [--results FILE.json] [--chart FILE.svg]

Shape of baichuan2-7b with random weights on both sides; batch 1, 32 and 128 tokens in, 50 out, greedy. transformers
has no Baichuan: its LLaMA of the same sizes does the same work. Latency: median of the runs, of one generation from
ids to ids. Memory: what the GPU has in use during the runs less what it has in use before, with keys and values
for 256 tokens. Without --engine, an int8 engine of that shape with int8 embedding and head, one is made in memory.
"compiled" is transformers with a static cache and torch.compile, tried last: left out where it takes more than S
seconds (default 240; 0: it is not tried) or fails. Figures are kept in FILE.json; where it exists they are read instead
of measured, as for another chart.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import threading
import time

CASES = ((32, 50), (128, 50))
CHILD = r"""
import json, sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
runs, compiled, cases = int(sys.argv[1]), sys.argv[2] == "1", json.loads(sys.argv[3])
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"):
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        vocab_size=125696, max_position_embeddings=4096)).eval()
torch.cuda.empty_cache()
options = dict(do_sample=False, pad_token_id=0, eos_token_id=None)
if compiled:
    # A step that has such a cache is compiled by `generate` itself.
    assert hasattr(model, "get_compiled_call"), "this transformers compiles nothing by itself"
    options["cache_implementation"] = "static"
result = []
for given, wanted in cases:
    ids = torch.randint(0, 100, (1, given), device="cuda")
    times = []
    for i in range(runs + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=wanted, max_new_tokens=wanted, **options)
        torch.cuda.synchronize()
        if i >= 2:
            times.append(time.perf_counter() - start)
        assert out.shape[1] == given + wanted
    result.append(sorted(times)[len(times) // 2])
print(json.dumps(result), flush=True)
"""


def used_bytes():
    text = subprocess.check_output(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"], text=True)
    return int(text.split()[0]) << 20


class Watch(threading.Thread):
    """The most memory in use on the GPU while a process runs."""

    def __init__(self):
        super().__init__(daemon=True)
        self.idle, self.most, self.ended = used_bytes(), 0, False
        self.start()

    def run(self):
        while not self.ended:
            self.most = max(self.most, used_bytes())
            time.sleep(0.05)

    def finish(self):
        self.ended = True
        self.join()
        return self.most - self.idle


def watched(command, seconds=None):
    """What a program prints, and the most memory in use meanwhile."""
    watch = Watch()
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no end within {seconds:.0f} s") from None
    finally:
        memory = watch.finish()
    if result.returncode:
        raise RuntimeError(result.stderr.strip()[-800:])
    return result.stdout, memory


def transformers(runs, compiled=False, seconds=None):
    out, memory = watched(
        [sys.executable, "-c", CHILD, str(runs), "1" if compiled else "0", json.dumps(CASES)], seconds)
    return json.loads(out.splitlines()[-1]), memory


def martlet(program, engine, runs):
    model = [engine, "--device", "cuda"] if engine else [
        "--preset", "baichuan2-7b", "--device", "cuda", "--dtype", "bf16", "--kv-dtype", "bf16",
        "--quantize", "int8", "--quantize-embedding", "int8", "--quantize-head", "int8"]
    out, memory = watched(
        [program, "bench", *model, "--batch-size", "1", "--input-output-len", ";".join(f"{a},{b}" for a, b in CASES),
         "--max-context", "256", "--max-batch-size", "1", "--max-num-tokens", "128", "--num-runs", str(runs), "--output", "json"])
    return [row["latency ms"] / 1e3 for row in json.loads(out)], memory


def measure(options, keep):
    """Of each program its name, seconds of each case, and bytes in use at most; `keep` gets what is there before the
    last is tried."""
    first = ("transformers bf16", *transformers(options.runs))
    last = ("Martlet int8", *martlet(options.program, options.engine, options.runs))
    name, seconds = "transformers bf16, compiled", options.compile_seconds
    found = dict(rows=[first, last], left_out=f"{name}: not tried")
    if seconds:
        keep(found)
        try:
            found = dict(rows=[first, (name, *transformers(options.runs, True, seconds)), last], left_out="")
        except RuntimeError as problem:
            found["left_out"] = f"{name}: {str(problem).splitlines()[-1]}"
    return found


def table(rows):
    (_, theirs, their_memory), *_ = rows
    heads = [f"{a} in, {b} out: ms" for a, b in CASES]
    print("| | " + " | ".join(f"{head} | less" for head in heads) + " | peak GB | less |")
    print("|---" * (2 * len(CASES) + 3) + "|")
    for name, latency, memory in rows:
        cells = []
        for seconds, before in zip(latency, theirs):
            cells += [f"{seconds * 1e3:.1f}", f"{100 * (1 - seconds / before):.1f} %"]
        print(f"| {name} | {' | '.join(cells)} | {memory / 1e9:.2f} | {100 * (1 - memory / their_memory):.1f} % |")


def chart(rows):
    """SVG: for each figure a bar a program, as long as its share of the longest; percentages are of the first."""
    colors, width, left, right, bar, gap = ("#8a93a6", "#b9c0cc", "#e4572e"), 760, 210, 150, 22, 30
    figures = [(f"{a} tokens in, {b} out, ms", [latency[i] * 1e3 for _, latency, _ in rows], "{:,.1f}")
               for i, (a, b) in enumerate(CASES)] + [("peak memory, GB", [memory / 1e9 for *_, memory in rows], "{:.2f}")]
    parts, y = [], 20
    for title, values, form in figures:
        parts.append(f'<text x="12" y="{y + 16}" font-weight="600">{title}</text>')
        y += 28
        for (name, *_), value, color in zip(rows, values, colors if len(rows) > 2 else colors[::2]):
            length = (width - left - right) * value / max(values)
            less = "" if value == values[0] else f" ({100 * (value / values[0] - 1):+.1f} %)"
            parts += [f'<text x="{left - 10}" y="{y + 16}" text-anchor="end">{name}</text>',
                      f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" rx="3" fill="{color}"/>',
                      f'<text x="{left + length + 8:.1f}" y="{y + 16}">{form.format(value)}{less}</text>']
            y += bar + 6
        y += gap - 6
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" font-family="sans-serif" font-size="14" '
            f'fill="#24292f">\n<rect width="{width}" height="{y}" fill="#ffffff"/>\n{body}\n</svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--program", default=str(root / ".build/release/martlet"))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--engine", help="int8 engine of the shape, instead of one made in memory")
    parser.add_argument("--compile-seconds", type=float, default=240, help="most time of transformers with torch.compile")
    parser.add_argument("--results", type=pathlib.Path, help="figures, read where they are there")
    parser.add_argument("--chart", type=pathlib.Path, help="SVG of the table")
    options = parser.parse_args()

    def keep(found):
        if options.results:
            options.results.write_text(json.dumps(found))
        if options.chart:
            options.chart.write_text(chart(found["rows"]))

    try:
        is_known = options.results and options.results.exists()
        found = json.loads(options.results.read_text()) if is_known else measure(options, keep)
    except RuntimeError as problem:
        sys.exit(str(problem))
    keep(found)
    table(found["rows"])
    if found["left_out"]:
        print(f"\nLeft out: {found['left_out']}")


if __name__ == "__main__":
    main()
