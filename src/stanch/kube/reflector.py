"""A copy of one kind of object, kept up to date: a list, then a watch that resumes.

The watch resumes from the last version that an event or a bookmark told, so that a connection that
breaks costs nothing. When the server has forgotten that version (410 Gone) the list is made anew,
and what changed meanwhile is found by comparison. While the server cannot be reached the copy stays
as it was, `error` says so, and it is asked again after pauses that grow to MOST_PAUSE_S.
"""

import asyncio
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stanch.kube.client import KubeClient
from stanch.kube.errors import KubeError

T = TypeVar("T")

PAGE = 500
MOST_PAUSE_S = 30.0
_FIRST_PAUSE_S = 0.25
_WATCH_S = (240, 360)
"""The server is asked to end a watch after so many seconds, at random: not all end at once."""

_QUICK_S = 1.0
_CATCH_UP_S = 5.0
"""What a watch tells within so long after its beginning may have happened before."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """An object that is new, changed or gone. live: it came by a watch that had been up for a
    while, so it has just happened. Otherwise it happened since `known_unix`, when the copy was last
    known to be up to date; 0 when it never was."""

    old: T | None
    new: T | None
    live: bool
    known_unix: float


class Reflector(Generic[T]):
    """Keeps what `keep` makes of each object; None leaves one out.

    `run` in an event loop; the rest may be called from any thread. heard: is told of each change,
    in order, in the loop's thread. what: the kind of objects, in words.
    """

    def __init__(
        self,
        client: KubeClient,
        path: str,
        keep: Callable[[Mapping[str, Any]], T | None],
        heard: Callable[[Change[T]], None],
        what: str,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._path = path
        self._keep = keep
        self._heard = heard
        self._what = what
        self._wall = wall
        self._monotonic = monotonic
        self._pause = pause
        self._version: str | None = None
        self._began_s = math.inf
        self._known_unix = 0.0
        self._failures = 0
        self._lock = threading.Lock()  # guards items and error
        self._items: dict[str, T] = {}
        self._error: str | None = f"{what} have not been listed yet"
        self._refused = False
        self.listed = threading.Event()
        """Set after the first try to list, whether it succeeded or not."""

    @property
    def items(self) -> tuple[T, ...]:
        """The objects as last known."""
        with self._lock:
            return tuple(self._items.values())

    @property
    def error(self) -> str | None:
        """Why the copy is not up to date; None when it is."""
        with self._lock:
            return self._error

    @property
    def refused(self) -> bool:
        """Whether it may not be read at all (403)."""
        with self._lock:
            return self._refused

    async def run(self) -> None:
        """List and watch for ever; ends by being cancelled only."""
        while True:
            try:
                if self._version is None:
                    await self._list()
                self._began_s = self._monotonic()
                events = await self._watch()
                if not events and self._monotonic() - self._began_s < _QUICK_S:
                    raise KubeError("it ends each watch at once")
                self._failures = 0
            except KubeError as error:
                await self._recover(error)
            finally:
                self.listed.set()

    async def _recover(self, error: KubeError) -> None:
        self._failures += 1
        if error.status == 410:
            self._version = None
            if self._failures == 1:
                return  # Nothing is wrong: it was away for longer than the server remembers.
        since = time.strftime("%H:%M:%S", time.localtime(self._known_unix))
        known = f" since {since}" if self._known_unix else ""
        with self._lock:
            self._error = f"{self._what} are not up to date{known}: {error}"
            self._refused = error.status == 403
        doubled = _FIRST_PAUSE_S * 2.0 ** min(self._failures, 10)
        pause_s = min(MOST_PAUSE_S, doubled) * random.uniform(0.5, 1.0)
        await self._pause(max(pause_s, min(error.retry_s or 0.0, MOST_PAUSE_S)))

    async def _list(self) -> None:
        found: dict[str, T] = {}
        parameters = {"limit": str(PAGE)}
        while True:
            answer = await self._client.get(self._path, parameters)
            for each in answer.get("items") or ():
                kept = self._keep(each)
                if kept is not None:
                    found[_key(each)] = kept
            about = answer.get("metadata") or {}
            if not about.get("continue"):
                break
            parameters = {"limit": str(PAGE), "continue": about["continue"]}
        version = about.get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise KubeError(f"{self._path} tells no version to watch from")
        self._began_s = math.inf
        before = self._items
        with self._lock:
            self._items, self._error, self._refused = found, None, False
        for key, new in found.items():
            if before.get(key) != new:
                self._tell(before.get(key), new)
        for key, old in before.items():
            if key not in found:
                self._tell(old, None)
        self._version = version
        self._known_unix = self._wall()
        self.listed.set()

    async def _watch(self) -> int:
        """Take in events until the server ends the watch; return how many there were."""
        parameters = {
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(random.randint(*_WATCH_S)),
        }
        count = 0
        async for event in self._client.watch(self._path, parameters):
            if event is None:
                with self._lock:
                    self._error = None
            else:
                count += 1
                self._failures = 0
                self._take(event)
                if self._is_live():
                    self._known_unix = self._wall()
        return count

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, each = event.get("type"), event.get("object")
        if not isinstance(each, dict):
            raise KubeError("an event has no object")
        version = (each.get("metadata") or {}).get("resourceVersion")
        if kind != "BOOKMARK":
            key, new = _key(each), self._keep(each)
            with self._lock:
                old = self._items.pop(key, None)
                if new is not None and kind != "DELETED":
                    self._items[key] = new
            if old != new:
                # With DELETED comes what it was in the end: containers that had ended before.
                self._tell(old, new)
            if kind == "DELETED" and new is not None:
                self._tell(new, None)
        if isinstance(version, str) and version:
            self._version = version

    def _tell(self, old: T | None, new: T | None) -> None:
        self._heard(Change(old, new, self._is_live(), self._known_unix))

    def _is_live(self) -> bool:
        return self._monotonic() - self._began_s >= _CATCH_UP_S


def _key(each: Mapping[str, Any]) -> str:
    about = each.get("metadata") or {}
    return f"{about.get('namespace', '')}/{about.get('name', '')}/{about.get('uid', '')}"
