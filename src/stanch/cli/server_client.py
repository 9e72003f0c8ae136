"""Requests of commands to a server over HTTP: its address, its token, and trying again.

Redirects are not followed, as one could lead the token elsewhere, and the environment's proxies
are not used.
"""

import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from stanch.cli.errors import CliError
from stanch.collect import TargetError, parse_target

_TIMEOUT_S = 30.0
_LONGEST_PAUSE_S = 60.0
_AGAIN = (429, 503)


def open_client(
    url: str, token_file: Path | None, ca: str | None, headers: Mapping[bytes, bytes]
) -> httpx.Client:
    """A client of one server. Raises CliError for an address or a file that cannot be used."""
    options = f" token_file={token_file}" if token_file else ""
    try:
        target = parse_target(f"{url}{options}")
    except TargetError as error:
        raise CliError(f"--url: {error}", 2) from error
    sent = {b"User-Agent": b"stanch", **headers}
    try:
        if token_file is not None:
            sent[b"Authorization"] = f"Bearer {token_file.read_text().strip()}".encode()
        verify = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise CliError(f"cannot read {error.filename or ca}: {error.strerror}") from error
    return httpx.Client(
        base_url=target.base_url,
        headers=sent,
        timeout=_TIMEOUT_S,
        verify=verify,
        follow_redirects=False,
        trust_env=False,
    )


def ask(
    client: httpx.Client, method: str, path: str, until_s: float, *, body: bytes = b""
) -> httpx.Response:
    """The server's answer; while it is full, busy or away it is asked again, as late as it says.

    until_s: by the monotonic clock; later than this it is not asked again, and the last answer
    is returned. Raises CliError when there was none.
    """
    for pause_s in _pauses():
        try:
            answer = client.request(method, path, content=body)
            if answer.status_code not in _AGAIN:
                return answer
            asked = answer.headers.get("Retry-After", "")
            if asked.isascii() and asked.isdigit():
                pause_s = min(float(asked), _LONGEST_PAUSE_S)
            if time.monotonic() + pause_s > until_s:
                return answer
        except httpx.HTTPError as error:
            if time.monotonic() + pause_s > until_s:
                raise CliError(f"cannot reach {client.base_url}: {error}", 2) from error
        time.sleep(pause_s)
    raise AssertionError  # _pauses() has no end


def _pauses() -> Iterator[float]:
    pause_s = 0.5
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
