"""Builds libraries that take native memory, and what programs that load them begin with."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
RunPreloaded = RunPython
SOURCES = Path(__file__).parent / "native"
# What every program begins with: `blocks`, the C library, and `live()`, bytes by function.
PROLOGUE = """
import collections, ctypes, os, sys
from stanch import sampler
from stanch.profile import parse

blocks = ctypes.CDLL(os.environ["BLOCKS"])
for name in ("keep_malloc", "keep_calloc", "keep_realloc", "keep_reallocarray",
             "keep_posix_memalign", "keep_aligned_alloc", "keep_memalign", "keep_valloc",
             "keep_pvalloc", "keep_mmap", "keep_strdup", "resize", "remap"):
    getattr(blocks, name).restype = ctypes.c_void_p
for name, kinds in {"release": "P", "resize": "Pl", "unmap": "Pl", "remap": "Pll"}.items():
    getattr(blocks, name).argtypes = [
        ctypes.c_void_p if kind == "P" else ctypes.c_long for kind in kinds]

def live():
    found = collections.Counter()
    for sample in parse(sampler.heap_profile()).samples:
        names = {line.function.name for location in sample.locations for line in location.lines}
        for name in names:
            found[name] += sample.values[3]
    return found

def start(interval=16384, **more):
    sampler.start(interval_bytes=interval, native=True, **more)
    assert sampler.stats().native, sampler.stats()

def near(found, truth, share=0.15):
    assert (1 - share) * truth <= found <= (1 + share) * truth, (found, truth)
"""


def build(source: Path, target: Path) -> Path:
    """Compile a C or C++ file to a shared library; skips without a compiler for it."""
    wanted = "c++" if source.suffix == ".cpp" else os.environ.get("CC", "cc")
    compiler = shutil.which(wanted)
    if compiler is None:
        pytest.skip(f"no {wanted} here")
    command = [
        compiler,
        "-O2",
        "-g",
        "-fno-builtin",
        "-fno-optimize-sibling-calls",
        "-shared",
        "-fPIC",
        source,
        "-o",
        target,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target
