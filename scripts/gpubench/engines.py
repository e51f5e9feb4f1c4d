# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Shapes, and engines of them with random weights."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

# Layers, hidden, feed-forward, heads, kv heads, head size, vocabulary.
SHAPES = {
    "baichuan2-7b": (32, 4096, 11008, 32, 32, 128, 125696),
    "mistral-7b": (32, 4096, 14336, 32, 8, 128, 32000),
    "tinyllama-1.1b": (22, 2048, 5632, 32, 4, 64, 32000),
    "smollm2-135m": (30, 576, 1536, 9, 3, 64, 49152),
}
WEIGHTS = {
    "bf16": ["--quantize", "none"],
    "int8": ["--quantize", "int8", "--quantize-head", "int8"],
    "int4": ["--quantize", "int4:g128", "--quantize-head", "int8"],
    "int8-all": ["--quantize", "int8", "--quantize-embedding", "int8", "--quantize-head", "int8"],
}


def note(what, start):
    print(f"  {what}: {time.time() - start:.0f} s", file=sys.stderr, flush=True)


class Engines:
    """Engine files of shapes, built when they are asked for first."""

    def __init__(self, program, folder=None):
        self.program = program
        self.own = None if folder else tempfile.TemporaryDirectory(prefix="martlet-engines-", dir=self.roomy())
        self.folder = pathlib.Path(folder or self.own.name)
        self.folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def roomy():
        """A folder in memory where that has room for checkpoint and engines."""
        memory = pathlib.Path("/dev/shm")
        return memory if memory.exists() and shutil.disk_usage(memory).free > 60e9 else None

    def __call__(self, preset, weights):
        engine = self.path(preset, weights)
        if not engine.exists():
            self.build(preset, weights)
        return engine

    def path(self, preset, weights):
        return self.folder / f"{preset}-{weights}.martlet"

    def build(self, preset, weights):
        """Seconds that it takes, the checkpoint being there."""
        checkpoint, start = self.checkpoint(preset), time.time()
        subprocess.run(
            [self.program, "build", checkpoint, "-o", self.path(preset, weights), "--device", "cuda", "--dtype", "bf16",
             "--kv-dtype", "bf16", *WEIGHTS[weights]], check=True, stdout=subprocess.DEVNULL)
        note(f"{weights} engine of {preset}", start)
        return time.time() - start

    def checkpoint(self, preset):
        """A LLaMA checkpoint of the shape with random bf16 weights, in the page cache then."""
        folder = self.folder / f"{preset}-checkpoint"
        if (folder / "config.json").exists():
            return folder
        start = time.time()
        import torch
        from safetensors.torch import save_file
        folder.mkdir(parents=True, exist_ok=True)
        random = lambda *shape: (torch.randn(shape, device="cuda") * 0.02).bfloat16().cpu()
        layers, hidden, inner, heads, kv_heads, head_dim, vocabulary = SHAPES[preset]
        tensors = {"model.embed_tokens.weight": random(vocabulary, hidden),
                   "lm_head.weight": random(vocabulary, hidden), "model.norm.weight": random(hidden)}
        q, kv = heads * head_dim, kv_heads * head_dim
        for layer in range(layers):
            at = f"model.layers.{layer}."
            for name, rows, columns in (
                    ("self_attn.q_proj", q, hidden), ("self_attn.k_proj", kv, hidden),
                    ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, q),
                    ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                    ("mlp.down_proj", hidden, inner)):
                tensors[f"{at}{name}.weight"] = random(rows, columns)
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{at}{name}.weight"] = random(hidden) + 1
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(dict(
            architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden,
            intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=kv_heads, head_dim=head_dim, vocab_size=vocabulary, rms_norm_eps=1e-6,
            max_position_embeddings=16384, torch_dtype="bfloat16", hidden_act="silu", tie_word_embeddings=False)))
        note(f"checkpoint of {preset}", start)
        return folder
