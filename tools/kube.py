"""Builds what tests start a real Kubernetes API server from: kube-apiserver, and its etcd.

    python3 tools/kube.py     prints the directory, build/kube; built when it is not there

From Go modules, in the versions that tools/kube/go.mod and go.sum pin. Ten to thirty minutes on
two cores the first time, and 2 GB in Go's caches; one that was broken off goes on where it was.
Standard library only, and Go. Exit code 1 with one sentence when something is missing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "tools/kube"
PROGRAMS = ROOT / "build/kube"
NAMES = ("apiserver", "etcd")


def main() -> int:
    """Build both, print where they are."""
    go = shutil.which("go")
    if go is None:
        print("stanch: no go, by which the API server for the tests is built", file=sys.stderr)
        return 1
    if not all((PROGRAMS / name).exists() for name in NAMES):
        print("stanch: building kube-apiserver and etcd (ten minutes or more)", file=sys.stderr)
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    packages = [f"./{name}" for name in NAMES]
    command = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(PROGRAMS), *packages]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    if subprocess.run(command, cwd=MODULE, env=environment, stdout=sys.stderr).returncode:
        print("stanch: it cannot be built here; go's words are above", file=sys.stderr)
        return 1
    print(PROGRAMS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
