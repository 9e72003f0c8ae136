"""Calls back once a module of the host has been imported, without importing it.

A finder in front of sys.meta_path lets the others find the module and wraps its loader until the
module has run. It leaves as soon as every awaited module was seen.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from stanch.agent.warn import warn

ModuleCallback = Callable[[ModuleType], None]


def when_imported(name: str, callback: ModuleCallback) -> None:
    """Call `callback` with the module once it is imported; at once if it is already.

    An error of the callback is one line on stderr, never the importer's.
    """
    module = sys.modules.get(name)
    if module is not None:
        _call(callback, module)
        return
    finder = next((f for f in sys.meta_path if isinstance(f, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.awaited[name] = callback


def _call(callback: ModuleCallback, module: ModuleType) -> None:
    try:
        callback(module)
    except Exception as error:
        warn(f"{module.__name__} stays as it is: {error!r}")


class _Finder:
    """A meta path finder for the awaited names only."""

    def __init__(self) -> None:
        self.awaited: dict[str, ModuleCallback] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self.awaited:
            return None
        callback = self.awaited.pop(name)
        if not self.awaited and self in sys.meta_path:
            sys.meta_path.remove(self)
        try:
            spec = self._others_find(name, path, target)
        except Exception:
            return None  # the import system asks them again, and reports what they raise
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            wrapped: Any = _Loader(spec.loader, callback)
            spec.loader = wrapped
        return spec

    def _others_find(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in list(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is None or finder is self:
                continue
            spec: importlib.machinery.ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                return spec
        return None


class _Loader:
    """Stands before a module's own loader until the module has run."""

    def __init__(self, loader: Any, callback: ModuleCallback) -> None:
        self._loader = loader
        self._callback = callback

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _call(self._callback, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
