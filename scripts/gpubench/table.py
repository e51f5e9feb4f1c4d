# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Rows of a table, kept in a file as they end."""

import json
import pathlib
import subprocess
import time

PROBLEMS = (RuntimeError, KeyError, ValueError, IndexError, ZeroDivisionError, subprocess.CalledProcessError)


def chosen(rows, words):
    """Rows whose names begin with one of the words, which commas separate; without words all."""
    return [row for row in rows if not words or any(row[0].startswith(word) for word in words.split(","))]


class Table:
    """Prints rows, measuring those that the file has not, or has of another program.

    A row has `value`, `unit`, `detail` and perhaps `gate`, the least value that will do (with `most` the largest), or
    `of`: another row's key, and the share of its value that is the gate once it is there."""

    def __init__(self, path, device, **marks):
        self.path, self.device, self.marks = pathlib.Path(path), device, marks
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else {}

    @staticmethod
    def head():
        print("| row | measured | gate | |\n|---|---|---|---|", flush=True)

    def add(self, name, key, measure):
        if not self.holds(key):
            try:
                self.rows[key] = dict(measure(), device=self.device, date=time.strftime("%Y-%m-%d"), **self.marks)
            except PROBLEMS as problem:
                return print(f"| {name} | failed: {' '.join(str(problem).split())[-300:]} | | |", flush=True)
            self.path.write_text(json.dumps(self.rows, indent=1))
        row = self.rows[key]
        print(f"| {name} | {row['value']:.2f} {row['unit']} | {self.verdict(row)} | {row['detail']} |", flush=True)

    def holds(self, key):
        return key in self.rows and all(self.rows[key].get(mark) == value for mark, value in self.marks.items())

    def verdict(self, row):
        gate = row.get("gate")
        if "of" in row:
            key, share = row["of"]
            if not self.holds(key):
                return f"needs {key.split('/')[1]}"
            gate = share * self.rows[key]["value"]
        if gate is None:
            return ""
        met = row["value"] <= gate if row.get("most") else row["value"] >= gate
        return f"{gate:.4g} {'met' if met else 'MISSED'}"
