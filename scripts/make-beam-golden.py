#!/usr/bin/env python3
# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Answers that transformers finds with beams in the tiny models under Tests/Fixtures.

Needs torch and transformers; run by developers only. Writes Tests/Fixtures/beams.json: per case the
model, the prompt, the settings, and the answers with their scores, best first; beam-stops.json:
cases with stop strings, and per answer the log-probabilities that its score is the sum of; and
beam-dead-ends.json: cases in which nothing may follow the likeliest first tokens.

Usage: scripts/make-beam-golden.py [beams.json] [beam-stops.json] [beam-dead-ends.json]
"""

import json
import pathlib
import random
import sys

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
STOP_SETTINGS = [
    dict(num_beams=3, max_new_tokens=12, stop_strings=2),
    dict(num_beams=4, max_new_tokens=16, stop_strings=3, stops=2, early_stopping=True),
    dict(num_beams=3, max_new_tokens=12, stop_strings=2, early_stopping="never", length_penalty=0.0),
    dict(
        num_beams=4,
        max_new_tokens=12,
        stop_strings=3,
        length_penalty=2.0,
        no_repeat_ngram_size=2,
        repetition_penalty=1.3,
        bad_words_ids=[[7], [11, 12]],
    ),
]
DEAD_END_SETTINGS = [
    dict(num_beams=3, max_new_tokens=4, dead_ends=1),
    dict(num_beams=4, max_new_tokens=8, dead_ends=3, length_penalty=2.0),
    dict(num_beams=3, max_new_tokens=8, dead_ends=2, stops=8, early_stopping=True),
]


class Letters:
    """A tokenizer as far as stop strings need one: every token is two of seven letters."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def get_vocab(self):
        return {str(token): token for token in range(self.vocabulary)}

    def __call__(self, text, **_):
        self.prefix = text
        return {"input_ids": []}

    def convert_tokens_to_string(self, tokens):
        return self.prefix + self.text(map(int, tokens))

    @staticmethod
    def text(tokens):
        return "".join("abcdefg"[token % 7] + "abcdefg"[token // 7 % 7] for token in tokens)


def search(model, prompt, stops, flags, stop_strings=None):
    """Answers of a search with beams, their scores, and the log-probabilities of their tokens."""
    tokenizer = Letters(model.config.vocab_size)
    with torch.no_grad():
        found = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            num_return_sequences=flags["num_beams"],
            eos_token_id=stops or None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
            stop_strings=stop_strings,
            tokenizer=tokenizer if stop_strings else None,
            **flags,
        )
    # Ids of -1 fill up answers that ended early.
    transitions = model.compute_transition_scores(
        found.sequences.clamp(min=0), found.scores, found.beam_indices, normalize_logits=False
    )
    lengths = (found.beam_indices >= 0).sum(1).tolist()
    answers = [row[len(prompt) :][:n] for row, n in zip(found.sequences.tolist(), lengths)]
    for answer in answers if stop_strings else []:
        text = Letters.text(answer)
        is_stopped = answer[-1] in stops or any(stop in text for stop in stop_strings)
        assert is_stopped or len(answer) == flags["max_new_tokens"]
    return (
        answers,
        [round(score, 6) for score in found.sequences_scores.tolist()],
        [[round(x, 4) for x in row[:n]] for row, n in zip(transitions.tolist(), lengths)],
    )


def stop_strings_for(answer, prompt, count, generator):
    """Texts that come within an answer, across tokens, and do not begin in the prompt."""
    text, before, found = Letters.text(answer), Letters.text(prompt), []
    while len(found) < count:
        start = generator.randrange(2, len(text) - 5)
        stop = text[start : start + generator.randrange(2, 5)]
        if not any(before.endswith(stop[:n]) for n in range(1, len(stop))):
            found.append(stop)
    return found


def write(name, settings, lengths, generator):
    cases = []
    for fixture in MODELS:
        model = AutoModelForCausalLM.from_pretrained(FIXTURES / fixture, dtype=torch.float32)
        model.eval()
        vocabulary = model.config.vocab_size
        for chosen in settings:
            for length in lengths:
                prompt = [generator.randrange(3, vocabulary) for _ in range(length)]
                stops = [generator.randrange(3, vocabulary) for _ in range(chosen.get("stops", 0))]
                own = ("stops", "stop_strings", "dead_ends")
                flags = {k: v for k, v in chosen.items() if k not in own}
                case = dict(model=fixture, prompt=prompt, stops=stops, settings=flags)
                answers, scores, transitions = search(model, prompt, stops, flags)
                if "stop_strings" in chosen:
                    count = chosen["stop_strings"]
                    found = stop_strings_for(answers[0], prompt, count, generator)
                    answers, scores, transitions = search(model, prompt, stops, flags, found)
                    case |= dict(stop_strings=found, transitions=transitions)
                if "dead_ends" in chosen:
                    ends = list(dict.fromkeys(answer[0] for answer in answers))[: chosen["dead_ends"]]
                    while True:
                        words = [[end, token] for end in ends for token in range(vocabulary)]
                        answers, scores, _ = search(model, prompt, stops, flags | dict(bad_words_ids=words))
                        if scores[0] > -1e8:
                            break
                        ends.pop()  # all beams ended there
                    case |= dict(dead_ends=ends, vocabulary=vocabulary)
                cases.append(case | dict(answers=answers, scores=scores))
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (FIXTURES / name).write_text("[\n" + text + "\n]\n")
    print(name, len(cases), "cases")


def main():
    names = sys.argv[1:] or ["beams.json", "beam-stops.json", "beam-dead-ends.json"]
    if "beams.json" in names:
        write("beams.json", SETTINGS, [1, 17, 40], random.Random(5))
    if "beam-stops.json" in names:
        write("beam-stops.json", STOP_SETTINGS, [4, 23], random.Random(6))
    if "beam-dead-ends.json" in names:
        write("beam-dead-ends.json", DEAD_END_SETTINGS, [3, 20], random.Random(7))


if __name__ == "__main__":
    main()
