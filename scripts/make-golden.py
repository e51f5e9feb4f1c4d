#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Makes the tiny models and expected values that the tests compare with.

Needs torch, transformers, safetensors, gguf and numpy. Run by developers only; the results are
committed under Tests/Fixtures. The same versions give the same bytes: all numbers come from
seeded generators.

Usage: scripts/make-golden.py [OUTPUT_FOLDER]

For each tiny LLaMA:
  model.safetensors, config.json   the Hugging Face form, f32
  model.gguf                       the same weights as llama.cpp's converter would write them
  golden.safetensors               expected values, see `golden`
For stored quantization:
  gguf-quants/quants.gguf          one tensor of each block type
  gguf-quants/expected.safetensors what each decodes to, f32
"""

import json
import math
import pathlib
import shutil
import sys

import gguf
import numpy
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY, HEADS, HEAD_DIM = 64, 160, 2, 256, 4, 16
LONG, SHORT, DECODED = 40, 5, 8

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Small, so that the eight frequencies of a head lie below, inside and above the smooth band.
    "original_max_position_embeddings": 64,
}

MODELS = {
    "llama-mha": dict(kv_heads=4, tied=False, theta=10000.0, scaling=None, seed=1),
    "llama-gqa": dict(kv_heads=2, tied=False, theta=10000.0, scaling=LLAMA3, seed=2),
    "llama-mqa": dict(kv_heads=1, tied=True, theta=500000.0, scaling=None, seed=3),
}


def configuration(kv_heads, tied, theta, scaling, seed):
    """config.json with the keys that published checkpoints have."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-05,
        "rope_scaling": scaling,
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "vocab_size": VOCABULARY,
    }
    return config


def random_weights(model, seed):
    """Weights wide enough that a wrong scale, order or sign shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.2 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(1.5 * noise / math.sqrt(parameter.shape[1]))


def golden(model, seed):
    """Expected values.

    long.input_ids [P], long.logits [P, V]: a whole prompt.
    short.input_ids, short.logits: another prompt, for batches of unlike lengths.
    greedy.ids [D], greedy.logits [D, V]: row i chose ids[i], continuing the long prompt.
    forced.ids [D], forced.logits [D, V]: row i follows the long prompt and ids[0 ... i].
    """
    generator = torch.Generator().manual_seed(1000 + seed)

    def ids(count):
        return torch.randint(3, VOCABULARY, (1, count), generator=generator)

    def full(tokens):
        return model(tokens, use_cache=False).logits[0]

    def decode(tokens, choose):
        output = model(tokens, use_cache=True)
        chosen, rows = [], []
        for step in range(DECODED):
            chosen.append(choose(step, output.logits[0, -1]))
            rows.append(output.logits[0, -1])
            output = model(
                torch.tensor([[chosen[-1]]]), past_key_values=output.past_key_values, use_cache=True
            )
            rows.append(output.logits[0, -1])
        return chosen, rows

    with torch.no_grad():
        long, short, forced = ids(LONG), ids(SHORT), ids(DECODED)
        greedy_ids, greedy_rows = decode(long, lambda _, row: int(row.argmax()))
        forced_ids, forced_rows = decode(long, lambda step, _: int(forced[0, step]))
        result = {
            "long.input_ids": long[0],
            "long.logits": full(long),
            "short.input_ids": short[0],
            "short.logits": full(short),
            "greedy.ids": torch.tensor(greedy_ids),
            "greedy.logits": torch.stack(greedy_rows[0::2]),
            "forced.ids": torch.tensor(forced_ids),
            "forced.logits": torch.stack(forced_rows[1::2]),
        }
        # Decoding with a cache must agree with one pass over everything.
        whole = full(torch.cat([long, forced], dim=1))[LONG:]
        assert torch.allclose(whole, result["forced.logits"], atol=2e-5), "cache and full pass differ"
        gap = result["greedy.logits"].topk(2).values
        print(f"  smallest greedy gap {float((gap[:, 0] - gap[:, 1]).min()):.4f},"
              f" largest logit {float(result['long.logits'].abs().max()):.2f}")
    return {
        name: value.to(torch.int32 if value.dtype == torch.int64 else torch.float32).numpy()
        for name, value in result.items()
    }


def interleaved(rows, heads):
    """The order of query and key rows in GGUF: the halves of each head become pairs."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def frequency_factors(theta, scaling):
    """Divisor of each rotary frequency under LLaMA 3's scaling."""
    factors = []
    low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
    high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
    for index in range(0, HEAD_DIM, 2):
        wavelength = 2 * math.pi * theta ** (index / HEAD_DIM)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(scaling["factor"])
        else:
            smooth = scaling["original_max_position_embeddings"] / wavelength
            smooth = (smooth - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return numpy.array(factors, dtype=numpy.float32)


def write_gguf(path, state, kv_heads, tied, theta, scaling, **_):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny random model")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if scaling:
        writer.add_tensor("rope_freqs.weight", frequency_factors(theta, scaling))
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    for layer in range(LAYERS):
        for source, target in names.items():
            value = state[f"model.layers.{layer}.{source}.weight"]
            if target == "attn_q":
                value = interleaved(value, HEADS)
            if target == "attn_k":
                value = interleaved(value, kv_heads)
            writer.add_tensor(f"blk.{layer}.{target}.weight", numpy.ascontiguousarray(value))
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    if not tied:
        writer.add_tensor("output.weight", state["lm_head.weight"])
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_model(folder, seed, **options):
    config = configuration(seed=seed, **options)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).to(torch.float32).eval()
    model.config._attn_implementation = "eager"
    random_weights(model, seed)
    state = {
        name: value.detach().numpy()
        for name, value in model.state_dict().items()
        if not (options["tied"] and name == "lm_head.weight")
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_gguf(folder / "model.gguf", state, **options)
    save_file(golden(model, seed), folder / "golden.safetensors")
    # What was written must be what was measured: config.json and weights through the usual loader.
    again = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.arange(3, 3 + LONG)[None]
    with torch.no_grad():
        assert torch.allclose(again(tokens).logits, model(tokens).logits, atol=1e-5), folder


def make_quants(folder):
    """One small tensor per block type, with what it decodes to."""
    folder.mkdir(parents=True)
    generator = numpy.random.default_rng(7)
    values = generator.standard_normal((3, 96)).astype(numpy.float32)
    values[1, :32] = 0
    writer = gguf.GGUFWriter(folder / "quants.gguf", "llama")
    writer.add_array("test.numbers", [1, 2, 3])
    writer.add_array("test.texts", ["a", "b\u00e9"])
    expected = {"values": values}
    types = gguf.GGMLQuantizationType
    for type in (types.Q4_0, types.Q4_1, types.Q8_0, types.F16, types.BF16, types.F32):
        data = gguf.quants.quantize(values, type)
        name = type.name.lower()
        writer.add_tensor(name, data, raw_dtype=type)
        expected[name] = gguf.quants.dequantize(data, type).astype(numpy.float32)
    finish(writer)
    save_file(expected, folder / "expected.safetensors")


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "Tests" / "Fixtures"
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    torch.set_num_threads(1)
    for name, options in MODELS.items():
        print(name)
        shutil.rmtree(root / name, ignore_errors=True)
        make_model(root / name, **options)
    shutil.rmtree(root / "gguf-quants", ignore_errors=True)
    make_quants(root / "gguf-quants")


if __name__ == "__main__":
    main()
