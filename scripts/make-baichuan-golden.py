#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Makes tiny Baichuan models and the values that they must give.

Transformers never had Baichuan, so there are two other oracles:
  - `logits` below, a reference in torch written from the technical report (arXiv 2309.10305) and the
    published description of ALiBi (arXiv 2108.12409), for models in Hugging Face's layout;
  - llama.cpp's architecture `baichuan`, for GGUF files. It knows 7B and 13B by their 32 and 40 layers,
    so these models have as many. `scripts/llama-logits.cpp` prints its logits, and the reference must
    agree with them.

Needs what make-golden.py needs, and llama-logits built as its first lines say.

Usage: scripts/make-baichuan-golden.py LLAMA_LOGITS [OUTPUT_FOLDER]
"""

import importlib
import json
import math
import pathlib
import shutil
import subprocess
import sys

import gguf
import numpy
import torch
from safetensors.numpy import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
common = importlib.import_module("make-golden")

HEAD_DIM, CONTEXT, THETA, EPSILON = 8, 256, 10000.0, 1e-6

# Five and three heads: slopes of a count that is no power of two. Layers by container: see above.
MODELS = {
    "baichuan-7b": dict(heads=4, store="bin", seed=11),
    "baichuan-13b": dict(heads=5, alibi=True, store="safetensors", seed=12),
    "baichuan2-7b": dict(heads=4, norm_head=True, store="bin-shards", seed=13),
    "baichuan2-13b": dict(heads=5, alibi=True, norm_head=True, store="bin", seed=14),
    "baichuan-7b-gguf": dict(heads=3, layers=32, seed=15),
    "baichuan-13b-gguf": dict(heads=3, layers=40, alibi=True, seed=16),
}


class Model:
    def __init__(self, heads, seed, layers=2, alibi=False, norm_head=False, store=None):
        self.heads, self.layers, self.alibi, self.norm_head = heads, layers, alibi, norm_head
        self.hidden, self.vocabulary, self.store = heads * HEAD_DIM, 64, store
        self.intermediate = 32 if layers > 2 else 56
        generator = torch.Generator().manual_seed(seed)
        # Deep models add up more, and random ones magnify roundings.
        spread = 0.5 if layers > 2 else 1.5

        def matrix(rows, columns):
            return spread * torch.randn(rows, columns, generator=generator) / math.sqrt(columns)

        def norm():
            return 1 + 0.2 * torch.randn(self.hidden, generator=generator)

        state = {"model.embed_tokens.weight": torch.randn(64, self.hidden, generator=generator) / 2}
        for layer in range(layers):
            prefix = f"model.layers.{layer}."
            state[prefix + "self_attn.W_pack.weight"] = matrix(3 * self.hidden, self.hidden)
            state[prefix + "self_attn.o_proj.weight"] = matrix(self.hidden, self.hidden)
            state[prefix + "mlp.gate_proj.weight"] = matrix(self.intermediate, self.hidden)
            state[prefix + "mlp.up_proj.weight"] = matrix(self.intermediate, self.hidden)
            state[prefix + "mlp.down_proj.weight"] = matrix(self.hidden, self.intermediate)
            state[prefix + "input_layernorm.weight"] = norm()
            state[prefix + "post_attention_layernorm.weight"] = norm()
        state["model.norm.weight"] = norm()
        # Rows of unlike lengths, so that normalizing shows.
        lengths = 1 + torch.rand(64, 1, generator=generator)
        state["lm_head.weight"] = 2 * lengths * matrix(64, self.hidden)
        self.state = state

    def config(self):
        """Keys of the published files, and the two that tell the kinds of such sizes apart."""
        config = {
            "architectures": ["BaichuanForCausalLM" if self.norm_head else "BaiChuanForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "model_max_length": CONTEXT,
            "model_type": "baichuan",
            "norm_head": self.norm_head,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "pad_token_id": 0,
            "position_embedding_type": "alibi" if self.alibi else "rope",
            "rms_norm_eps": EPSILON,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "vocab_size": self.vocabulary,
            "z_loss_weight": 0,
        }
        if not self.alibi:
            config["max_position_embeddings"] = CONTEXT
        return config


def slopes(heads):
    """Powers of 2^(-8/n) for the largest power of two n; further heads interleave those of 2n."""

    def powers(count):
        return [2 ** (-8 * (index + 1) / count) for index in range(count)]

    largest = 2 ** int(math.log2(heads))
    return powers(largest) + powers(2 * largest)[0::2][: heads - largest]


def rotated(x):
    """x [heads, T, D]: halves of a head are pairs, turned by position times frequency."""
    frequencies = THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
    cosine, sine = angles.cos().float(), angles.sin().float()
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)


def logits(model, tokens):
    """All rows' logits [T, V] of a sequence, without a cache."""
    state, count = model.state, len(tokens)

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * state[name + ".weight"]

    x = state["model.embed_tokens.weight"][torch.tensor(tokens)]
    bias = torch.full((count, count), float("-inf")).triu(1)
    if model.alibi:
        distance = torch.arange(count)[None, :] - torch.arange(count)[:, None]
        bias = bias + torch.tensor(slopes(model.heads))[:, None, None] * distance
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}."
        packed = norm(x, prefix + "input_layernorm") @ state[prefix + "self_attn.W_pack.weight"].T
        q, k, v = (
            part.reshape(count, model.heads, HEAD_DIM).transpose(0, 1) for part in packed.chunk(3, -1)
        )
        if not model.alibi:
            q, k = rotated(q), rotated(k)
        weights = (q @ k.transpose(1, 2) / math.sqrt(HEAD_DIM) + bias).softmax(-1)
        context = (weights @ v).transpose(0, 1).reshape(count, model.hidden)
        x = x + context @ state[prefix + "self_attn.o_proj.weight"].T
        h = norm(x, prefix + "post_attention_layernorm")
        gate = torch.nn.functional.silu(h @ state[prefix + "mlp.gate_proj.weight"].T)
        h = gate * (h @ state[prefix + "mlp.up_proj.weight"].T)
        x = x + h @ state[prefix + "mlp.down_proj.weight"].T
    head = state["lm_head.weight"]
    if model.norm_head:
        head = torch.nn.functional.normalize(head)
    return norm(x, "model.norm") @ head.T


def llama_logits(program, path, tokens):
    """All rows' logits of llama.cpp: the first 40 in one batch, the others one at a time."""
    prompt, rest = tokens[: common.LONG], tokens[common.LONG :]
    words = [",".join(map(str, part)) for part in (prompt, rest)]
    output = subprocess.run(
        [program, path, *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout
    return torch.from_numpy(numpy.frombuffer(output, numpy.float32).reshape(len(tokens), -1).copy())


def write_gguf(path, model):
    writer = gguf.GGUFWriter(path, "baichuan")
    writer.add_name("tiny random model")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(model.hidden)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.intermediate)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.heads)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(model.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    names = {
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    state = {name: value.numpy() for name, value in model.state.items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    for layer in range(model.layers):
        packed = numpy.split(state[f"model.layers.{layer}.self_attn.W_pack.weight"], 3)
        for name, value in zip("qkv", packed):
            if name != "v":
                value = common.interleaved(value, model.heads)
            writer.add_tensor(f"blk.{layer}.attn_{name}.weight", numpy.ascontiguousarray(value))
        for source, target in names.items():
            writer.add_tensor(
                f"blk.{layer}.{target}.weight", state[f"model.layers.{layer}.{source}.weight"]
            )
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    writer.add_tensor("output.weight", state["lm_head.weight"])
    common.finish(writer)


def make_model(folder, program, **options):
    model = Model(**options)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1000 + options["seed"])

    def ids(count):
        return torch.randint(3, model.vocabulary, (count,), generator=generator).tolist()

    long, short, forced = ids(common.LONG), ids(common.SHORT), ids(common.DECODED)
    rows, short_rows = logits(model, long + forced), logits(model, short)
    if model.store:
        (folder / "config.json").write_text(json.dumps(model.config(), indent=2) + "\n")
        state = {name: value.numpy() for name, value in model.state.items()}
        if model.store == "bin":
            torch.save(model.state, folder / "pytorch_model.bin")
        else:
            common.save_weights(folder, state, model.store)
    else:
        write_gguf(folder / "model.gguf", model)
        reference, short_reference = rows, short_rows
        rows = llama_logits(program, folder / "model.gguf", long + forced)
        short_rows = llama_logits(program, folder / "model.gguf", short)
        gap = max(
            float((rows - reference).abs().max()), float((short_rows - short_reference).abs().max())
        )
        print(f"  llama.cpp and the reference differ by at most {gap:.1e}")
        assert gap < 1e-4
    print(f"  largest logit {float(rows.abs().max()):.2f}, spread {float(rows.std()):.2f}")
    save_file(
        {
            "long.input_ids": numpy.array(long, numpy.int32),
            "long.logits": rows[: common.LONG].numpy().copy(),
            "short.input_ids": numpy.array(short, numpy.int32),
            "short.logits": short_rows.numpy().copy(),
            "forced.ids": numpy.array(forced, numpy.int32),
            "forced.logits": rows[common.LONG :].numpy().copy(),
        },
        folder / "golden.safetensors",
    )


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "Tests" / "Fixtures"
    root = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default
    torch.set_num_threads(1)
    for name, options in MODELS.items():
        print(name)
        shutil.rmtree(root / name, ignore_errors=True)
        make_model(root / name, sys.argv[1], **options)


if __name__ == "__main__":
    main()
