"""The server's file of settings, in TOML. Options of the command go before it.

listen = "127.0.0.1:4041"
targets = ["http://127.0.0.1:6060", "/etc/stanch/targets"]
every = "15s"
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stanch.collect.configuration import (
    ConfigurationError,
    Setting,
    read_toml,
    refuse_unknown,
    seconds_of,
)
from stanch.collect.targets import is_loopback

DEFAULT_LISTEN = "127.0.0.1:4041"
DEFAULT_LIFETIME_S = 30.0
_LEAST_EVERY_S = 0.5
_LEAST_LIFETIME_S = 3.0

SETTINGS = (
    Setting("listen", f"`{DEFAULT_LISTEN}`", "HOST:PORT; beyond loopback it needs TLS and tokens"),
    Setting("store", "`chdb`", "`chdb` for the data directory, or http[s]://... of a ClickHouse"),
    Setting("name", "`HOST:PORT`", "of this server among those that share a ClickHouse store"),
    Setting(
        "lifetime",
        f"`{DEFAULT_LIFETIME_S:g}s`",
        "a server without a sign for so long loses its services to others",
    ),
    Setting("targets", "none", "what to scrape: addresses, files, lists by HTTP, Kubernetes"),
    Setting("token_file", "none", "file with the bearer token for targets, read anew each time"),
    Setting("ca", "the system's", "PEM file that the certificates of targets are checked by"),
    Setting("every", "`15s`", "time between two scrapes of a target"),
    Setting("kubeconfig", "the pod's", "how to reach the cluster of `kubernetes:` targets"),
    Setting(
        "lease",
        "none",
        "[NAMESPACE/]NAME: of several servers the one that holds it alarms; not"
        " for servers that share a store",
    ),
    Setting("alarms", "none", "file of alarms, see docs/alarms.md"),
    Setting("tables", "none", "directories of live tables of `stanch run --table DIR`"),
    Setting("source", "none", "directories whose source files may be shown beside profiles"),
    Setting("tls_cert", "no TLS", "PEM certificate with its chain"),
    Setting("tls_key", "no TLS", "its key, unencrypted"),
    Setting("sender_rate", "`500`", "requests a second that one address may make; 0: no limit"),
    Setting("token_rate", "`500`", "pushes a second that one token may make; 0: no limit"),
    Setting("service_rate", "`400`", "profiles a second for one service; 0: no limit"),
    Setting("sender_services", "`1000`", "services a sender may push for in a day; 0: no limit"),
    Setting("require_tokens", "`false`", "ask for tokens on loopback too"),
    Setting("watch_self", "`true`", "whether the server is one of its own targets"),
)


_PATHS = ("alarms", "ca", "token_file", "kubeconfig", "tls_cert", "tls_key")


@dataclass(frozen=True, slots=True)
class ServerConfiguration:
    """All that a server is told; see SETTINGS."""

    data: Path
    listen: str = DEFAULT_LISTEN
    store: str = "chdb"
    name: str = ""
    lifetime_s: float = DEFAULT_LIFETIME_S
    targets: tuple[str, ...] = ()
    token_file: Path | None = None
    ca: Path | None = None
    every_s: float = 15.0
    kubeconfig: Path | None = None
    lease: str = ""
    alarms: Path | None = None
    tables: tuple[Path, ...] = ()
    source: tuple[Path, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    sender_rate: float = 500.0
    token_rate: float = 500.0
    service_rate: float = 400.0
    sender_services: int = 1000
    require_tokens: bool = False
    watch_self: bool = True

    @property
    def address(self) -> tuple[str, int]:
        """Host and port. Raises ConfigurationError."""
        host, colon, port = self.listen.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ConfigurationError(f"listen = {self.listen!r} is no address; expected HOST:PORT")
        return host, int(port)

    @property
    def needs_token(self) -> bool:
        """Whether a request must show a token."""
        return self.require_tokens or not is_loopback(self.address[0])


def checked(configuration: ServerConfiguration, has_tokens: bool) -> ServerConfiguration:
    """The configuration, when a server may run so. Raises ConfigurationError.

    Beyond loopback there must be TLS and a token. has_tokens: whether any token was made.
    """
    if (configuration.tls_cert is None) != (configuration.tls_key is None):
        raise ConfigurationError("TLS needs tls_cert and tls_key; only one of them is given")
    if not configuration.every_s >= _LEAST_EVERY_S:
        raise ConfigurationError(f"every: expected at least {_LEAST_EVERY_S:g}s")
    if not configuration.lifetime_s >= _LEAST_LIFETIME_S:
        raise ConfigurationError(f"lifetime: expected at least {_LEAST_LIFETIME_S:g}s")
    if configuration.lease and configuration.store.startswith(("http:", "https:")):
        raise ConfigurationError(
            "a lease is for servers with a store each, of which one alarms; those that share"
            f" {configuration.store.partition('@')[2] or configuration.store} divide the services"
            " among them, and each alarms of its own: leave the lease out"
        )
    host, _ = configuration.address
    if not is_loopback(host):
        missing = [] if configuration.tls_cert else ["TLS (tls_cert, tls_key)"]
        missing += [] if has_tokens else ["a token ('stanch token make NAME --role admin')"]
        if missing:
            raise ConfigurationError(
                f"{configuration.listen} can be reached from other machines, which needs"
                f" {' and '.join(missing)}; or listen on 127.0.0.1"
            )
    elif configuration.require_tokens and not has_tokens:
        raise ConfigurationError(
            "require_tokens is set and there is no token; 'stanch token make NAME --role admin'"
        )
    return configuration


def read_server_file(path: Path, base: ServerConfiguration) -> ServerConfiguration:
    """The base with what a file says. Raises ConfigurationError."""
    values = read_toml(path)
    try:
        refuse_unknown(values, sorted(setting.name for setting in SETTINGS))
        changes: dict[str, Any] = dict(_field(key, value) for key, value in values.items())
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return replace(base, **changes)


def _field(key: str, value: object) -> tuple[str, object]:
    """The field that a key sets, and its value."""
    if key in ("targets", "tables", "source"):
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return key, tuple(value if key == "targets" else map(Path, value))
        example = "http://127.0.0.1:6060" if key == "targets" else "/srv/shop"
        raise ConfigurationError(f'{key}: expected a list such as ["{example}"]')
    if key in ("require_tokens", "watch_self"):
        if isinstance(value, bool):
            return key, value
        raise ConfigurationError(f"{key}: expected true or false")
    if key == "sender_services":
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return key, value
        raise ConfigurationError(f"{key}: expected a number of services, 0 or more")
    if key in ("sender_rate", "token_rate", "service_rate"):
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return key, float(value)
        raise ConfigurationError(f"{key}: expected a number of requests a second, 0 or more")
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{key}: expected a text in quotes")
    if key in ("every", "lifetime"):
        return f"{key}_s", seconds_of(key, value)
    return key, Path(value) if key in _PATHS else value
