#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""The classic comparison: Martlet int8 against Hugging Face transformers bf16, on this machine's GPU, in one run.

usage: scripts/compare-transformers.py [--program MARTLET] [--runs N] [--compile]

Shape of baichuan2-7b with random weights on both sides; batch 1, 32 and 128 tokens in, 50 out, greedy. transformers
has no Baichuan: its LLaMA of the same sizes does the same work. Latency: median of the runs, of one generation from
ids to ids. Memory: what the GPU has in use during the runs less what it has in use before, with keys and values
for 256 tokens. --compile adds transformers with a static cache and torch.compile.
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
    model.generation_config.cache_implementation = "static"
    model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
print("ready", flush=True)
result = {}
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
    result[f"{given},{wanted}"] = sorted(times)[len(times) // 2]
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


def transformers(runs, compiled):
    watch = Watch()
    out = subprocess.run(
        [sys.executable, "-c", CHILD, str(runs), "1" if compiled else "0", json.dumps(CASES)],
        stdout=subprocess.PIPE, text=True, check=True).stdout
    memory = watch.finish()
    return {tuple(map(int, k.split(","))): v for k, v in json.loads(out.splitlines()[-1]).items()}, memory


def martlet(program, runs):
    watch = Watch()
    out = subprocess.run(
        [program, "bench", "--preset", "baichuan2-7b", "--device", "cuda", "--dtype", "bf16", "--kv-dtype", "bf16",
         "--quantize", "int8", "--quantize-embedding", "int8", "--quantize-head", "int8", "--batch-size", "1",
         "--input-output-len", ";".join(f"{a},{b}" for a, b in CASES), "--max-context", "256", "--max-batch-size", "1",
         "--max-num-tokens", "128", "--num-runs", str(runs), "--output", "json"],
        stdout=subprocess.PIPE, text=True, check=True).stdout
    memory = watch.finish()
    return {(r["in"], r["out"]): r["latency ms"] / 1e3 for r in json.loads(out)}, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--program", default=str(root / ".build/release/martlet"))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    theirs, their_memory = transformers(options.runs, False)
    rows = [("transformers bf16", theirs, their_memory)]
    if options.compile:
        rows.append(("transformers bf16, static cache, torch.compile", *transformers(options.runs, True)))
    rows.append(("Martlet int8", *martlet(options.program, options.runs)))
    heads = [f"{a} in, {b} out: ms" for a, b in CASES]
    print("| | " + " | ".join(f"{head} | less" for head in heads) + " | peak GB | less |")
    print("|---" * (2 * len(CASES) + 3) + "|")
    for name, latency, memory in rows:
        cells = []
        for case in CASES:
            cells += [f"{latency[case] * 1e3:.1f}", f"{100 * (1 - latency[case] / theirs[case]):.1f} %"]
        print(f"| {name} | {' | '.join(cells)} | {memory / 1e9:.2f} | {100 * (1 - memory / their_memory):.1f} % |")


if __name__ == "__main__":
    main()
