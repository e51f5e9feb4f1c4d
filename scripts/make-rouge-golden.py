#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Writes Tests/Fixtures/evaluation/rouge.json: stems and scores by the Python package rouge_score.

Usage: make-rouge-golden.py TEXT, with some English text to draw words and sentences from.
Needs: pip install rouge_score
"""

import json
import pathlib
import random
import re
import sys

from nltk.stem import PorterStemmer
from rouge_score import rouge_scorer

ROOT = pathlib.Path(__file__).resolve().parent.parent
METRICS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
ENDINGS = (
    "s es ies ied eed ed ing ings y ational tional enci anci izer bli alli entli eli ousli ization "
    "ation ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti "
    "ical ful ness al ance ence er ic able ible ant ement ment ent ion sion tion ou ism ate iti ous "
    "ive ize e ll lle ss zz tt alalli").split()
STEMS = "a y by sky tr rel cond val hop fil fall hiss fizz geo theo philo yy syzyg control contr sens 19 x3".split()
IRREGULAR = (
    "sky skies dying lying tying news innings inning outings outing cannings canning howe proceed "
    "exceed succeed dies died spied flies").split()


def texts(lines, random):
    """Pairs of reference and prediction: hand-made ones, then damaged copies of real text."""
    yield from [
        ("", ""), ("a", ""), ("", "b"), ("the cat sat", "the cat sat"), ("!!! ???", "..."),
        ("The Cat.\nSat on the mat.", "the cat\n\nsat\r\non a mat"),
        ("a b c d", "d c b a"), ("w1 w2 w3 w4 w5\nw1 w3 w8 w9 w5", "w1 w2 w6 w7 w8\nw9 w5 w1"),
        ("naïve café 12.5 İstanbul \u212aelvin", "naive cafe 12 5 istanbul kelvin"),
        ("日本語 text ß", "text ss 日本"), ("x " * 60, "x " * 7), ("one\u2028two\x0bthree", "one two"),
        ("running runner runs", "run running ran"), ("\n\n", "\n"),
    ]
    for _ in range(60):
        chosen = random.sample(lines, random.randint(1, 4))
        words = "\n".join(chosen).split(" ")
        kept = []
        for word in words:
            draw = random.random()
            if draw < 0.2:
                continue
            if draw < 0.3:
                word = random.choice(random.choice(lines).split(" "))
            elif draw < 0.35:
                word += "\n"
            kept.append(word)
        if random.random() < 0.3:
            half = len(kept) // 2
            kept = kept[half:] + kept[:half]
        yield "\n".join(chosen), " ".join(kept)


def main():
    source = pathlib.Path(sys.argv[1]).read_text()
    lines = [line.strip()[:300] for line in source.split("\n") if len(line) > 80]
    generator = random.Random(20)
    words = sorted(set(re.findall(r"[a-z0-9]+", source.lower())))
    words = generator.sample(words, 4000) + [s + e for s in STEMS for e in ENDINGS] + IRREGULAR
    stemmer = PorterStemmer()
    scorers = [rouge_scorer.RougeScorer(METRICS, use_stemmer=flag) for flag in (False, True)]
    samples = []
    for reference, prediction in texts(lines, generator):
        scores = [
            [[s[m].precision, s[m].recall, s[m].fmeasure] for m in METRICS]
            for s in (scorer.score(reference, prediction) for scorer in scorers)]
        samples.append(
            {"reference": reference, "prediction": prediction, "plain": scores[0],
             "stemmed": scores[1]})
    golden = {
        "metrics": METRICS,
        "stems": {word: stemmer.stem(word) for word in sorted(set(words)) if len(word) > 3},
        "samples": samples,
    }
    path = ROOT / "Tests/Fixtures/evaluation/rouge.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(golden, separators=(",", ":"), ensure_ascii=False) + "\n")
    print(path.relative_to(ROOT), path.stat().st_size, "bytes")


main()
