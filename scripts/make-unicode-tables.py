#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Writes the Unicode classes of every code point and the tables of NFC as Swift strings.

Needs `pip install unicodedata2==16.0.0 tokenizers==0.23.3`: the version is pinned to the one of the regular
expressions in Hugging Face tokenizers 0.23 (Oniguruma, Unicode 16), because pre-tokenizers must agree with it
exactly. Its NFC knows Unicode 9 only: marks that came later are left where they stand.
"""

import pathlib
import unicodedata2 as unicodedata
from tokenizers import normalizers

assert unicodedata.unidata_version == "16.0.0", unicodedata.unidata_version

CATEGORIES = (
    "Cn Cc Cf Co Cs Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()
)
WHITE_SPACE = {9, 10, 11, 12, 13, 0x85}
# Numbers of Unicode 17: the `Digits` pre-tokenizer uses Rust's newer table.
NEW_NUMBERS = set(range(0x11DE0, 0x11DEA)) | set(range(0x16FF4, 0x16FF7))
NFC = normalizers.NFC().normalize_str
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def is_known_mark(code):
    """Whether the reference orders a mark: before one above (230) or after one below (220)."""
    mark = chr(code)
    tests = ["a" + mark + "\u0301", "a\u0301" + mark + "\u0316"]
    return all(NFC(test) == unicodedata.normalize("NFC", test) for test in tests)


COMBINING = {c: unicodedata.combining(chr(c)) for c in SCALARS if unicodedata.combining(chr(c))}
COMBINING = {c: value for c, value in COMBINING.items() if is_known_mark(c)}
DECOMPOSED = {
    c: [int(part, 16) for part in unicodedata.decomposition(chr(c)).split()]
    for c in SCALARS
    if unicodedata.decomposition(chr(c)) and not unicodedata.decomposition(chr(c)).startswith("<")
    and not 0xAC00 <= c < 0xD7A4
}
# What NFC leaves or restores as one character.
COMPOSED = {c for c, parts in DECOMPOSED.items() if len(parts) == 2 and NFC(chr(c)) == chr(c)}
# Characters that NFC may change, alone or after another.
UNSTABLE = (
    set(COMBINING) | (set(DECOMPOSED) - COMPOSED) | {DECOMPOSED[c][1] for c in COMPOSED}
    | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
)


def value(code):
    category = unicodedata.category(chr(code))
    bits = CATEGORIES.index(category)
    if category[0] == "Z" or code in WHITE_SPACE:
        bits |= 32
    if category[0] == "N" or code in NEW_NUMBERS:
        bits |= 64
    if code in UNSTABLE:
        bits |= 128
    return bits


def varint(number):
    """Five bits per character, low first; 32 marks that more follow."""
    text = ""
    while number >= 32:
        text += ALPHABET[number & 31 | 32]
        number >>= 5
    return text + ALPHABET[number]


def write(name, comment, variable, text):
    lines = [text[i : i + 96] for i in range(0, len(text), 96)]
    root = pathlib.Path(__file__).resolve().parent.parent
    path = root / f"Sources/MartletTokenizer/Generated/{name}.swift"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "// Part of Martlet. See LICENSE.\n// SPDX-License-Identifier: Apache-2.0\n\n"
        "// Made by scripts/make-unicode-tables.py from Unicode 16.0.0. Do not edit.\n\n"
        f"/// {comment}\n"
        f'let {variable}: StaticString = """\n    ' + "\n    ".join(lines) + '\n    """\n'
    )
    print(f"{path.name}: {len(text)} characters")


def classes():
    text, run, last = "", 0, value(0)
    for code in range(0x110000):
        current = value(code)
        if current != last:
            text += varint(last) + varint(run)
            run, last = 0, current
        run += 1
    return text + varint(last) + varint(run)


def composition():
    """Count, then (distance to the code before, class) of marks; then (distance, first, second, composes)."""
    text, last = varint(len(COMBINING)), 0
    for code, ccc in sorted(COMBINING.items()):
        text += varint(code - last) + varint(ccc)
        last = code
    last = 0
    for code, parts in sorted(DECOMPOSED.items()):
        second = parts[1] if len(parts) == 2 else 0
        text += varint(code - last) + varint(parts[0]) + varint(second) + varint(int(code in COMPOSED))
        last = code
    return text


def main():
    write(
        "UnicodeClassData", "Classes of all code points: (value, run length) pairs as base-32 numbers.",
        "unicodeClassData", classes())
    write(
        "CompositionData", "Marks and canonical decompositions, as base-32 numbers.", "compositionData",
        composition())


main()
