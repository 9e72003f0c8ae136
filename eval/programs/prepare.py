"""What the programs need beside Stanch: released packages, the C extension, the Go program.

Everything is made once, in build/eval, by the tools that must be there: pip, a C compiler, Go.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from eval.programs.packages import NATIVE, RELEASES

_HERE = Path(__file__).parent
BUILD = _HERE.parents[1] / "build" / "eval"
_LONGEST_S = 300.0


def search_path(name: str, which: str) -> Path | None:
    """The folder a program must see first; None when it needs none. Makes it if need be.

    Raises subprocess.CalledProcessError when pip or the compiler fails.
    """
    if name in RELEASES:
        requirement = RELEASES[name][which != "leak"]
        folder = BUILD / requirement / "site-packages"
        if not folder.exists():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
            _run([*command, requirement], folder)
        return folder
    if name in NATIVE:
        folder = BUILD / "native" / "site-packages"
        if not folder.exists():
            folder.mkdir(parents=True)
            library = folder / f"leaky{sysconfig.get_config_var('EXT_SUFFIX')}"
            include = f"-I{sysconfig.get_paths()['include']}"
            source = str(_HERE / "native" / "leaky.c")
            flags = ["-shared", "-fPIC", "-O1", "-g", "-fno-omit-frame-pointer"]
            _run(["cc", *flags, include, "-o", str(library), source], folder)
        return folder
    return None


def go_program() -> Path:
    """The Go program, built if need be. Raises subprocess.CalledProcessError when Go fails."""
    program = BUILD / "goleaks"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        _run(["go", "build", "-o", str(program), "."], program, _HERE / "goleaks")
    return program


def _run(command: list[str], made: Path, at: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=at, check=True, timeout=_LONGEST_S)
    except BaseException:
        # What is half made must not be taken for whole the next time.
        shutil.rmtree(made, ignore_errors=True)
        raise
