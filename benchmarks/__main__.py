"""Runs every benchmark of benchmarks/README.md, one after the other."""

import subprocess
import sys

BENCHMARKS = (
    ("sampler_cost",),
    ("sampler_cost", "--memory"),
    ("sampler_instructions",),
    ("sampler_accuracy",),
    ("profile_codec",),
    ("memory_account",),
    ("label_profiles",),
)

for name, *arguments in BENCHMARKS:
    print("==", name, *arguments, flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)
