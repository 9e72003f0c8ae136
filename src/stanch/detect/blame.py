"""Which frame of a stack to blame: the innermost one that is the user's own code.

Library code is the standard library, installed packages, frozen and generated code, the agent
itself; for Go the standard library, the module cache and vendored packages. When a stack has no
frame of its own at all, the innermost one outside the standard library is taken, else the leaf.
What started an event loop has not asked for what the loop runs: frames above the loop don't count.

Native frames, which the stacks of native memory begin with, are never blamed where there is a line
that called them; `taken_by` names the one that took the memory.
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
_C_RUNTIME = re.compile(r"(^|/)(lib(c|m|dl|pthread|gcc_s|stdc\+\+|c\+\+)|ld-linux[^/]*)[.-][^/]*$")
_GO_FOREIGN = re.compile(r"/pkg/mod/|(^|/)vendor/|(^|/)[^/@]+@v\d")
_GO_STDLIB = frozenset(
    """archive arena bufio bytes cmp compress container context crypto database debug embed
    encoding errors expvar flag fmt go hash html image index internal io iter log maps math mime
    net os path plugin reflect regexp runtime slices sort strconv strings structs sync syscall
    testing text time type: unicode unique unsafe vendor weak""".split()  # noqa: SIM905 -- 50 lines
)


def blamed(stack: Stack) -> Frame:
    """The frame to name for a stack, which is leaf first and not empty.

    It is remembered by frame, not by stack: to hash a stack takes longer than to walk it.
    """
    for frame in stack:
        if not is_library(frame):
            return frame
        if is_dispatch(frame):
            break
    foreign = next((frame for frame in stack if not _is_stdlib(frame)), None)
    return foreign or taken_by(stack) or stack[0]


@lru_cache(maxsize=65_536)
def is_dispatch(frame: Frame) -> bool:
    """Whether an event loop calls from here what others have handed to it."""
    return frame.function == "Handle._run" and frame.file.endswith("asyncio/events.py")


def is_native(frame: Frame) -> bool:
    """Whether a frame is machine code that no line of the program's own language stands for."""
    return frame.line == 0 and bool(frame.file) and not _is_go(frame)


@lru_cache(maxsize=65_536)
def taken_by(stack: Stack) -> Frame | None:
    """The native function that took the memory of a stack: the innermost outside the C runtime.

    None when the memory is the program's own language's.
    """
    if not stack or not is_native(stack[0]):
        return None
    native = [frame for frame in stack if is_native(frame)]
    return next((frame for frame in native if not _C_RUNTIME.search(frame.file)), stack[0])


@lru_cache(maxsize=65_536)
def _serves_request(frame: Frame) -> bool:
    return frame.file.endswith("stanch/agent/middleware.py")


def is_in_request(stack: Stack) -> bool:
    """Whether the agent's middleware for requests is on this stack, above what is blamed.

    Work that a request has handed to a thread or a task of its own is not in it.
    """
    for frame in stack:
        if is_dispatch(frame):
            return False
        if _serves_request(frame):
            return True
    return False


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
    return _is_foreign_file(frame.file)


def _is_stdlib(frame: Frame) -> bool:
    if _is_go(frame):
        # The package of "net/http.(*conn).serve" begins with net, that of "main.main" is main.
        package = frame.function.partition("(")[0].partition("[")[0]
        first, slash, _ = package.partition("/")
        return (first if slash else first.partition(".")[0]) in _GO_STDLIB
    if not frame.file or frame.file.startswith("<") or is_native(frame):
        return True
    return _is_stdlib_file(frame.file)


# A service has many lines in few files.
@lru_cache(maxsize=65_536)
def _is_foreign_file(file: str) -> bool:
    return any(pattern.search(file) for pattern in (_INSTALLED, _AGENT, _ENTRY_SCRIPT))


@lru_cache(maxsize=65_536)
def _is_stdlib_file(file: str) -> bool:
    return bool(_PYTHON_STDLIB.search(file))


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
