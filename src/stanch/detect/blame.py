"""Which frame of a stack to blame: the innermost one that is the user's own code.

Library code is the standard library, installed packages, frozen and generated code, the agent
itself; for Go the standard library, the module cache and vendored packages. When a stack has no
frame of its own at all, the innermost one outside the standard library is taken, else the leaf.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath

from stanch.store import Frame, Stack

_PYTHON_STDLIB = re.compile(r"(^|/)lib(64)?/python3(\d*\.zip|(\.\d+t?)?/(?!(site|dist)-packages/))")
_INSTALLED = re.compile(r"(^|/)(site|dist)-packages/")
_ENTRY_SCRIPT = re.compile(r"(^|/)bin/[^/.]+$")
_AGENT = re.compile(r"(^|/)stanch/(agent|sampler|profile)/")
_COMPREHENSION = re.compile(r"(\.<locals>\.<(listcomp|dictcomp|setcomp|genexpr)>)+$")
_GO_FOREIGN = re.compile(r"/pkg/mod/|(^|/)vendor/|(^|/)[^/@]+@v\d")
_GO_STDLIB = frozenset(
    """archive arena bufio bytes cmp compress container context crypto database debug embed
    encoding errors expvar flag fmt go hash html image index internal io iter log maps math mime
    net os path plugin reflect regexp runtime slices sort strconv strings structs sync syscall
    testing text time type: unicode unique unsafe vendor weak""".split()  # noqa: SIM905 -- 50 lines
)


@lru_cache(maxsize=65_536)
def blamed(stack: Stack) -> Frame:
    """The frame to name for a stack, which is leaf first and not empty."""
    return next(
        (frame for frame in stack if not is_library(frame)),
        next((frame for frame in stack if not _is_stdlib(frame)), stack[0]),
    )


def function_name(frame: Frame) -> str:
    """The function of a frame; a comprehension is its function's own code, as from 3.12 on."""
    return _COMPREHENSION.sub("", frame.function)


@lru_cache(maxsize=65_536)
def is_library(frame: Frame) -> bool:
    """Whether a frame is other people's code."""
    if _is_stdlib(frame):
        return True
    if _is_go(frame):
        return bool(_GO_FOREIGN.search(frame.file))
    foreign = (_INSTALLED, _AGENT, _ENTRY_SCRIPT)
    return any(pattern.search(frame.file) for pattern in foreign)


def _is_stdlib(frame: Frame) -> bool:
    if _is_go(frame):
        # The package of "net/http.(*conn).serve" begins with net, that of "main.main" is main.
        package = frame.function.partition("(")[0].partition("[")[0]
        first, slash, _ = package.partition("/")
        return (first if slash else first.partition(".")[0]) in _GO_STDLIB
    return not frame.file or frame.file.startswith("<") or bool(_PYTHON_STDLIB.search(frame.file))


def _is_go(frame: Frame) -> bool:
    return frame.file.endswith((".go", ".s"))


def short_names(files: Iterable[str]) -> dict[str, str]:
    """For each file its shortest ending that no other of them shares, of at least two parts."""
    parts = {file: PurePosixPath(file).parts for file in files}
    names: dict[str, str] = {}
    for file, own in parts.items():
        others = [other for name, other in parts.items() if name != file]
        count = min(2, len(own))
        while count < len(own) and any(other[-count:] == own[-count:] for other in others):
            count += 1
        names[file] = str(PurePosixPath(*own[-count:])) if count else file
    return names
