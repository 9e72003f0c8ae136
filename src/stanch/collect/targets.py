"""What to watch: target strings and files of targets.

A target is `http[s]://HOST:PORT[/PREFIX]`, `unix:PATH`, or the path of a file with one target per
line, each followed by `key=value` options:

    # the shop
    https://10.0.0.1:6060  service=shop  limit=1GiB  token_file=/run/stanch/token  ca=/etc/ca.pem
    unix:/run/stanch/cart.sock  service=cart
"""

import ipaddress
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from stanch.collect.errors import TargetError
from stanch.collect.sizes import parse_size

_EXPECTED = (
    "expected http://HOST:PORT, https://HOST:PORT, unix:PATH, a file of targets or sd+http[s]://URL"
)
_OPTIONS = ("service", "instance", "limit", "token_file", "ca", "tls_name")
_MAX_FILE_BYTES = 1024 * 1024
_MAX_TARGETS = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Where one watched process answers.

    base_url: scheme, host and prefix, without a slash at the end; for a unix socket the host is
    "localhost". unix_path: the socket, or None. service: "" when the target is to tell it.
    limit_bytes: the user's word on the memory limit, which goes before the target's. tls_name: the
    name that its certificate must be for, where that is not its address.
    """

    base_url: str
    instance: str
    service: str = ""
    unix_path: str | None = None
    limit_bytes: int | None = None
    token_file: str | None = None
    ca_file: str | None = None
    tls_name: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the target runs on this machine as far as its address tells."""
        return self.unix_path is not None or is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def port(self) -> int | None:
        """The TCP port, None for a unix socket."""
        if self.unix_path is not None:
            return None
        url = urlsplit(self.base_url)
        return url.port or (443 if url.scheme == "https" else 80)


@dataclass(frozen=True, slots=True)
class TargetDefaults:
    """Options that hold for each target that does not say otherwise."""

    service: str = ""
    limit_bytes: int | None = None
    token_file: str | None = None
    ca_file: str | None = None


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_target(text: str, defaults: TargetDefaults | None = None) -> Target:
    """Read one target with its options. Raises TargetError."""
    try:
        address, *options = shlex.split(text)
    except ValueError as error:
        raise TargetError(f"{text!r} cannot be read as a target: {error}; {_EXPECTED}") from error
    known = defaults or TargetDefaults()
    target = replace(
        _address(address),
        service=known.service,
        limit_bytes=known.limit_bytes,
        token_file=known.token_file,
        ca_file=known.ca_file,
    )
    for option in options:
        target = _with_option(target, option)
    if target.token_file and target.base_url.startswith("http:") and not target.is_local:
        raise TargetError(
            f"{address} is not encrypted and not on this machine, so its token would be readable on"
            " the way; use https:// or leave out the token"
        )
    return target


def _address(address: str) -> Target:
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        if not path:
            raise TargetError(f"{address!r} names no socket; expected unix:PATH")
        return Target("http://localhost", instance=path, unix_path=path)
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError as error:
        raise TargetError(f"{address!r} is not a target: {error}; {_EXPECTED}") from error
    if url.scheme not in ("http", "https") or not url.hostname:
        hint = f", such as http://{address}" if _looks_like_host_port(address) else ""
        raise TargetError(f"{address!r} is not a target; {_EXPECTED}{hint}")
    if url.username or url.password or url.query or url.fragment:
        raise TargetError(
            f"the target at {url.hostname} carries a user, a query or a fragment; expected"
            " http[s]://HOST:PORT[/PREFIX] (a token goes into token_file=)"
        )
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    place = f"{host}:{port}" if port else host
    prefix = url.path.partition("/debug/pprof")[0].rstrip("/")
    return Target(f"{url.scheme}://{place}{prefix}", instance=f"{place}{prefix}")


def _looks_like_host_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdigit() and "/" not in host


def _with_option(target: Target, option: str) -> Target:
    key, separator, value = option.partition("=")
    if key not in _OPTIONS or not separator or not value:
        raise TargetError(
            f"{option!r} is not an option of a target; expected one of"
            f" {', '.join(f'{name}=...' for name in _OPTIONS)}"
        )
    match key:
        case "service":
            return replace(target, service=value)
        case "instance":
            return replace(target, instance=value)
        case "token_file":
            return replace(target, token_file=value)
        case "ca":
            return replace(target, ca_file=value)
        case "tls_name":
            return replace(target, tls_name=value)
    try:
        return replace(target, limit_bytes=parse_size(value))
    except ValueError as error:
        raise TargetError(f"limit={value} cannot be used: {error}") from error


def read_target_file(path: Path, defaults: TargetDefaults | None = None) -> tuple[Target, ...]:
    """Read a file of targets. Raises TargetError, which names the file and the line."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TargetError(f"cannot read the file of targets {path}: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise TargetError(f"{path} is larger than 1 MiB; expected a text file of targets")
    targets: dict[tuple[str, str | None], Target] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            target = parse_target(text.partition(" #")[0], defaults)
        except TargetError as error:
            raise TargetError(f"{path}, line {number}: {error}") from error
        key = (target.base_url, target.unix_path)
        if key in targets:
            raise TargetError(f"{path}, line {number}: {target.instance} is there twice")
        targets[key] = target
        if len(targets) > _MAX_TARGETS:
            raise TargetError(f"{path} has more than {_MAX_TARGETS} targets; split it")
    return tuple(targets.values())
