# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Rows of a table, kept in a file as they end."""

import json
import pathlib
import subprocess
import sys
import time

PROBLEMS = (RuntimeError, KeyError, ValueError, IndexError, ZeroDivisionError, subprocess.CalledProcessError)


def chosen(rows, words):
    """Rows whose names begin with one of the words, which commas separate; without words all."""
    rows, words = list(rows), tuple((words or "").split(","))
    names = [row[0] for row in rows]
    for word in words:
        if not any(name.startswith(word) for name in names):
            sys.exit(f"no row begins with '{word}'; rows: {', '.join(names)}")
    return [row for row in rows if row[0].startswith(words)]


class Table:
    """Prints rows, measuring those that the file has not, or has of another device, program or kernels.

    A row has `value`, `unit`, `detail` and perhaps `gate`, the least value that will do (with `most` the largest), or
    `of`: another row's key, and the share of its value that is the gate once it is there."""

    def __init__(self, path, device):
        self.path, self.device, self.failed = pathlib.Path(path), device, []
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else {}

    @staticmethod
    def head():
        print("| row | measured | gate | |\n|---|---|---|---|", flush=True)

    def add(self, name, key, measure, **marks):
        """`marks`: what the row holds for, beside the device."""
        if not self.holds(key, **marks):
            try:
                self.rows[key] = dict(measure(), device=self.device, date=time.strftime("%Y-%m-%d"), **marks)
            except PROBLEMS as problem:
                self.failed.append(name)
                return print(f"| {name} | failed: {' '.join(str(problem).split())[-300:]} | | |", flush=True)
            self.path.write_text(json.dumps(self.rows, indent=1))
        row = self.rows[key]
        print(f"| {name} | {row['value']:.2f} {row['unit']} | {self.verdict(row, marks)} | {row['detail']} |", flush=True)

    def holds(self, key, **marks):
        row, marks = self.rows.get(key, {}), dict(marks, device=self.device)
        return all(row.get(mark) == value for mark, value in marks.items())

    def verdict(self, row, marks):
        gate = row.get("gate")
        if "of" in row:
            key, share = row["of"]
            if not self.holds(key, **marks):
                return f"needs {key.split('/')[1]}"
            gate = share * self.rows[key]["value"]
        if gate is None:
            return ""
        met = row["value"] <= gate if row.get("most") else row["value"] >= gate
        return f"{gate:.4g} {'met' if met else 'MISSED'}"

    def end(self):
        """The program's exit code, having named what could not be measured."""
        if self.failed:
            print(f"\nnot measured: {', '.join(self.failed)}")
        return 1 if self.failed else 0
