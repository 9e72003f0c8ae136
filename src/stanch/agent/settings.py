"""Every setting of the agent, in one table.

`SETTINGS` serves the options of `stanch run`, the STANCH_* variables and the keywords of
`stanch.start`: all three give texts (or plain values) to the same parser. What comes out is one
frozen `Settings`, already checked; what cannot be is one `SettingError` with a sentence.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LISTEN_OFF = "off"
LISTEN_AUTO = "auto"
FLAG_SET = "1"
LARGEST_INTERVAL_BYTES = (1 << 32) - 1
LARGEST_TOKEN_BYTES = 4096
LEAST_BUDGET_PERCENT = 0.1
SHORTEST_PUSH_S = 1.0
LONGEST_PUSH_S = 86_400.0
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "kb": 1000, "mib": 1 << 20, "mb": 1_000_000}
_DURATIONS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LOOPBACK = ("localhost", "::1")


class SettingError(ValueError):
    """A setting cannot be used; the message names it, its value and what was expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent of this process does, in bytes, seconds and percent.

    None stands where a default follows later.
    """

    interval: int | None = None
    budget: float = 2.0
    table: Path | None = None
    listen: str = LISTEN_OFF
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    push: str | None = None
    push_every: float = 15.0
    service: str = ""
    instance: str = ""
    release: str = ""
    requests: bool = True
    labels: bool = True
    cmdline: bool = False
    native: bool = False
    recycle: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: the option `--NAME`, the variable, the keyword, and how its text is read.

    `parse` raises ValueError whose text says what was expected. The option of a flag has no value
    and means FLAG_SET; its metavar is empty.
    """

    name: str
    metavar: str
    default: str
    help: str
    parse: Callable[[str], object]
    is_flag: bool = False

    @property
    def option(self) -> str:
        """The option of `stanch run`."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"STANCH_{self.name.upper().replace('-', '_')}"

    @property
    def keyword(self) -> str:
        """The keyword of `stanch.start` and the field of `Settings`."""
        return self.name.replace("-", "_")


def _number_and_unit(text: str) -> tuple[float, str]:
    stripped = text.strip().lower()
    digits = stripped.rstrip("abcdefghijklmnopqrstuvwxyz ")
    return float(digits), stripped[len(digits) :].strip()


def _interval(text: str) -> int:
    expected = f"bytes from 1 to {LARGEST_INTERVAL_BYTES}, such as 262144 or 256KiB"
    try:
        number, unit = _number_and_unit(text)
        interval_bytes = int(number * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ValueError(expected) from None
    if not 1 <= interval_bytes <= LARGEST_INTERVAL_BYTES:
        raise ValueError(expected)
    return interval_bytes


def _budget(text: str) -> float:
    """Return percent; 0.0 stands for no budget."""
    expected = f"percent of CPU time from {LEAST_BUDGET_PERCENT} to 100, such as 2 or 0.5%, or off"
    if text == "off":
        return 0.0
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        raise ValueError(expected) from None
    if not LEAST_BUDGET_PERCENT <= percent <= 100:
        raise ValueError(expected)
    return percent


def _push_every(text: str) -> float:
    expected = "a time from 1s to 24h, such as 15, 15s or 5m"
    try:
        number, unit = _number_and_unit(text)
        seconds = number * _DURATIONS[unit]
    except (ValueError, KeyError):
        raise ValueError(expected) from None
    if not SHORTEST_PUSH_S <= seconds <= LONGEST_PUSH_S:
        raise ValueError(expected)
    return seconds


def _table(text: str) -> Path:
    """Return the path, absolute, of a .stanch file or of a directory, which is made later."""
    path = Path(text).absolute()
    if not path.is_dir():
        if not path.parent.is_dir():
            raise ValueError(f"a file or directory in one that exists; there is no {path.parent}")
        if path.suffix != ".stanch" and path.exists():
            raise ValueError("a directory, or a file whose name ends in .stanch")
    return path


def _file(text: str) -> Path:
    path = Path(text).absolute()
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"a readable file ({error.strerror})") from None


def _listen(text: str) -> str:
    if text in (LISTEN_OFF, LISTEN_AUTO):
        return text
    from stanch.agent.listen import EndpointError, parse_listen

    try:
        address = parse_listen(text)
    except EndpointError as error:
        raise ValueError(f"unix:PATH, HOST:PORT, auto or off ({error})") from None
    return f"unix:{Path(address.path).absolute()}" if address.path else text


def _push(text: str) -> str:
    expected = "a URL such as https://stanch.example/push"
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            raise ValueError
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise ValueError(expected)
    if " " in text or parts.username or parts.password:
        raise ValueError(f"{expected}, without spaces and without a password")
    return text


def _label(text: str) -> str:
    if not text.isprintable() or len(text.encode()) > 120:
        raise ValueError("at most 120 bytes of printable text")
    return text


def _switch(*choices: str) -> Callable[[str], bool]:
    """Return a parser of a choice whose first word means off."""

    def parse(text: str) -> bool:
        if text not in choices:
            raise ValueError(f"{' or '.join(choices)}")
        return text != choices[0]

    return parse


def _flag(text: str) -> bool:
    values = {FLAG_SET: True, "on": True, "0": False, "off": False}
    if text not in values:
        raise ValueError("1 or 0")
    return values[text]


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "interval",
        "BYTES",
        "the memory limit / 4096, between 128KiB and 512KiB; 512KiB without a limit",
        "mean number of bytes allocated between two samples, such as 262144 or 256KiB",
        _interval,
    ),
    Setting(
        "budget",
        "PERCENT|off",
        "2",
        "share of the process's CPU time that the agent may cost, such as 2 or 0.5; when it costs "
        "more, the interval doubles until it fits",
        _budget,
    ),
    Setting(
        "table",
        "FILE|DIR",
        "the run directory under `stanch run`; private memory from code",
        "where the live table is kept, which outlives a kill: a file whose name ends in .stanch, "
        "or a directory, made if absent, that gets PID.stanch of each process",
        _table,
    ),
    Setting(
        "listen",
        "unix:PATH|HOST:PORT|auto|off",
        "auto under `stanch run`; off from code",
        "where the first process of the run serves the endpoint; auto is a unix socket in the "
        "run directory, and an address beyond loopback needs a token and TLS",
        _listen,
    ),
    Setting(
        "token-file",
        "FILE",
        "no token",
        "file with the token that a reader of the endpoint must send, and that --push sends",
        _file,
    ),
    Setting("tls-cert", "FILE", "no TLS", "certificate chain of the endpoint, PEM", _file),
    Setting("tls-key", "FILE", "no TLS", "private key of the endpoint, PEM", _file),
    Setting(
        "push",
        "URL",
        "no push",
        "send the heap profile to this URL again and again",
        _push,
    ),
    Setting(
        "push-every", "SECONDS", "15s", "time between two pushes, such as 15s or 5m", _push_every
    ),
    Setting(
        "service",
        "NAME",
        "empty; a reader uses the name it has for the target",
        "name of the service, the same for all its replicas",
        _label,
    ),
    Setting(
        "instance",
        "NAME",
        "HOST:PID",
        "name of this replica; the processes of one run share it",
        _label,
    ),
    Setting(
        "release",
        "NAME",
        "empty",
        "build of the service that runs, such as a version or a commit",
        _label,
    ),
    Setting(
        "requests",
        "auto|off",
        "auto",
        "count and time the requests of gunicorn and uvicorn without a change of code",
        _switch("off", "auto"),
    ),
    Setting(
        "labels",
        "auto|off",
        "auto",
        "say of each sample whose it is: the thread's name, and the route of the request, the "
        "celery task or the stanch.label() it belongs to; routes of requests need --requests auto",
        _switch("off", "auto"),
    ),
    Setting(
        "cmdline",
        "off|on",
        "off",
        "serve the command line, which may hold secrets, at /debug/pprof/cmdline",
        _switch("off", "on"),
    ),
    Setting(
        "native",
        "",
        "off",
        "sample what libraries take from malloc, calloc, realloc, operator new and large mmap, too",
        _flag,
        is_flag=True,
    ),
    Setting(
        "recycle",
        "",
        "off",
        "let whoever may read the endpoint ask a worker of gunicorn or uvicorn to end gracefully",
        _flag,
        is_flag=True,
    ),
)


def from_texts(
    texts: Mapping[str, str], names: Callable[[Setting], str], *, listen: str
) -> Settings:
    """Parse the texts given by keyword; an empty text is as none.

    names: how the person who set it calls a setting, for the error.
    listen: where to listen when nothing says so.
    Raises SettingError.
    """
    values: dict[str, Any] = {"listen": listen}
    for setting in SETTINGS:
        text = texts.get(setting.keyword, "")
        if not text:
            continue
        try:
            values[setting.keyword] = setting.parse(text)
        except (ValueError, OSError) as error:
            raise SettingError(f"{names(setting)} is {text!r}; expected {error}") from None
    settings = Settings(**values)
    _check_together(settings, names)
    return settings


def from_environment(environ: Mapping[str, str], *, listen: str) -> Settings:
    """Read the STANCH_* variables. Raises SettingError."""
    texts = {setting.keyword: environ.get(setting.variable, "") for setting in SETTINGS}
    return from_texts(texts, lambda setting: setting.variable, listen=listen)


def from_keywords(keywords: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Read the keywords of `stanch.start`; what is None or empty there comes from the environment.

    Raises SettingError.
    """
    rows = {setting.keyword: setting for setting in SETTINGS}
    for keyword in keywords:
        if keyword not in rows:
            raise SettingError(f"there is no setting {keyword}; there are {', '.join(rows)}")
    given = {
        keyword: _text(value, is_flag=rows[keyword].is_flag)
        for keyword, value in keywords.items()
        if value is not None
    }
    given = {keyword: text for keyword, text in given.items() if text}
    texts = {keyword: environ.get(row.variable, "") for keyword, row in rows.items()} | given
    return from_texts(
        texts,
        lambda row: (
            row.variable if texts[row.keyword] and row.keyword not in given else row.keyword
        ),
        listen=LISTEN_OFF,
    )


def _text(value: object, *, is_flag: bool) -> str:
    if isinstance(value, bool) and is_flag:
        return FLAG_SET if value else "0"
    if isinstance(value, bool):
        raise SettingError(f"a setting is {value!r}; expected a text, a number or a path")
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _check_together(settings: Settings, names: Callable[[Setting], str]) -> None:
    by_keyword = {setting.keyword: names(setting) for setting in SETTINGS}
    if (settings.tls_cert is None) != (settings.tls_key is None):
        there, missing = ("tls_cert", "tls_key") if settings.tls_cert else ("tls_key", "tls_cert")
        raise SettingError(
            f"{by_keyword[there]} is set without {by_keyword[missing]}; TLS needs both"
        )
    token = read_token(settings.token_file, by_keyword["token_file"])
    if token and settings.push and not _is_private(settings.push):
        raise SettingError(
            f"{by_keyword['push']} is {settings.push!r}, which would send the token in clear; "
            "use https"
        )


def _is_private(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" or host in _LOOPBACK or host.startswith("127.")


def read_token(path: Path | None, name: str = "token-file") -> str | None:
    """Return the token in a file, without the white space around it; None without a file.

    Raises SettingError when the file cannot be read or holds no usable token.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_TOKEN_BYTES + 1)
    except OSError as error:
        raise SettingError(f"{name} {path} cannot be read: {error.strerror}") from None
    token = raw.decode("ascii", "replace").strip()
    if not token or len(raw) > LARGEST_TOKEN_BYTES or any(not "!" <= c <= "~" for c in token):
        raise SettingError(
            f"{name} {path} holds no token; expected 1 to {LARGEST_TOKEN_BYTES} ASCII characters "
            "without spaces, such as the output of: openssl rand -hex 32"
        )
    return token
