#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Trains two small byte-level BPE tokenizers and writes them with the ids of many texts as test fixtures.

Needs `pip install tokenizers==0.23.3`. Usage: make-tokenizer-golden.py CORPUS.txt (any English text of about 1 MB).
Writes Tests/MartletTokenizerTests/Fixtures/tokenizer-*.json.
"""

import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "Tests/MartletTokenizerTests/Fixtures"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
ADDED = [
    AddedToken("<|endoftext|>", special=True, normalized=False),
    AddedToken("<|im_start|>", special=True, normalized=False),
    AddedToken("<|im_end|>", special=True, normalized=False),
    AddedToken("<|im|>", special=True, normalized=False),
    AddedToken("<mask>", special=True, normalized=False, lstrip=True),
    AddedToken("<right>", special=True, normalized=False, rstrip=True),
    AddedToken("whole", special=False, normalized=False, single_word=True),
    AddedToken("<tool>", special=False, normalized=True),
    AddedToken("<tool>x", special=False, normalized=True),
]


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def pre_tokenizer(kind):
    if kind == "gpt2":
        return byte_level(True)
    if kind == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)])
    digits = "{1,3}" if kind == "llama3" else ""
    split = pre_tokenizers.Split(Regex(CL100K.replace("DIGITS", digits)), "isolated")
    return pre_tokenizers.Sequence([split, byte_level(False)])


def train(kind, corpus):
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    tokenizer.pre_tokenizer = pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens(ADDED)
    return tokenizer


def texts():
    random_ = random.Random(11)
    assigned = [c for c in range(0x20, 0x2FA20) if not 0xD800 <= c < 0xE000 and chr(c).isprintable()]
    parts = (
        "the| and|  |\n|\r\n|\t| 12|1999|½|Ⅷ|٣|'s|'LL|'ve|'ſ|don't|é|e\u0301|漢字|한국어|עברית|👍🏽|\u200d|\u00a0|\u2028|\u0085|"
        "\u3000|!|...| (|x_y|\x00|\x1c|<|<|im|<|im_start|>|<mask>| <mask>|<right> |whole|wholesome| whole |<tool>|<tool>x|𑷠"
    ).split("|")
    result = [
        "", " ", "  ", "\n", "a", "Hello, world!", "  two  spaces  ", "ends with space ", "\n\n\n x", "1234567 12 3", "it's I'LL",
        "<|im_start|>user\nhi<|im_end|>\n", "a <mask> b", "a<right>   b", "whole unwholesome whole.", "<tool>x<tool> y",
        "<|im|><|im_|><|im_start|<|endoftext|>", "tabs\t\tand\r\nlines\r\n\r\n", "ÀÉÎ ß ﬁ ǆ", "🚀👩‍👩‍👧‍👦🇩🇪", "'ſ 's 'S", "a" * 200,
        " " * 100, "=" * 70 + "\n",
    ]
    for index in range(260):
        count = random_.randint(1, 12)
        if index % 3 == 0:
            result.append("".join(chr(random_.choice(assigned)) for _ in range(count)))
        else:
            result.append("".join(random_.choice(parts) for _ in range(count)))
    return result


def main():
    corpus = pathlib.Path(sys.argv[1]).read_text(encoding="utf8").split("\n")[:6000]
    FIXTURES.mkdir(parents=True, exist_ok=True)
    samples = texts()
    for kind in ("smollm", "llama3"):
        tokenizer = train(kind, corpus)
        data = json.loads(tokenizer.to_str())
        cases = {}
        # The same vocabulary under each pre-tokenizer that fits it keeps the fixtures small.
        for other in ("smollm", "gpt2") if kind == "smollm" else ("llama3", "qwen2"):
            tokenizer.pre_tokenizer = pre_tokenizer(other)
            ids = [e.ids for e in tokenizer.encode_batch(samples, add_special_tokens=False)]
            cases[other] = {
                "pre_tokenizer": json.loads(tokenizer.to_str())["pre_tokenizer"],
                "ids": ids,
                "decoded": [tokenizer.decode(i, skip_special_tokens=True) for i in ids],
            }
        golden = {"tokenizer": data, "texts": samples, "cases": cases}
        path = FIXTURES / f"tokenizer-{kind}.json"
        path.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf8")
        print(f"{path.name}: {len(samples)} texts, {path.stat().st_size} bytes")


main()
