# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels with NVRTC: options in, cubin and resource report out, kept by hash."""

import ctypes
import glob
import hashlib
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KERNELS = ROOT / "Sources/CMartletCUDASources/kernels"
CACHE = pathlib.Path(os.environ.get("MARTLET_LAB_CACHE", "/tmp/martlet-lab"))


def library():
    """NVRTC's path: MARTLET_NVRTC, else the copy that pip put beside this Python."""
    if os.environ.get("MARTLET_NVRTC"):
        return os.environ["MARTLET_NVRTC"]
    for folder in sys.path:
        found = glob.glob(folder + "/nvidia/*/lib/libnvrtc.so.1*")
        if found:
            return sorted(found)[-1]
    sys.exit("no libnvrtc.so: install nvidia-cuda-nvrtc, or set MARTLET_NVRTC")


_nvrtc = None


def nvrtc():
    global _nvrtc
    if _nvrtc is None:
        path = library()
        for name in glob.glob(os.path.dirname(path) + "/libnvrtc-builtins.so.*"):
            ctypes.CDLL(name)
        _nvrtc = ctypes.CDLL(path)
    return _nvrtc


def headers():
    return [(path.name, path.read_bytes()) for path in sorted(KERNELS.rglob("*.cuh"))]


def build(source, defines, chip="sm_90a"):
    """(code, report): what the kernel became, PTX where the chip is a `compute_`. A compiler error ends the program."""
    is_ptx = chip.startswith("compute_")
    options = [f"-arch={chip}", "-std=c++17", "-default-device"] + ([] if is_ptx else ["--ptxas-options=-v"])
    options += [f"-D{name}={value}" for name, value in sorted(defines.items())]
    text = (KERNELS / source).read_bytes()
    key = hashlib.sha256(b"".join(t for _, t in headers()) + text + " ".join(options).encode()).hexdigest()
    kept, note = CACHE / (key[:24] + ".cubin"), CACHE / (key[:24] + ".txt")
    if kept.exists() and note.exists():
        return kept.read_bytes(), note.read_text()
    lib, program = nvrtc(), ctypes.c_void_p()
    names = (ctypes.c_char_p * len(headers()))(*[n.encode() for n, _ in headers()])
    texts = (ctypes.c_char_p * len(headers()))(*[t for _, t in headers()])
    lib.nvrtcCreateProgram(ctypes.byref(program), text, source.encode(), len(headers()), texts, names)
    words = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    code = lib.nvrtcCompileProgram(program, len(options), words)
    size = ctypes.c_size_t()
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    report = log.value.decode(errors="replace")
    if code:
        sys.exit(f"{source} {' '.join(options)}\n{report}")
    kind = "PTX" if is_ptx else "CUBIN"
    getattr(lib, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    getattr(lib, f"nvrtcGet{kind}")(program, cubin)
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(cubin.raw)
    note.write_text(report)
    return cubin.raw, report


def resources(report):
    """Registers and spilled bytes, the greatest of all kernels of a module."""
    registers = max(map(int, re.findall(r"Used (\d+) registers", report)), default=0)
    spills = max((int(a) + int(b) for a, b in re.findall(
        r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)), default=0)
    return registers, spills


# What the kernels' definitions are unless a case says otherwise.
LINEAR = dict(GROUP=0, ZERO=0, TOKENS=1, GRID=132, WARPS=16, DEPTH=0, NORM=0, GATED=0, BIAS=0, RESIDUAL=0, INTERLEAVE=0)
ATTENTION = dict(TILES=1, TEAM=1, WARPS=4, BLOCKS=2, RING=3, UNIT=16, SPLITS=8, SPLIT_UNITS=4, CLUSTER=1, PAGE=64, ROTARY=1,
                 WINDOW=0, ALIBI=0, SOFT_CAP=0)


def words_of(weight, inputs):
    """k of a 16-byte word of the layout `mma16x16`, words of a chunk."""
    word_k = {4: 64, 8: 32}.get(weight, 16)
    strip = inputs // word_k
    return word_k, 4 if strip % 4 == 0 else 2 if strip % 2 == 0 else 1


def depth(d):
    """Chunks that a warp of 16 keeps in registers: 4 KB, half of it where the scales need the room."""
    _, words = words_of(d["WEIGHT"], d["INPUTS"])
    crowded = d["WEIGHT"] == 4 and (d["GROUP"] == 32 or d["GROUP"] == 64 and (d["ZERO"] or d["TOKENS"] > 1))
    return max((4 if crowded else 8) // words, 1)


def linear_definitions(**given):
    d = {**LINEAR, **given}
    return {**d, "DEPTH": d["DEPTH"] or depth(d), "GRID": min(d["GRID"], -(-d["OUTPUTS"] // 16))}


def attention_definitions(**given):
    return {**ATTENTION, **given}


def _build_one(job):
    source, definitions, chip = job
    return job, resources(build(source, definitions, chip)[1])


def build_all(jobs):
    """Compiles (source, definitions, chip) on all cores; prints what spills."""
    import concurrent.futures
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for job, (registers, spills) in pool.map(_build_one, jobs):
            if spills:
                print(f"spills {spills} bytes on {job[2]}:", job[0], {k: v for k, v in job[1].items() if v})
    print(len(jobs), "kernels compiled")
