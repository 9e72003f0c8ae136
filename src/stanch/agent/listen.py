"""Where the endpoint listens: its options, its address, and the socket bound to it.

Takes "unix:PATH" or "HOST:PORT"; gives a listening socket. A socket file has mode 0600 from its
first moment, and one that is left over is replaced only when nobody answers on it. Everything that
cannot be had is one EndpointError.
"""

import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

_BACKLOG = 64
_MAX_UNIX_PATH_BYTES = 107  # sizeof(sockaddr_un.sun_path) on Linux less the final NUL
_PROBE_S = 0.5
_EXPECTED = 'expected "unix:PATH" or "HOST:PORT", such as 127.0.0.1:6060'


class EndpointError(Exception):
    """The endpoint cannot listen as asked; says what was given, what was expected, what to do."""


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """How the endpoint listens and what it may tell.

    listen: "unix:PATH" or "HOST:PORT"; port 0 takes any free one.
    tls_cert, tls_key: for HOST:PORT; a unix socket is private to its user and never speaks TLS.
    socket_directory: where the relatives of this run listen as PID.sock; None when alone.
    cmdline: whether /debug/pprof/cmdline is served; it may hold secrets.
    recycle: whether workers may be asked to end at /debug/stanch/end.
    """

    listen: str
    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    socket_directory: Path | None = None
    cmdline: bool = False
    recycle: bool = False
    service: str = ""
    instance: str = ""
    release: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket's path, or a host and port."""

    path: str | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_listen(text: str) -> Address:
    """Read where to listen. An empty host means every interface. Raises EndpointError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        size = len(os.fsencode(path))
        if not path or "\0" in path:
            raise EndpointError(f"{text!r} names no socket file; {_EXPECTED}")
        if size > _MAX_UNIX_PATH_BYTES:
            raise EndpointError(
                f"the socket path {path} has {size} bytes, the kernel takes at most "
                f"{_MAX_UNIX_PATH_BYTES}; name a shorter one"
            )
        return Address(path=path)
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise EndpointError(f"{text!r} is ambiguous; write an IPv6 address in brackets: [::1]:6060")
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise EndpointError(f"{text!r} is no address to listen on; {_EXPECTED}")
    return Address(host=host, port=int(port))


def resolve(address: Address) -> tuple[int, tuple[str, int]]:
    """Return the address family and the numeric (host, port) to bind. Raises EndpointError."""
    try:
        found = socket.getaddrinfo(
            address.host or None,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except (OSError, UnicodeError) as error:
        raise EndpointError(
            f"the host {address.host!r} to listen on is unknown: {error}; name an address of "
            "this machine, such as 127.0.0.1"
        ) from error
    family, _, _, _, where = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, (str(where[0]), int(where[1]))


def is_loopback(address: Address) -> bool:
    """Return whether only this machine can reach the address. Raises EndpointError."""
    if address.path is not None:
        return True
    _, (host, _) = resolve(address)
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def bind(address: Address) -> socket.socket:
    """Return a listening socket that does not block. Raises EndpointError."""
    listener = None
    try:
        if address.path is not None:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            _bind_unix(listener, address.path)
        else:
            family, where = resolve(address)
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise EndpointError(
            f"cannot listen on {address}: {error.strerror or error}; name another address"
        ) from error
    except EndpointError:
        if listener is not None:
            listener.close()
        raise
    return listener


def bound_address(listener: socket.socket, asked: Address) -> Address:
    """Return the address of a bound socket, with the port that the kernel chose."""
    if asked.path is not None:
        return asked
    host, port = listener.getsockname()[:2]
    return Address(host=host, port=port)


def _bind_unix(listener: socket.socket, path: str) -> None:
    # The file takes the mode of the socket's own inode, so there is no moment at which others
    # may connect, and the umask, which belongs to the host, stays as it is.
    os.fchmod(listener.fileno(), 0o600)
    try:
        listener.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        _remove_stale(path)
        listener.bind(path)
    Path(path).chmod(0o600)


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise EndpointError(f"{path} exists and is no socket; name another path to listen on")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            Path(path).unlink(missing_ok=True)
            return
        except OSError as error:
            raise EndpointError(
                f"{path} is in use and does not answer: {error.strerror or error}; "
                "name another path to listen on"
            ) from error
    raise EndpointError(f"another process answers on {path}; name another path to listen on")
