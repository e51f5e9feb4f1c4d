#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Perplexity of a GGUF model in torch, f32, with Martlet's int4 g64 codes in its linears or without.

Usage: torch-perplexity.py MODEL.gguf TEXT [--chunks N] [--scheme none|int4:g64]
Needs torch, transformers and gguf. Compare with
  martlet eval MODEL --perplexity TEXT --chunks N --activations exact [--quantize int4:g64]
Chunks of 512 tokens, predictions of each second half, as llama-perplexity does. The codes are
computed here again, from their definition in SymmetricCodec.swift, not read from an engine.
"""
import argparse, math, os
import numpy, torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def half(x):
    return x.astype(numpy.float16).astype(numpy.float32)


def int4(weights, group=64):
    """The weights as their symmetric 4-bit codes say, rows of K inputs in groups."""
    x = weights.reshape(-1, group).astype(numpy.float32)
    extreme = numpy.take_along_axis(x, numpy.abs(x).argmax(1)[:, None], 1)[:, 0]
    best, best_error = half(extreme / numpy.float32(-8)), numpy.full(len(x), numpy.inf, numpy.float32)

    def codes(scale):
        with numpy.errstate(divide="ignore"):
            inverse = numpy.where(scale == 0, 0, numpy.float32(1) / scale).astype(numpy.float32)
        return numpy.clip(numpy.rint(x * inverse[:, None]), -8, 7).astype(numpy.float32)

    for step in range(9):
        scale = half(extreme / numpy.float32(-8 - 0.25 * (step - 4)))
        difference = codes(scale) * scale[:, None] - x
        error = numpy.zeros(len(x), numpy.float32)
        for column in range(group):
            error += difference[:, column] * difference[:, column]
        better = (error < best_error) & (scale != 0)
        best, best_error = numpy.where(better, scale, best), numpy.where(better, error, best_error)
    return (codes(best) * best[:, None]).reshape(weights.shape)


parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("text")
parser.add_argument("--chunks", type=int, default=8)
parser.add_argument("--scheme", choices=["none", "int4:g64"], default="none")
arguments = parser.parse_args()
folder, name = os.path.split(os.path.abspath(arguments.model))
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
if arguments.scheme != "none":
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and path != "lm_head":
            module.weight.data = torch.from_numpy(int4(module.weight.data.numpy()))
ids = tokenizer(open(arguments.text, encoding="utf-8").read(), add_special_tokens=False).input_ids
total, count = 0.0, 0
for chunk in range(arguments.chunks):
    part = torch.tensor([ids[chunk * 512:(chunk + 1) * 512]])
    with torch.no_grad():
        logits = model(part).logits[0, 256:511]
    losses = torch.nn.functional.cross_entropy(logits.double(), part[0, 257:512], reduction="sum")
    total, count = total + losses.item(), count + 255
    print(f"\r{chunk + 1} {math.exp(total / count):.4f}", end="", flush=True)
print(f"\nperplexity {math.exp(total / count):.4f}, {arguments.chunks} chunks, {count} tokens")
