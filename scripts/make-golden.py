#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Makes the tiny models and expected values that the tests compare with.

Needs torch, transformers, safetensors, gguf and numpy. Run by developers only; the results are
committed under Tests/Fixtures. The same versions give the same bytes: all numbers come from
seeded generators.

Usage: scripts/make-golden.py [OUTPUT_FOLDER]

For each tiny LLaMA, Mistral and Qwen2:
  config.json and weights          the Hugging Face form, f32: model.safetensors, or two shards of
                                   safetensors or of PyTorch's .bin with their index
  model.gguf                       the same weights as llama.cpp's converter would write them, where
                                   llama.cpp knows what the model does (windows of these it does not)
  golden.safetensors               expected values, see `golden`
For stored quantization:
  gguf-quants/quants.gguf          one tensor of each block type
  gguf-quants/expected.safetensors what each decodes to, f32
For PyTorch's container:
  pytorch/odd.bin, protocol4.bin   every dtype that is read, views of other views, a scalar, nothing
  pytorch/expected.safetensors     their values, f32
  pytorch/*.bin of other names     what must be refused
For rotary positions:
  rotary.json                      configurations and the frequencies that transformers makes of them
"""

import collections
import json
import math
import pathlib
import shutil
import sys

import gguf
import numpy
import torch
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

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
    "mistral": dict(family="mistral", kv_heads=2, theta=1e6, seed=4),
    "mistral-window": dict(family="mistral", window=16, kv_heads=2, seed=5, store="safetensors-shards"),
    "qwen2": dict(family="qwen2", kv_heads=2, tied=True, theta=1e6, seed=6),
    "qwen2-window": dict(family="qwen2", window=16, kv_heads=4, seed=7, store="bin-shards"),
}


def configuration(
    seed, kv_heads, family="llama", tied=False, theta=10000.0, scaling=None, window=None, store=None
):
    """config.json with the keys that published checkpoints have."""
    if family != "llama":
        return later_configuration(family, kv_heads, tied, theta, window)
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


def later_configuration(family, kv_heads, tied, theta, window):
    """The same for Mistral and Qwen2, which have other keys; layer 1 slides in Qwen2."""
    config = {
        "architectures": [{"mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}[family]],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
        "model_type": family,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-05 if family == "mistral" else 1e-06,
        "rope_theta": theta,
        "sliding_window": window,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": 96,
    }
    if family == "qwen2":
        config["sliding_window"] = window or 512
        config["use_sliding_window"] = window is not None
        config["max_window_layers"] = 1
    return config


def random_weights(model, seed):
    """Weights wide enough that a wrong scale, order or sign shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if name.endswith(".bias"):
                parameter.copy_(0.3 * noise)
            elif parameter.ndim == 1:
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
        return torch.randint(3, model.config.vocab_size, (1, count), generator=generator)

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


def write_gguf(path, state, config, scaling=None):
    """Mistral's files are named `llama` and have no window; Qwen2's keep the order of rows."""
    family, kv_heads = config["model_type"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "qwen2" if family == "qwen2" else "llama")
    writer.add_name("tiny random model")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if scaling:
        writer.add_tensor("rope_freqs.weight", frequency_factors(config["rope_theta"], scaling))
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
            if target == "attn_q" and family != "qwen2":
                value = interleaved(value, HEADS)
            if target == "attn_k" and family != "qwen2":
                value = interleaved(value, kv_heads)
            writer.add_tensor(f"blk.{layer}.{target}.weight", numpy.ascontiguousarray(value))
            bias = state.get(f"model.layers.{layer}.{source}.bias")
            if bias is not None:
                writer.add_tensor(f"blk.{layer}.{target}.bias", bias)
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    if not config["tie_word_embeddings"]:
        writer.add_tensor("output.weight", state["lm_head.weight"])
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def shards(folder, state, suffix, save):
    """Two files and an index, as save_pretrained cuts large models."""
    names = sorted(state)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    stem = "pytorch_model" if suffix == "bin" else "model"
    places = {}
    for number, half in enumerate(halves, 1):
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        save({name: state[name] for name in half}, folder / file)
        places |= {name: file for name in half}
    index = {
        "metadata": {"total_size": sum(value.nbytes for value in state.values())},
        "weight_map": dict(sorted(places.items())),
    }
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=2) + "\n")


def save_weights(folder, state, store):
    def safetensors(tensors, path):
        save_file(tensors, path, metadata={"format": "pt"})

    def pytorch(tensors, path):
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)

    if store == "safetensors-shards":
        shards(folder, state, "safetensors", safetensors)
    elif store == "bin-shards":
        shards(folder, state, "bin", pytorch)
    else:
        safetensors(state, folder / "model.safetensors")


def make_model(folder, seed, **options):
    config = configuration(seed=seed, **options)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    settings = AutoConfig.from_pretrained(folder)
    settings._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(settings).to(torch.float32).eval()
    random_weights(model, seed)
    state = {
        name: value.detach().numpy()
        for name, value in model.state_dict().items()
        if not (config["tie_word_embeddings"] and name == "lm_head.weight")
    }
    save_weights(folder, state, options.get("store"))
    if not options.get("window"):
        write_gguf(folder / "model.gguf", state, config, options.get("scaling"))
    save_file(golden(model, seed), folder / "golden.safetensors")
    # What was written must be what was measured: config.json and weights through the usual loader.
    again = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
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


def make_pytorch(folder):
    """Checkpoints that are odd, and some that are none."""
    folder.mkdir(parents=True)
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = collections.OrderedDict(
        plain=base,
        transposed=base.T,
        part=base[1:3, 2:5],
        stepped=base[::2, ::3],
        column=base[:, 4],
        scalar=torch.tensor(2.5),
        empty=torch.empty(0, 3),
        flag=torch.tensor([True, False, True]),
    )
    for dtype in "float64 float16 bfloat16 int64 int32 int16 int8 uint8".split():
        tensors[dtype] = torch.tensor([0, 1, 2.5, 100]).to(getattr(torch, dtype))
    tensors["int8"][0] = -128
    tensors["int64"][0] = -(2**40)
    expected = {name: value.to(torch.float32).contiguous().numpy() for name, value in tensors.items()}
    tensors._metadata = collections.OrderedDict({"": {"version": 1}})
    tensors["note"] = "not a tensor"
    tensors["numbers"] = [1, 2.0, None, (3, 4)]
    torch.save(tensors, folder / "odd.bin")
    torch.save(tensors, folder / "protocol4.bin", pickle_protocol=4)
    save_file(expected, folder / "expected.safetensors")
    torch.save(tensors, folder / "old.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), folder / "module.bin")
    torch.save({"state_dict": {"a": base}}, folder / "nested.bin")
    torch.save({"a": base[0].expand(1000, 6)}, folder / "expanded.bin")
    torch.save({"a": base.to(torch.float8_e4m3fn)}, folder / "float8.bin")
    torch.save({"a": torch.view_as_complex(base.reshape(12, 2))}, folder / "complex.bin")


def make_rotary(path):
    """Frequencies of each kind, in the old and the new form of the keys."""
    llama3 = dict(LLAMA3, original_max_position_embeddings=8192)
    cases = [
        dict(head_dim=128, rope_theta=10000.0),
        dict(head_dim=64, rope_theta=1000000.0, rope_scaling=None),
        dict(head_dim=16, rope_theta=500000.0, rope_scaling={"type": "linear", "factor": 4.0}),
        dict(head_dim=16, rope_theta=10000.0, rope_scaling={"rope_type": "default"}),
        dict(head_dim=128, rope_theta=500000.0, rope_scaling=llama3),
        dict(head_dim=64, rope_theta=500000.0, rope_scaling=dict(llama3, factor=32.0)),
        dict(head_dim=64, rope_parameters={"rope_type": "default", "rope_theta": 250000.0}),
        dict(head_dim=32, rope_parameters=dict(llama3, rope_theta=130000.0)),
        # A base in several places: the innermost counts.
        dict(head_dim=32, rope_scaling={"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}),
        dict(head_dim=32, rope_theta=500.0, rope_parameters={"rope_type": "default", "rope_theta": 20000.0}),
        dict(head_dim=32, rope_theta=500.0, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    ]
    results = []
    for case in cases:
        config = LlamaConfig(num_attention_heads=4, hidden_size=4 * case["head_dim"], **case)
        frequencies = LlamaRotaryEmbedding(config).inv_freq
        results.append({"configuration": case, "frequencies": [float(x) for x in frequencies]})
    path.write_text(json.dumps(results, indent=1) + "\n")


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
    make_rotary(root / "rotary.json")
    shutil.rmtree(root / "pytorch", ignore_errors=True)
    make_pytorch(root / "pytorch")


if __name__ == "__main__":
    main()
