"""Makes the environment of this benchmark, and runs it there; see compare.py."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def enter_environment() -> None:
    """Go on with the interpreter of build/env-bench-3.x, which is made or renewed first."""
    if Path(sys.prefix).name.startswith("env-bench"):
        return
    command = [sys.executable, str(ROOT / "tools" / "environments.py"), "bench"]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        sys.exit(made.returncode)
    python = Path(made.stdout.strip()) / "bin" / "python"
    os.execv(python, [str(python), "-m", "benchmarks.peers", *sys.argv[1:]])


if __name__ == "__main__":
    enter_environment()
    from benchmarks.peers.compare import main

    main()
