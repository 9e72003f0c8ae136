"""Runs the benchmarks of benchmarks/README.md, one after the other, or one with its arguments.

python -m benchmarks [NAME [ARGUMENT...]]
"""

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
    ("label_cost",),
    ("native_cost",),
    ("retention",),
)
# These take many minutes or packages of their own: by name only.
ON_REQUEST = {
    "pages",
    "native_cpu",
    "peers",
    "retention_aiohttp",
    "retention_soak",
    "selfwatch_cost",
}


def main() -> int:
    """Return the exit code of the one benchmark that is named, or of the first that fails."""
    wanted: tuple[tuple[str, ...], ...] = (tuple(sys.argv[1:]),) if sys.argv[1:] else BENCHMARKS
    known = {name for name, *_ in BENCHMARKS} | ON_REQUEST
    for name, *arguments in wanted:
        if name not in known:
            print(f"no benchmark {name}; there are {', '.join(sorted(known))}", file=sys.stderr)
            return 2
        print("==", name, *arguments, file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments])
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
