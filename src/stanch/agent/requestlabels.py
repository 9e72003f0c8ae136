"""The label of a request: its method and its route's template, or what can be said before that.

A request begins with a label from its path, in which whatever looks like an identity is {}. The
router of its framework then makes it the route's template: the object in the context stays the
same, so that the server's code around it, and tasks begun before, see that too.
"""

import contextlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from stanch.sampler import labels

MAX_PATHS = 200
"""Different paths that become labels before a route is known; later ones are one."""

_OTHER_PATHS = "[other paths]"
_MAX_SEGMENTS = 8
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET"}
)
# A number, an address of mail, a UUID or other hexadecimal, a token, or whatever is long.
_IDENTITY = re.compile(r"\d+|.*@.*|(?=.*\d)([0-9a-fA-F-]{8,}|.{16,})|.{41,}")

_paths: set[str] = set()
_on = False


class RequestLabel(labels.Label):
    """The label of one request, which its router renames."""

    __slots__ = ("_method", "_prefix")

    def __init__(self, method: str, path: str) -> None:
        self._method = method if method in _METHODS else "OTHER"
        self._prefix = ""
        super().__init__(f"{self._method} {path_label(path)}")

    def mounted(self, prefix: str) -> None:
        """Put `prefix` before the templates that follow; it is all there is to say till then."""
        self._prefix += _printable(prefix.rstrip("/"))
        if self._prefix:
            self.route = f"{self._method} {self._prefix}/..."

    def routed(self, template: str) -> None:
        """Take the template of the route."""
        self.route = f"{self._method} {self._prefix}{_slashed(template)}"


def switch(on: bool) -> None:
    """Label requests from now on, or no longer."""
    global _on
    _on = on and labels.core is not None


def request_label(method: object, path: object) -> RequestLabel | None:
    """Return the label for a request that begins; None when requests get none. Never raises."""
    if not _on:
        return None
    try:
        return RequestLabel(str(method), str(path))
    except Exception:
        return None


def environ_label(environ: Mapping[str, Any]) -> RequestLabel | None:
    """Return the label for a request by its WSGI environ, as `request_label` does."""
    if not _on:
        return None
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    if not path.isascii():  # WSGI has bytes of UTF-8 in the guise of Latin-1
        with contextlib.suppress(UnicodeError):
            path = path.encode("latin-1").decode()
    return request_label(environ.get("REQUEST_METHOD"), path)


def current() -> RequestLabel | None:
    """Return the label of the request that this context serves, unless the host put its own."""
    found = labels.current()
    return found if isinstance(found, RequestLabel) else None


def path_label(path: str) -> str:
    """Return a path with what looks like an identity as {}; at most MAX_PATHS different ones."""
    text = _templated(path)
    if text in _paths:
        return text
    if len(_paths) >= MAX_PATHS:
        return _OTHER_PATHS
    _paths.add(text)
    return text


@lru_cache(maxsize=512)
def _templated(path: str) -> str:
    segments = path[:2000].strip("/").split("/")
    kept = ["{}" if _IDENTITY.fullmatch(each) else each for each in segments[:_MAX_SEGMENTS]]
    if len(segments) > _MAX_SEGMENTS:
        kept.append("...")
    return _printable("/" + "/".join(kept))


def _slashed(template: str) -> str:
    return _printable(template if template.startswith("/") else f"/{template}")


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
