#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Writes the Unicode classes of every code point as a run-length encoded Swift string.

Needs `pip install unicodedata2==16.0.0`: the version is pinned to the one of the regular expressions in
Hugging Face tokenizers 0.23 (Oniguruma, Unicode 16), because pre-tokenizers must agree with it exactly.
"""

import pathlib
import unicodedata2 as unicodedata

assert unicodedata.unidata_version == "16.0.0", unicodedata.unidata_version

CATEGORIES = (
    "Cn Cc Cf Co Cs Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()
)
WHITE_SPACE = {9, 10, 11, 12, 13, 0x85}
# Numbers of Unicode 17: the `Digits` pre-tokenizer uses Rust's newer table.
NEW_NUMBERS = set(range(0x11DE0, 0x11DEA)) | set(range(0x16FF4, 0x16FF7))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def value(code):
    category = unicodedata.category(chr(code))
    bits = CATEGORIES.index(category)
    if category[0] == "Z" or code in WHITE_SPACE:
        bits |= 32
    if category[0] == "N" or code in NEW_NUMBERS:
        bits |= 64
    return bits


def varint(number):
    """Five bits per character, low first; 32 marks that more follow."""
    text = ""
    while number >= 32:
        text += ALPHABET[number & 31 | 32]
        number >>= 5
    return text + ALPHABET[number]


def main():
    text, run, last = "", 0, value(0)
    for code in range(0x110000):
        current = value(code)
        if current != last:
            text += varint(last) + varint(run)
            run, last = 0, current
        run += 1
    text += varint(last) + varint(run)
    lines = [text[i : i + 96] for i in range(0, len(text), 96)]
    root = pathlib.Path(__file__).resolve().parent.parent
    path = root / "Sources/MartletTokenizer/Generated/UnicodeClassData.swift"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "// Part of Martlet. See LICENSE.\n// SPDX-License-Identifier: Apache-2.0\n\n"
        "// Made by scripts/make-unicode-tables.py from Unicode 16.0.0. Do not edit.\n\n"
        "/// Classes of all code points: (value, run length) pairs as base-32 numbers.\n"
        'let unicodeClassData: StaticString = """\n    ' + "\n    ".join(lines) + '\n    """\n'
    )
    print(f"{path.name}: {len(text)} characters")


main()
