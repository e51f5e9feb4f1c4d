#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Makes Tests/Fixtures/smollm2/teacher-forced.json: transformers' greedy answers of SmolLM2.

Usage: make-smollm2-golden.py SmolLM2-135M-Instruct.Q4_1.gguf
Needs torch, transformers and gguf. The weights are dequantized to f32; token ids, and at each
position the gap between the two largest logits, are all that is kept.
"""
import json, os, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "The capital of France is", "Once upon a time, there was a", "def fibonacci(n):\n",
    "Water boils at", "The three primary colors are", "In 1969, Neil Armstrong",
    "To make bread you need", "Photosynthesis is the process", "Dear Sir or Madam,\n",
    "List of prime numbers: 2, 3, 5,",
]

path = os.path.abspath(sys.argv[1])
folder, name = os.path.split(path)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
model.eval()
cases = []
for prompt in PROMPTS:
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    length = ids.shape[1]
    with torch.no_grad():
        for _ in range(64):
            logits = model(ids).logits[0, -1]
            ids = torch.cat([ids, logits.argmax().view(1, 1)], dim=1)
        rows = model(ids).logits[0]
    top = rows.topk(2).values
    cases.append({
        "prompt": prompt, "ids": ids[0].tolist(), "promptCount": length,
        "argmax": rows.argmax(-1).tolist(),
        "gaps": [round(float(g), 5) for g in (top[:, 0] - top[:, 1])],
    })
out = os.path.join(os.path.dirname(__file__), "..", "Tests", "Fixtures", "smollm2")
os.makedirs(out, exist_ok=True)
with open(os.path.join(out, "teacher-forced.json"), "w") as f:
    json.dump(cases, f, separators=(",", ":"))
print(len(cases), "cases")
