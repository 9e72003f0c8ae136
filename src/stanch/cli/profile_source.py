"""Where a report's profile comes from: a file, or a URL of a process that serves profiles."""

import asyncio
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stanch.cli.errors import CliError
from stanch.profile import Limits, Profile, ProfileError, merge, parse

DEFAULT_PATH = "/debug/pprof/heap"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to ask a URL. seconds: for how long the process is to collect, None for its default."""

    token_file: str | None = None
    ca_file: str | None = None
    timeout_s: float = 60.0
    seconds: int | None = None


def load(sources: list[str], options: FetchOptions) -> Profile:
    """Read profiles and merge them. Raises CliError, which names the source at fault."""
    profiles = [_load_one(source, options) for source in sources]
    if len(profiles) == 1:
        return profiles[0]
    try:
        return merge(profiles)
    except ProfileError as error:
        raise CliError(f"cannot merge {', '.join(sources)}: {error}") from error


def _load_one(source: str, options: FetchOptions) -> Profile:
    data = _fetch(source, options) if is_url(source) else _read(source)
    try:
        return parse(data)
    except ProfileError as error:
        raise CliError(f"{source}: {error}") from error


def is_url(source: str) -> bool:
    """Whether a source is asked over HTTP rather than read from a file."""
    return source.startswith(("http://", "https://", "unix:"))


def _read(source: str) -> bytes:
    limit = Limits().compressed_bytes
    try:
        with Path(source).open("rb") as file:
            # One byte more than allowed is enough for `parse` to refuse it.
            return file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CliError(
            f"cannot read {source}: {reason}; expected a profile's file, an http(s):// URL or"
            " unix:SOCKET"
        ) from error


def _fetch(source: str, options: FetchOptions) -> bytes:
    address, path = split_url(source)
    if options.seconds is not None:
        path += f"{'&' if '?' in path else '?'}seconds={options.seconds}"
    return fetch(source, address, path, options)


def fetch(source: str, address: str, path: str, options: FetchOptions) -> bytes:
    """Ask a target's address for a path; `source` is what the user wrote. Raises CliError."""
    try:
        from stanch.collect.errors import FetchError, TargetError
        from stanch.collect.fetch import Connection
        from stanch.collect.targets import TargetDefaults, parse_target
    except ImportError as error:
        raise CliError(
            f"asking {source} needs an HTTP client; run pip install 'stanch[cli]'", 2
        ) from error

    timeout_s = options.timeout_s + (options.seconds or 0)

    async def get() -> bytes:
        async with Connection(target, timeout_s) as connection:
            return await connection.get(path, Limits().compressed_bytes)

    try:
        defaults = TargetDefaults(token_file=options.token_file, ca_file=options.ca_file)
        target = parse_target(shlex.quote(address), defaults)
        return asyncio.run(get())
    except TargetError as error:
        raise CliError(str(error), 2) from error
    except FetchError as error:
        raise CliError(f"{source}: {error}") from error


def split_url(source: str, default_path: str = DEFAULT_PATH) -> tuple[str, str]:
    """Split a source into a target's address and the path to ask there, `default_path` if none.

    A unix socket's path ends where the socket is: `unix:/run/app.sock/debug/pprof/allocs`.
    """
    if source.startswith("unix:"):
        socket, path = _split_socket(source.removeprefix("unix:").removeprefix("//"))
        return f"unix:{socket}", path or default_path
    try:
        url = urlsplit(source)
    except ValueError as error:
        raise CliError(f"{source!r} is not a URL: {error}; expected http://HOST:PORT", 2) from error
    path = url.path if url.path.strip("/") else default_path
    return f"{url.scheme}://{url.netloc}", f"{path}?{url.query}" if url.query else path


def _split_socket(text: str) -> tuple[str, str]:
    """Find the socket among the beginnings of `text`; where there is none, take all of it."""
    ends = [at for at, each in enumerate(text) if each == "/" and at]
    for end in (*ends, len(text)):
        try:
            if stat.S_ISSOCK(Path(text[:end]).stat().st_mode):
                return text[:end], text[end:].strip("/") and text[end:]
        except (OSError, ValueError):
            continue  # no such file: the socket's path goes on
    return text, ""
