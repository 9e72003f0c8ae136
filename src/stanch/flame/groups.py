"""Which package or module a frame belongs to, for the colours of the flame graph."""

from functools import lru_cache
from itertools import pairwise
from pathlib import PurePosixPath

from stanch.profile import Frame

# Below one of these, the next part of a path is a package; Python's own library is in python3.N.
_LIBRARIES = ("site-packages", "dist-packages")
_GO_FILE = ".go"
_MODULE = "<module>"
# What runs between the functions that people wrote; not worth a colour.
_PLUMBING = ("importlib", "runtime")


def group_of(frame: Frame) -> str:
    """Name a frame's group: Go's package, Python's top-level package, a binary, or "unknown"."""
    if frame.file.endswith(_GO_FILE) or _looks_like_go(frame):
        return _go_package(frame.name)
    if frame.file:
        return _python_package(frame.file)
    if frame.binary:
        return PurePosixPath(frame.binary).name
    return frame.name.rpartition(".")[0] or "unknown"


def is_plumbing(group: str) -> bool:
    """Whether a group is machinery of the language, such as imports or Go's runtime."""
    return group in _PLUMBING


def short_name(frame: Frame) -> str:
    """Give a frame's name without the directories of a Go package; for a module, its file's."""
    if not frame.name:
        return PurePosixPath(frame.file or frame.binary or "<unknown>").name
    if frame.name == _MODULE and frame.file:
        path = PurePosixPath(frame.file)
        is_package = path.name == "__init__.py"
        return f"{'/'.join(path.parts[-2:]) if is_package else path.name} {_MODULE}"
    name, bracket, type_arguments = frame.name.partition("[")
    return name.rpartition("/")[2] + bracket + type_arguments


def _looks_like_go(frame: Frame) -> bool:
    return not frame.file and "/" in frame.name.partition("[")[0]


def _go_package(name: str) -> str:
    """Cut the package off `host/path/pkg.(*Type).Method[arguments]`."""
    directory, slash, rest = name.partition("[")[0].rpartition("/")
    return directory + slash + rest.partition(".")[0] or "unknown"


@lru_cache(4096)  # A file is in many frames of a graph.
def _python_package(file: str) -> str:
    if file.startswith("<"):
        return file.strip("<>").removeprefix("frozen ").partition(".")[0] or "unknown"
    path = PurePosixPath(file)
    for part, package in reversed(list(pairwise(path.parts))):
        if part in _LIBRARIES or (part.startswith("python3") and package not in _LIBRARIES):
            return package.removesuffix(".py")
    return path.parent.name or path.stem or "unknown"
