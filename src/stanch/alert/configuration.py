"""The file of alarms: whom to tell, when, and of which services. TOML; docs/alarms.md has each key.

fire_at = "confirmed"

[[receiver]]
type = "alertmanager"
url = "http://127.0.0.1:9093"

[[receiver]]
name = "shop's channel"
type = "apprise"
url_file = "/run/secrets/slack"
services = ["shop", "pay*"]
"""

import fnmatch
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from stanch.alert.lifecycle import Policy
from stanch.alert.receivers import Receiver
from stanch.alert.receivers.alertmanager import AlertmanagerReceiver
from stanch.alert.receivers.secrets import FileToken, SecretError, read_secret
from stanch.alert.receivers.webhook import WebhookReceiver
from stanch.collect.configuration import (
    ConfigurationError,
    Setting,
    read_toml,
    refuse_unknown,
    seconds_of,
)
from stanch.collect.targets import is_loopback
from stanch.detect import STAGES

TYPES = ("alertmanager", "webhook", "apprise")
TIMEOUT_S = 10.0
_MOST_RECEIVERS = 50

SETTINGS = (
    Setting("fire_at", "`confirmed`", "from which stage on a leak fires"),
    Setting("hold", "`0s`", "for how long it must have had that stage"),
    Setting("resolve_after", "`10m`", "it is over when looks have not shown it for so long"),
    Setting("worse_factor", "`2`", "growing so many times as fast as told is told as worse"),
    Setting("worse_after", "`30m`", "but not sooner than this after the last message"),
    Setting("link", "none", "a link put into messages; `{service}` and `{fingerprint}` are filled"),
)
RECEIVER_SETTINGS = (
    Setting("type", "must be given", "`alertmanager`, `webhook` or `apprise`"),
    Setting("name", "the type", "how the receiver is called; no two alike"),
    Setting("url", "`url` or `url_file` must be given", "where it is; for apprise an apprise URL"),
    Setting("url_file", "", "file with that URL, for URLs that are secrets"),
    Setting("services", '`["*"]`', "of which services it is told, as patterns"),
    Setting("token_file", "no token", "file with a token, sent as `Authorization: Bearer`"),
    Setting("ca", "the system's", "certificates to trust, PEM"),
)


@dataclass(frozen=True, slots=True)
class ReceiverSpec:
    """One receiver as the file describes it. url is a secret: it is left out of `repr`."""

    name: str
    type: str
    url: str = field(repr=False)
    services: tuple[str, ...] = ("*",)
    token_file: str | None = None
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class AlarmConfiguration:
    """All that the file says."""

    policy: Policy = field(default_factory=Policy)
    receivers: tuple[ReceiverSpec, ...] = ()
    link: str = ""

    def receivers_of(self, service: str) -> tuple[str, ...]:
        """Return the names of those who are told of a service."""
        return tuple(
            receiver.name
            for receiver in self.receivers
            if any(fnmatch.fnmatchcase(service, pattern) for pattern in receiver.services)
        )


def read_configuration(path: Path) -> AlarmConfiguration:
    """Read a file of alarms. Raises ConfigurationError."""
    values = read_toml(path)
    try:
        return _configuration(values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _configuration(values: Mapping[str, Any]) -> AlarmConfiguration:
    refuse_unknown(values, sorted(("receiver", *(setting.name for setting in SETTINGS))))
    default = Policy()
    fire_at = values.get("fire_at", default.fire_at)
    if fire_at not in STAGES:
        raise ConfigurationError(f"fire_at is {fire_at!r}; expected one of {', '.join(STAGES)}")
    factor = values.get("worse_factor", default.worse_factor)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 1:
        raise ConfigurationError(f"worse_factor is {factor!r}; expected a number above 1")
    policy = Policy(
        fire_at=fire_at,
        hold_s=_seconds(values, "hold", default.hold_s),
        resolve_after_s=_seconds(values, "resolve_after", default.resolve_after_s),
        worse_factor=float(factor),
        worse_after_s=_seconds(values, "worse_after", default.worse_after_s),
    )
    tables = values.get("receiver", [])
    if not isinstance(tables, list) or len(tables) > _MOST_RECEIVERS:
        raise ConfigurationError(f"receivers are [[receiver]] tables, at most {_MOST_RECEIVERS}")
    receivers = tuple(_receiver(table) for table in tables)
    names = [receiver.name for receiver in receivers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"two receivers are called {name!r}; give each a name")
    return AlarmConfiguration(policy, receivers, _text(values, "link", ""))


def _receiver(table: object) -> ReceiverSpec:
    if not isinstance(table, dict):
        raise ConfigurationError("a receiver is a [[receiver]] table")
    known = sorted(setting.name for setting in RECEIVER_SETTINGS)
    refuse_unknown(table, known, "receiver: ")
    kind = table.get("type")
    if kind not in TYPES:
        raise ConfigurationError(f"receiver: type is {kind!r}; expected one of {', '.join(TYPES)}")
    name = _text(table, "name", kind)
    if ("url" in table) == ("url_file" in table):
        raise ConfigurationError(f"receiver {name}: expected one of url and url_file")
    try:
        url = _text(table, "url", "") or read_secret(Path(_text(table, "url_file", "")))
    except SecretError as error:
        raise ConfigurationError(f"receiver {name}: {error}") from error
    if kind != "apprise" and not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"receiver {name}: the URL must begin with http:// or https://")
    services = table.get("services", ["*"])
    if not isinstance(services, list) or not all(isinstance(one, str) for one in services):
        raise ConfigurationError(f"receiver {name}: services is a list of names")
    return ReceiverSpec(
        name=name,
        type=kind,
        url=url,
        services=tuple(services),
        token_file=_text(table, "token_file", "") or None,
        ca=_text(table, "ca", "") or None,
    )


def make_receivers(
    configuration: AlarmConfiguration, wall: Callable[[], float]
) -> dict[str, Receiver]:
    """Return the receivers by name. Raises ConfigurationError for what cannot be used."""
    return {spec.name: _make(spec, wall) for spec in configuration.receivers}


def _make(spec: ReceiverSpec, wall: Callable[[], float]) -> Receiver:
    try:
        return _made(spec, wall)
    except (SecretError, ValueError) as error:
        raise ConfigurationError(f"receiver {spec.name}: {error}") from error


def _made(spec: ReceiverSpec, wall: Callable[[], float]) -> Receiver:
    if spec.type == "apprise":
        try:
            from stanch.alert.receivers.messenger import MessengerReceiver
        except ModuleNotFoundError as error:
            raise ValueError(
                f"it needs the package {error.name}; pip install 'stanch[alert]'"
            ) from error
        return MessengerReceiver(spec.url)
    if spec.token_file:
        read_secret(Path(spec.token_file))
    try:
        trust = ssl.create_default_context(cafile=spec.ca)
    except OSError as error:
        raise ValueError(f"cannot use ca={spec.ca}: {error}") from error
    client = httpx.Client(
        headers={"User-Agent": "stanch"},
        auth=FileToken(Path(spec.token_file)) if spec.token_file else None,
        timeout=TIMEOUT_S,
        verify=trust,
        follow_redirects=False,
        trust_env=not is_loopback(urlsplit(spec.url).hostname or ""),  # no proxy to this machine
    )
    if spec.type == "alertmanager":
        return AlertmanagerReceiver(client, spec.url, wall)
    return WebhookReceiver(client, spec.url)


def _text(values: Mapping[str, Any], key: str, default: str) -> str:
    text = values.get(key, default)
    if not isinstance(text, str):
        raise ConfigurationError(f"{key} is {text!r}; expected a text")
    return text


def _seconds(values: Mapping[str, Any], key: str, default: float) -> float:
    return seconds_of(key, values[key]) if key in values else default
