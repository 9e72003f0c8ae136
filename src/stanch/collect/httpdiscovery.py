"""Targets that an HTTP server lists, in the format of Prometheus' HTTP service discovery.

    [{"targets": ["10.0.0.7:6060"], "labels": {"service": "shop", "__scheme__": "https"}}]

https://prometheus.io/docs/prometheus/latest/http_sd/
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from stanch.collect.errors import FetchError, TargetError
from stanch.collect.fetch import Connection
from stanch.collect.sizes import parse_size
from stanch.collect.targets import Target, TargetDefaults, parse_target

PREFIX = "sd+"
EVERY_S = 30.0
_TIMEOUT_S = 10.0
_FIRST_ANSWER_S = 3.0
_MAX_BYTES = 8 * 1024 * 1024
_MAX_TARGETS = 10_000
_SERVICE_LABELS = ("service", "service_name", "job")
_EXPECTED = (
    'expected a list such as [{"targets": ["10.0.0.7:6060"], "labels": {"service": "shop"}}]'
)


class HttpTargets:
    """The targets that a URL lists, asked again every `every_s` in a thread of its own.

    While it cannot be asked, or answers something else, the last good list holds.
    """

    def __init__(
        self, text: str, defaults: TargetDefaults | None = None, every_s: float = EVERY_S
    ) -> None:
        """Ask for the first time, and wait a little for the answer. Raises TargetError.

        text: `sd+http[s]://HOST:PORT/PATH`, with token_file= and ca= for that server. defaults:
        for the targets; they do not hold for the server that lists them.
        """
        address, _, options = text.removeprefix(PREFIX).partition(" ")
        url = urlsplit(address)
        self._server = parse_target(f"{url.scheme}://{url.netloc} {options}")
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._name = address
        self._defaults = defaults
        self._every_s = every_s
        self._listed: tuple[Target, ...] = ()
        self.error: str | None = None
        self._answered = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._asking = self._loop.create_task(self._ask_forever())
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)
        self._thread.start()
        self._answered.wait(_FIRST_ANSWER_S)

    def targets(self) -> tuple[Target, ...]:
        """The last good list."""
        return self._listed

    def close(self) -> None:
        """Ask no more."""
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(self._asking.cancel)
        self._thread.join(_TIMEOUT_S)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._asking)
        self._loop.close()

    async def _ask_forever(self) -> None:
        while True:
            try:
                async with Connection(self._server, _TIMEOUT_S) as connection:
                    data = await connection.get(self._path, _MAX_BYTES)
                self._listed, self.error = self._read(data)
            except (FetchError, ValueError) as error:
                self.error = f"{self._name}: {error}; going on with the targets it had before"
            self._answered.set()
            await asyncio.sleep(self._every_s)

    def _read(self, data: bytes) -> tuple[tuple[Target, ...], str | None]:
        """The targets of an answer, and why some of them are left out. Raises ValueError."""
        try:
            groups = json.loads(data)
        except ValueError as error:
            raise ValueError(f"the answer is not JSON ({error}); {_EXPECTED}") from error
        found: dict[tuple[str, str | None], Target] = {}
        refused = ""
        for address, labels in _listed(groups):
            try:
                target = self._target(address, labels)
            except (TargetError, ValueError) as error:
                refused = f"{self._name}: a target is left out: {error}"
                continue
            found.setdefault((target.base_url, target.unix_path), target)
            if len(found) > _MAX_TARGETS:
                raise ValueError(f"it lists more than {_MAX_TARGETS:,} targets; split it")
        return tuple(found.values()), refused or None

    def _target(self, address: str, labels: dict[str, str]) -> Target:
        """A target of the list. What a list says never names a file or a socket of this machine."""
        if "://" in address or address.startswith("unix:") or any(map(str.isspace, address)):
            raise TargetError(f"{address!r} is not HOST:PORT")
        target = parse_target(f"{labels.get('__scheme__', 'http')}://{address}", self._defaults)
        service = next((labels[name] for name in _SERVICE_LABELS if labels.get(name)), "")
        if service:
            target = replace(target, service=service)
        if labels.get("instance"):
            target = replace(target, instance=labels["instance"])
        if labels.get("limit"):
            target = replace(target, limit_bytes=parse_size(labels["limit"]))
        return target


def _listed(groups: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """The addresses of an answer, each with its labels. Raises ValueError."""
    if not isinstance(groups, list):
        raise ValueError(f"the answer is no list; {_EXPECTED}")
    for group in groups:
        addresses = group.get("targets") if isinstance(group, dict) else None
        labels = group.get("labels") or {} if isinstance(group, dict) else None
        if not isinstance(addresses, list) or not isinstance(labels, dict):
            raise ValueError(f"the answer has an entry without targets; {_EXPECTED}")
        texts = {str(key): str(value) for key, value in labels.items()}
        for address in addresses:
            if not isinstance(address, str):
                raise ValueError(f"the target {address!r} is no text; {_EXPECTED}")
            yield address, texts
