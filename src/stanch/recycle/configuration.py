"""The file of recycling: which services, when, and by what. TOML; docs/recycling.md has each key.

[[service]]
service = "shop"
lead = "3m"
backend = "command"
end_command = ["docker", "restart", "{instance}"]
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stanch.collect.configuration import (
    ConfigurationError,
    Setting,
    read_toml,
    refuse_unknown,
    seconds_of,
)
from stanch.recycle.backends import Backend
from stanch.recycle.backends.command import CommandBackend, systemd_backend
from stanch.recycle.policy import RecyclePolicy

BACKENDS = ("worker", "command", "systemd", "kubernetes")
_MOST = 1000

SETTINGS = (
    Setting("service", "must be given", "name or pattern of services; the first that fits"),
    Setting("backend", "must be given", "`worker`, `command`, `systemd` or `kubernetes`"),
    Setting("lead", "`2m`", "a replica that leaks is due so long before its death"),
    Setting("at", "`0.85`", "or when its memory is at this share of its limit"),
    Setting("most_at_once", "`1`", "so many at a time"),
    Setting("quorum", "`0.5`", "this share of the replicas stays healthy, one at least"),
    Setting("spacing", "`30s`", "between two beginnings"),
    Setting("per_hour", "`12`", "so many within an hour; then it stops and alarms"),
    Setting("drain", "`30s`", "how long requests in flight are waited for"),
    Setting("settle", "`5s`", "how long, where nobody tells how many there are"),
    Setting("end", "`60s`", "how long a command, or the end of a worker, may take"),
    Setting("ready", "`3m`", "how long until it must be healthy again"),
    Setting("end_command", "none", "of `command`: ends a replica and starts another"),
    Setting("drain_command", "none", "of `command`: takes it out of the load balancer"),
    Setting("restore_command", "none", "of `command`: puts it back, also after a failure"),
    Setting("unit", "none", "of `systemd`: the unit, such as `shop@{instance}.service`"),
)
_DURATIONS = ("lead", "spacing", "drain", "settle", "end", "ready")
_COMMANDS = ("end_command", "drain_command", "restore_command")


def read_policies(
    path: Path, makers: Mapping[str, Callable[[], Backend]], *, dry_run: bool = False
) -> list[tuple[RecyclePolicy, Backend]]:
    """Read a file of recycling. makers: make the back ends `worker` and `kubernetes`, where there
    are any.

    Raises ConfigurationError.
    """
    values = read_toml(path)
    try:
        tables = values.get("service", [])
        if set(values) - {"service"} or not isinstance(tables, list) or not tables:
            raise ConfigurationError("expected [[service]] tables, and nothing else")
        found = [_service(table, makers) for table in tables]
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return [(replace(policy, dry_run=dry_run), backend) for policy, backend in found]


def _service(
    table: object, makers: Mapping[str, Callable[[], Backend]]
) -> tuple[RecyclePolicy, Backend]:
    if not isinstance(table, dict):
        raise ConfigurationError("a service is a [[service]] table")
    refuse_unknown(table, [setting.name for setting in SETTINGS])
    name = table.get("service")
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"service is {name!r}; expected a name or a pattern")
    values: dict[str, Any] = {
        f"{key}_s": seconds_of(key, str(table[key])) for key in _DURATIONS if key in table
    }
    for key, least, most in (("at", 0.1, 1.0), ("quorum", 0.0, 1.0)):
        if key in table:
            values[key] = _number(table, key, least, most)
    for key in ("most_at_once", "per_hour"):
        if key in table:
            values[key] = _whole_number(table, key)
    policy = RecyclePolicy(name, **values)
    return policy, _backend(table, makers)


def _backend(table: Mapping[str, Any], makers: Mapping[str, Callable[[], Backend]]) -> Backend:
    kind = table.get("backend")
    if kind not in BACKENDS:
        raise ConfigurationError(f"backend is {kind!r}; expected one of {', '.join(BACKENDS)}")
    given = {"command": {*_COMMANDS}, "systemd": {"unit"}}.get(kind, set[str]())
    for key in (*_COMMANDS, "unit"):
        if key in table and key not in given:
            raise ConfigurationError(f"{key} is nothing that the back end {kind} knows")
    if kind in ("worker", "kubernetes"):
        if kind not in makers:
            raise ConfigurationError(
                "the back end kubernetes needs a target such as kubernetes:NAMESPACE"
            )
        return makers[kind]()
    if kind == "systemd":
        unit = table.get("unit")
        if not isinstance(unit, str) or not unit:
            raise ConfigurationError(f"unit is {unit!r}; expected the name of a unit")
        return systemd_backend(unit)
    end, drain, restore = (_command(table, key) for key in _COMMANDS)
    if not end:
        raise ConfigurationError("the back end command needs an end_command")
    return CommandBackend(end, drain, restore)


def _command(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    words = table.get(key, [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigurationError(f"{key} is {words!r}; expected a list of words, the program first")
    return tuple(words)


def _number(table: Mapping[str, Any], key: str, least: float, most: float) -> float:
    number = table[key]
    if isinstance(number, bool) or not isinstance(number, int | float):
        number = None
    if number is None or not least <= number <= most:
        raise ConfigurationError(
            f"{key} is {table[key]!r}; expected a number from {least:g} to {most:g}"
        )
    return float(number)


def _whole_number(table: Mapping[str, Any], key: str) -> int:
    number = table[key]
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST:
        raise ConfigurationError(f"{key} is {number!r}; expected a whole number from 1 to {_MOST}")
    return number
