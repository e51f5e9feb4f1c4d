#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Answers that transformers finds with beams in the tiny models under Tests/Fixtures.

Needs torch and transformers; run by developers only. Writes Tests/Fixtures/beams.json: per case the
model, the prompt, the settings, and the answers with their scores, best first.

Usage: scripts/make-beam-golden.py
"""

import json
import pathlib
import random

import torch
from transformers import AutoModelForCausalLM

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "Tests" / "Fixtures"
MODELS = ["llama-gqa", "llama-mha", "qwen2"]
# The names are transformers' own.
SETTINGS = [
    dict(num_beams=2, max_new_tokens=12),
    dict(num_beams=4, max_new_tokens=16, length_penalty=2.0),
    dict(num_beams=4, max_new_tokens=16, early_stopping=True, stops=6),
    dict(num_beams=4, max_new_tokens=16, stops=6, length_penalty=-1.0),
    dict(num_beams=3, max_new_tokens=20, early_stopping="never", stops=4, length_penalty=0.5),
    dict(num_beams=3, max_new_tokens=20, early_stopping="never", stops=4, length_penalty=0.0),
    dict(num_beams=5, max_new_tokens=12, no_repeat_ngram_size=2, repetition_penalty=1.3, stops=2),
    dict(num_beams=3, max_new_tokens=12, min_new_tokens=6, stops=8, bad_words_ids=[[7], [11, 12]]),
    dict(num_beams=8, max_new_tokens=10),
]


def main():
    cases = []
    generator = random.Random(5)
    for name in MODELS:
        model = AutoModelForCausalLM.from_pretrained(FIXTURES / name, dtype=torch.float32)
        model.eval()
        vocabulary = model.config.vocab_size
        for settings in SETTINGS:
            for length in [1, 17, 40]:
                prompt = [generator.randrange(3, vocabulary) for _ in range(length)]
                stops = [generator.randrange(3, vocabulary) for _ in range(settings.get("stops", 0))]
                flags = {key: value for key, value in settings.items() if key != "stops"}
                beams = flags["num_beams"]
                with torch.no_grad():
                    found = model.generate(
                        torch.tensor([prompt]),
                        attention_mask=torch.ones(1, length, dtype=torch.long),
                        do_sample=False,
                        num_return_sequences=beams,
                        eos_token_id=stops or None,
                        pad_token_id=0,
                        return_dict_in_generate=True,
                        output_scores=True,
                        **flags,
                    )
                answers = []
                for row in found.sequences.tolist():
                    tokens = row[length:]
                    ends = [i for i, token in enumerate(tokens) if token in stops]
                    answers.append(tokens[: ends[0] + 1] if ends else tokens)
                cases.append(
                    dict(
                        model=name,
                        prompt=prompt,
                        stops=stops,
                        settings=flags,
                        answers=answers,
                        scores=[round(score, 6) for score in found.sequences_scores.tolist()],
                    )
                )
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (FIXTURES / "beams.json").write_text("[\n" + text + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
