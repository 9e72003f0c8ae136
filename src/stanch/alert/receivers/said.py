"""What apprise says while it sends: the only account it gives of why something did not go out.

Its lines hold tokens and whole messages, so while they are listened to they get to no other log:
neither its own nor those of the HTTP client beneath it. What is passed on is a status or one of
our own sentences, and of other words none that is in the URL.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from urllib.parse import unquote

from stanch.alert.receivers.delivery import is_final_status

_LOGGERS = ("apprise", "urllib3", "requests")
_MOST_LINES = 1000
_STATUS = re.compile(r"\berror=(\d{3})\b")
_WORD = re.compile(r"""["']error["']:\s*["']([a-z_]{1,40})["']""")
"""Slack's API refuses with status 200 and a word such as `not_in_channel`."""

_SMTP_STATUS = re.compile(r"\((\d{3}), b?['\"]")
_UNREACHED = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("Tunnel connection failed", "the proxy does not let it through"),
    ("NameResolutionError", "its name cannot be resolved"),
    ("Name or service not known", "its name cannot be resolved"),
    ("NewConnectionError", "no connection"),
    ("ConnectTimeout", "no connection"),
    ("Connection refused", "no connection"),
    ("Network is unreachable", "no connection"),
)
"""By what the text of an error tells that nothing was sent, and how we say it. A `ProxyError` alone
does not: a connection that breaks after the request is one, too, when it goes by a proxy."""


class Said(logging.Handler):
    """Listens in a `with` block, to one thread's sending at a time."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._lines: list[tuple[int, str]] = []
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> "Said":
        for name in _LOGGERS:
            self._restore.enter_context(_alone(logging.getLogger(name), self))
        self._restore.enter_context(_told_all(logging.getLogger(_LOGGERS[0])))
        return self

    def __exit__(self, *_: object) -> None:
        self._restore.close()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging: keeps the line, up to a bound."""
        if record.name.partition(".")[0] == "apprise" and len(self._lines) < _MOST_LINES:
            self._lines.append((record.levelno, record.getMessage()))

    @property
    def was_sent(self) -> bool:
        """Whether one of the addresses has taken the text."""
        return any(
            level == logging.INFO and line.startswith("Sent ") for level, line in self._lines
        )

    @property
    def status(self) -> int | None:
        """The status of the first refusal by an HTTP server, None when there was none."""
        found = [match for _, line in self._warnings() if (match := _STATUS.search(line))]
        return int(found[0][1]) if found else None

    @property
    def is_final(self) -> bool:
        """Whether the other side will never take this message."""
        return self.status is not None and is_final_status(self.status)

    @property
    def is_uncertain(self) -> bool:
        """Whether it may have arrived although it seems that it has not."""
        refused = self.status is not None or _SMTP_STATUS.search(self._text())
        return not refused and self._unreached() is None

    def reason(self, url: str) -> str:
        """Why nothing went out, in one line without anything of the URL."""
        if (status := self.status) is not None:
            words = [match[1] for _, line in self._lines if (match := _WORD.search(line))]
            return f"answered {status}{f': {words[0]}' if words else ''}"
        if (unreached := self._unreached()) is not None:
            return unreached
        said = " ".join(line for _, line in self._warnings())
        return _without(url, " ".join(said.split()))[:300] or "apprise could not deliver it"

    def _warnings(self) -> list[tuple[int, str]]:
        return [(level, line) for level, line in self._lines if level >= logging.WARNING]

    def _text(self) -> str:
        return "\n".join(line for _, line in self._lines if "Exception" in line)

    def _unreached(self) -> str | None:
        text = self._text()
        return next((words for mark, words in _UNREACHED if mark in text), None)


def _without(url: str, said: str) -> str:
    """Leave out each part of a URL, as it is written there and as it is meant."""
    parts = {part for each in (url, unquote(url)) for part in re.split(r"[/?&=@:#,;+\s]+", each)}
    for part in sorted(parts, key=len, reverse=True):
        said = said.replace(part, "...") if len(part) > 3 else said
    return said


@contextlib.contextmanager
def _alone(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """Give all that a logger says to one handler and to no other."""
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


@contextlib.contextmanager
def _told_all(logger: logging.Logger) -> Iterator[None]:
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
