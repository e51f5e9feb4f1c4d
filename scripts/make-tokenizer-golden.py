#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Trains small BPE tokenizers and writes them with the ids of many texts as test fixtures.

Needs `pip install tokenizers==0.23.3 sentencepiece==0.2.3`. Usage: make-tokenizer-golden.py CORPUS.txt (any English
text of about 1 MB). Writes Tests/MartletTokenizerTests/Fixtures/tokenizer-*.json and sentencepiece.json.
"""

import base64
import io
import json
import pathlib
import random
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "Tests/MartletTokenizerTests/Fixtures"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
EAST_ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-"
    "\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
DEEPSEEK = {
    "deepseek-llm": ["[\r\n]", rf"\s?[{CASED}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", EAST_ASIAN],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"""
        + "\r\n"
        + r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+["
        + "\r\n"
        + r"]*|\s*["
        + "\r\n"
        + r"]+|\s+(?!\S)|\s+",
    ],
}
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
    if kind in DEEPSEEK:
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in DEEPSEEK[kind]]
        if kind != "deepseek-v3":
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        return pre_tokenizers.Sequence(steps + [byte_level(False)])
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


def components(tokenizer):
    data = json.loads(tokenizer.to_str())
    return {key: data[key] for key in ("normalizer", "pre_tokenizer", "decoder")}


def case(tokenizer, samples):
    ids = [e.ids for e in tokenizer.encode_batch(samples, add_special_tokens=False)]
    decoded = [tokenizer.decode(i, skip_special_tokens=True) for i in ids]
    return {"components": components(tokenizer), "ids": ids, "decoded": decoded}


def save(name, golden):
    path = FIXTURES / f"{name}.json"
    path.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf8")
    print(f"{path.name}: {len(golden['texts'])} texts, {path.stat().st_size} bytes")


def byte_level_goldens(corpus, samples):
    for kind in ("smollm", "llama3"):
        tokenizer = train(kind, corpus)
        cases = {}
        # The same vocabulary under each pre-tokenizer that fits it keeps the fixtures small.
        for other in ("smollm", "gpt2", *DEEPSEEK) if kind == "smollm" else ("llama3", "qwen2"):
            tokenizer.pre_tokenizer = pre_tokenizer(other)
            # Qwen composes its text.
            tokenizer.normalizer = normalizers.NFC() if other == "qwen2" else None
            cases[other] = case(tokenizer, samples)
        save(f"tokenizer-{kind}", {"tokenizer": json.loads(tokenizer.to_str()), "texts": samples, "cases": cases})


def sentence_piece_golden(corpus, samples, name, **settings):
    """A SentencePiece model, what it does itself, and what tokenizers does with the same merges."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=file, model_type="bpe", vocab_size=1000,
        normalization_rule_name="identity", split_digits=True, allow_whitespace_only_pieces=True,
        character_coverage=0.999, minloglevel=2, **{"user_defined_symbols": ["<sym>", "two words"], **settings})
    processor = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    ids = [processor.encode(text) for text in samples]
    golden = {
        "model": base64.b64encode(file.getvalue()).decode(), "texts": samples, "ids": ids,
        "decoded": [processor.decode(row) for row in ids], "cases": {},
    }
    if settings.get("byte_fallback"):
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        scores = {piece: processor.get_score(i) for i, piece in enumerate(pieces)}
        skipped = [processor.is_control(i) or processor.is_unknown(i) or processor.is_byte(i) for i in range(len(pieces))]
        normal = {piece for piece, skip in zip(pieces, skipped) if not skip}
        merges = [(p[:k], p[k:]) for p in normal for k in range(1, len(p)) if p[:k] in normal and p[k:] in normal]
        merges.sort(key=lambda pair: (-scores[pair[0] + pair[1]], len(pair[0])))
        vocabulary = {piece: i for i, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
        tokenizer.add_tokens([AddedToken("<sym>", normalized=False), AddedToken("two words", normalized=True)])
        text = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        stripped = decoders.Sequence(text + [decoders.Strip(" ", 1, 0)])
        replace = normalizers.Replace(" ", "▁")
        for kind, normalizer, splitter, decoder in [
            ("llama2", normalizers.Sequence([normalizers.Prepend("▁"), replace]), None, stripped),
            ("first", None, pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False), stripped),
            ("always", None, pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True), stripped),
            ("gemma", replace, pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(text)),
        ]:
            tokenizer.normalizer = normalizer or normalizers.Sequence([])
            tokenizer.pre_tokenizer = splitter or pre_tokenizers.Sequence([])
            tokenizer.decoder = decoder
            # Added tokens are matched in normalized text: they must be told again.
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            golden["cases"][kind] = case(tokenizer, samples)
        golden["tokenizer"] = json.loads(tokenizer.to_str())
    save(name, golden)


def main():
    corpus = pathlib.Path(sys.argv[1]).read_text(encoding="utf8").split("\n")[:6000]
    FIXTURES.mkdir(parents=True, exist_ok=True)
    samples = texts()
    byte_level_goldens(corpus, samples)
    samples += ["</s>", "<s>a</s>b", "x<sym>y <sym> z", "a two words b", "▁a▁▁b", "two  words", "<0x41>"]
    sentence_piece_golden(
        corpus, samples, "sentencepiece", byte_fallback=True, remove_extra_whitespaces=False)
    # No bytes: unknown characters are one unknown token; spaces are trimmed; no space in front.
    sentence_piece_golden(
        corpus, samples[:200], "sentencepiece-unknown", byte_fallback=False, remove_extra_whitespaces=True,
        add_dummy_prefix=False)
    # Symbols of the user's own, with and without spaces, are found in normalized text.
    symbols = ["<sep>", "12", "▁▁", "▁▁▁▁", "foo▁bar", "▁x"]
    words = ["a", "12", "x", " ", "  ", "<sep>", "foo", "bar", "foo bar", "▁", "the"]
    random.seed(7)
    samples = samples[:60] + ["".join(random.choices(words, k=random.randint(1, 9))) for _ in range(240)]
    for name, drops in (("sentencepiece-symbols", False), ("sentencepiece-symbols-trimmed", True)):
        sentence_piece_golden(
            corpus, samples, name, byte_fallback=False, remove_extra_whitespaces=drops, user_defined_symbols=symbols)


if __name__ == "__main__":
    main()
