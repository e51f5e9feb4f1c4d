#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Writes Tests/MartletTokenizerTests/Fixtures/added-tokens.json: folders of a small vocabulary as transformers reads them.

Some have a tokenizer.json with tokens beside it that it lacks, others vocab.json and merges.txt alone.
Needs `pip install transformers==5.24.0 tokenizers==0.23.3`. The output is the same on every run.
"""

import json
import pathlib
import random
import tempfile

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "Tests/MartletTokenizerTests/Fixtures/added-tokens.json"
WORDS = (
    "the of and to in a is that for it was on with as his he be at by this had not are but from or have an they "
    "which one you were her all there would their we him been has when who will no more if out so what up said its "
    "about than into them can only other time new some these two may first any my now such like our over man me "
    "singing running 12 1984 café naïve über Straße"
).split()
PIECES = WORDS + (
    "  |\t|\n|\r\n|\n\n|don't|WE'LL|I'm|3.14|—|…|!?|(x)|{y: 1};|é|e\u0301|Å|中文|日本|한국|жизнь|ελ|שלום|🙂|👩‍💻|\u00a0|\u3000|"
    "ﬁ|½|٣|<a>|<b>|<c>|</s>|<s>|<|endoftext|>|<pad>|ing|<a> x|x <b>|  <b>  |_<c>_"
).replace("<|endoftext|>", "END").split("|")


def texts(count):
    rng = random.Random(6)
    result = ["", " ", "<a>", "a<a>b", " <a> ", "<b><b>", "x<c>y z <c>"]
    while len(result) < count:
        words = [rng.choice(PIECES).replace("END", "<|endoftext|>") for _ in range(rng.randint(1, 9))]
        result.append("".join(word + rng.choice(["", " ", " "]) for word in words))
    return result


def small():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"],
        show_progress=False)
    rng = random.Random(5)
    tokenizer.train_from_iterator([" ".join(rng.choices(WORDS, k=40)) for _ in range(200)], trainer)
    return json.loads(tokenizer.to_str())


def token(content, special=True, **flags):
    fields = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {"content": content, **fields, "special": special, **flags}


def cases(first, inside, other):
    """Name, what stands in tokenizer_config.json, and what in added_tokens.json."""
    decoder = "added_tokens_decoder"
    both = {str(first): token("<a>"), str(first + 1): token("<b>")}
    return [
        ("decoder", {decoder: both, "bos_token": "<s>", "eos_token": "<b>"}, None),
        ("gap", {decoder: {str(first + 5): token("<a>"), str(first + 9): token("<b>")}}, None),
        ("order", {decoder: {str(first + 1): token("<a>"), str(first): token("<b>")}}, None),
        ("below", {decoder: {str(first - 9): token("<a>"), "1": token("<b>")}}, None),
        ("inside", {decoder: {str(first): token(inside)}, "eos_token": other}, None),
        ("flags", {decoder: {
            str(first): token("<a>", False, lstrip=True, rstrip=True),
            str(first + 1): token("<b>", False, single_word=True, normalized=True),
            str(first + 2): {"content": "<c>"}, "1": token("</s>", rstrip=True)}}, None),
        ("empty", {decoder: {str(first): token(""), str(first + 1): token("<b>")}}, None),
        ("named", {decoder: both, "pad_token": "<pad>", "eos_token": "<c>"}, None),
        ("additional", {"additional_special_tokens": ["<a>", "<c>"], "eos_token": "</s>"}, None),
        ("extra", {"extra_special_tokens": {"image_token": "<a>"}, "additional_special_tokens": ["<c>"]}, None),
        ("older", {"eos_token": "<b>"}, {"<a>": first + 3, "<b>": first + 1, "</s>": 1, "<c>": 0}),
        ("both", {decoder: both}, {"<c>": first}),
    ]


def main():
    tokenizer = small()
    vocabulary = tokenizer["model"]["vocab"]
    first = len(vocabulary)
    inside, other = [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 1][:2]
    folders = []

    def add(name, form, config, older, count):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            if older:
                (folder / "added_tokens.json").write_text(json.dumps(older))
            if form == "json":
                (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
            else:
                merges = [" ".join(merge) for merge in tokenizer["model"]["merges"]]
                (folder / "vocab.json").write_text(json.dumps(vocabulary))
                (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
            reference = AutoTokenizer.from_pretrained(folder)
        ids = [reference(text).input_ids for text in all_texts[:count]]
        special = {name: reference.convert_tokens_to_ids(value) for name, value in
                   reference.special_tokens_map.items() if isinstance(value, str)}
        folders.append({
            "name": name, "form": form, "config": config, "added_tokens": older, "size": len(reference),
            "special": special, "ids": [" ".join(map(str, row)) for row in ids]})

    all_texts = texts(600)
    for name, config, older in cases(first, inside, other):
        add(name, "json", {"tokenizer_class": "PreTrainedTokenizerFast", **config}, older, 80)
    for kind in ("GPT2Tokenizer", "Qwen2Tokenizer"):
        add(kind, "merges", {"tokenizer_class": kind}, None, 600)
        for name, config, older in cases(first, inside, other):
            add(f"{kind} {name}", "merges", {"tokenizer_class": kind + "Fast"[:4 * (name == "gap")], **config},
                older, 40)
    spaced = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "add_bos_token": True, "bos_token": "<s>"}
    add("GPT2Tokenizer spaced", "merges", spaced, None, 200)
    golden = {"tokenizer": tokenizer, "texts": all_texts, "folders": folders}
    OUTPUT.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":"), sort_keys=False) + "\n")
    print(OUTPUT.stat().st_size, "bytes,", len(folders), "folders")


main()
