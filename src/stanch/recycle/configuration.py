"""The file of recycling: which services, when, and by what. TOML; docs/recycling.md has each key.

[[service]]
service = "shop"
lead = "3m"
backend = "command"
end_command = ["docker", "restart", "{instance}"]
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stanch.collect.sizes import parse_duration_s
from stanch.recycle.backends import Backend
from stanch.recycle.backends.command import CommandBackend, systemd_backend
from stanch.recycle.policy import RecyclePolicy

BACKENDS = ("worker", "command", "systemd")
_MAX_FILE_BYTES = 1024 * 1024
_MOST = 1000


class RecycleConfigurationError(ValueError):
    """The file cannot be used; the text names the key and what is expected."""


@dataclass(frozen=True, slots=True)
class RecycleSetting:
    """One key of a [[service]] table: its default in words, and what it means."""

    name: str
    default: str
    help: str


SETTINGS = (
    RecycleSetting("service", "must be given", "name or pattern of services; the first that fits"),
    RecycleSetting("backend", "must be given", "`worker`, `command` or `systemd`"),
    RecycleSetting("lead", "`2m`", "a replica that leaks is due so long before its death"),
    RecycleSetting("at", "`0.85`", "or when its memory is at this share of its limit"),
    RecycleSetting("most_at_once", "`1`", "so many at a time"),
    RecycleSetting("quorum", "`0.5`", "this share of the replicas stays healthy, one at least"),
    RecycleSetting("spacing", "`30s`", "between two beginnings"),
    RecycleSetting("per_hour", "`12`", "so many within an hour; then it stops and alarms"),
    RecycleSetting("drain", "`30s`", "how long requests in flight are waited for"),
    RecycleSetting("settle", "`5s`", "how long, where nobody tells how many there are"),
    RecycleSetting("end", "`60s`", "how long a command, or the end of a worker, may take"),
    RecycleSetting("ready", "`3m`", "how long until it must be healthy again"),
    RecycleSetting("end_command", "none", "of `command`: ends a replica and starts another"),
    RecycleSetting("drain_command", "none", "of `command`: takes it out of the load balancer"),
    RecycleSetting("restore_command", "none", "of `command`: puts it back, also after a failure"),
    RecycleSetting("unit", "none", "of `systemd`: the unit, such as `shop@{instance}.service`"),
)
_DURATIONS = ("lead", "spacing", "drain", "settle", "end", "ready")
_COMMANDS = ("end_command", "drain_command", "restore_command")


def read_policies(
    path: Path, worker: Callable[[], Backend], *, dry_run: bool = False
) -> list[tuple[RecyclePolicy, Backend]]:
    """Read a file of recycling. worker: makes the back end of that name.

    Raises RecycleConfigurationError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        values = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise RecycleConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecycleConfigurationError(f"{path} is no TOML: {error}") from error
    try:
        tables = values.get("service", [])
        if set(values) - {"service"} or not isinstance(tables, list) or not tables:
            raise RecycleConfigurationError("expected [[service]] tables, and nothing else")
        found = [_service(table, worker) for table in tables]
    except RecycleConfigurationError as error:
        raise RecycleConfigurationError(f"{path}: {error}") from error
    return [(replace(policy, dry_run=dry_run), backend) for policy, backend in found]


def _service(table: object, worker: Callable[[], Backend]) -> tuple[RecyclePolicy, Backend]:
    if not isinstance(table, dict):
        raise RecycleConfigurationError("a service is a [[service]] table")
    known = [setting.name for setting in SETTINGS]
    for key in table:
        if key not in known:
            raise RecycleConfigurationError(f"{key!r} is not known; expected {', '.join(known)}")
    name = table.get("service")
    if not isinstance(name, str) or not name:
        raise RecycleConfigurationError(f"service is {name!r}; expected a name or a pattern")
    values: dict[str, Any] = {
        f"{key}_s": _seconds(table, key) for key in _DURATIONS if key in table
    }
    for key, least, most in (("at", 0.1, 1.0), ("quorum", 0.0, 1.0)):
        if key in table:
            values[key] = _number(table, key, least, most)
    for key in ("most_at_once", "per_hour"):
        if key in table:
            values[key] = _whole_number(table, key)
    policy = RecyclePolicy(name, **values)
    return policy, _backend(table, worker)


def _backend(table: Mapping[str, Any], worker: Callable[[], Backend]) -> Backend:
    kind = table.get("backend")
    if kind not in BACKENDS:
        raise RecycleConfigurationError(
            f"backend is {kind!r}; expected one of {', '.join(BACKENDS)}"
        )
    given = {"command": {*_COMMANDS}, "systemd": {"unit"}, "worker": set[str]()}[kind]
    for key in (*_COMMANDS, "unit"):
        if key in table and key not in given:
            raise RecycleConfigurationError(f"{key} is nothing that the back end {kind} knows")
    if kind == "worker":
        return worker()
    if kind == "systemd":
        unit = table.get("unit")
        if not isinstance(unit, str) or not unit:
            raise RecycleConfigurationError(f"unit is {unit!r}; expected the name of a unit")
        return systemd_backend(unit)
    end, drain, restore = (_command(table, key) for key in _COMMANDS)
    if not end:
        raise RecycleConfigurationError("the back end command needs an end_command")
    return CommandBackend(end, drain, restore)


def _command(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    words = table.get(key, [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RecycleConfigurationError(
            f"{key} is {words!r}; expected a list of words, the program first"
        )
    return tuple(words)


def _seconds(table: Mapping[str, Any], key: str) -> float:
    text = str(table[key])
    if text in ("0", "0s"):
        return 0.0
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise RecycleConfigurationError(f"{key}: {error}") from error


def _number(table: Mapping[str, Any], key: str, least: float, most: float) -> float:
    number = table[key]
    if isinstance(number, bool) or not isinstance(number, int | float):
        number = None
    if number is None or not least <= number <= most:
        raise RecycleConfigurationError(
            f"{key} is {table[key]!r}; expected a number from {least:g} to {most:g}"
        )
    return float(number)


def _whole_number(table: Mapping[str, Any], key: str) -> int:
    number = table[key]
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST:
        raise RecycleConfigurationError(
            f"{key} is {number!r}; expected a whole number from 1 to {_MOST}"
        )
    return number
