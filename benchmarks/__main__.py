"""Runs every benchmark of benchmarks/README.md, one after the other."""

import subprocess
import sys

BENCHMARKS = (
    "sampler_instructions",
    "sampler_accuracy",
    "profile_codec",
    "memory_account",
    "label_profiles",
)

for name in BENCHMARKS:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
