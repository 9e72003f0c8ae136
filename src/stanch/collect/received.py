"""Profiles that come by themselves: what a push says about its process, in the words of the store.

A push is a pprof profile with a few facts about who sent it. Where the sender is a Stanch agent the
profile's own comments say more: the age of the process, its requests, its names.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from stanch.store import Look, ProcessLook
from stanch.store.rows import COUNTED_TOGETHER, kind_of, open_profile
from stanch.store.sqlstore import Taken

_MOST_PAST_S = 3600.0
_MOST_FUTURE_S = 60.0
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Push:
    """One profile as it was sent, gzip or plain pprof.

    service, instance, release: "" when the sender did not say; the profile's comments are asked
    then. rss_bytes, limit_bytes, working_set_bytes: None when unknown. unix_s: when the
    profile was taken, by the sender's clock; the profile's own time when None.
    """

    data: bytes
    service: str = ""
    instance: str = ""
    pid: int | None = None
    release: str = ""
    language: str = ""
    unix_s: float | None = None
    rss_bytes: float | None = None
    limit_bytes: float | None = None
    working_set_bytes: float | None = None
    in_flight: float | None = None


class ProfileStore(Protocol):
    """Where looks go with their profiles; `stanch.store.sqlstore.SqlStore` is one."""

    def take(self, look: Look, profiles: list[Taken]) -> bool:
        """Keep a look for good; False when it is known. Raises ProfileError and StoreError."""


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a push: `taken` is False when the same profile had come before."""

    service: str
    instance: str
    kind: str
    taken: bool
    unix_s: float


@dataclass(frozen=True, slots=True)
class Receiver:
    """Takes pushes into a store. May be called from several threads.

    heard: told of each push that was taken, from the thread that took it.
    """

    store: ProfileStore
    wall: Callable[[], float]
    heard: Callable[[Received], None] = field(default=lambda received: None)

    def receive(self, push: Push, admit: Callable[[str], None] = lambda service: None) -> Received:
        """Keep one push; it is on the disk when this returns.

        admit: told the service before anything is kept, before the profile is decoded where the
        sender names it; what it raises refuses the push.
        Raises ProfileError for what is no profile, StoreFullError and StoreError when it cannot be
        kept.
        """
        told = _name(push.service)
        if told:
            admit(told)
        decoded = open_profile(push.data)
        facts = {
            key: value
            for key, separator, value in (text.partition("=") for text in decoded.comments)
            if separator
        }
        of_agent = "stanch" in facts
        service = told or _name(facts.get("service", "")) or "unknown"
        if not told:
            admit(service)
        instance = _name(push.instance or facts.get("instance", "")) or service
        kind = kind_of(decoded)
        requests = facts.get("requests", "")
        process = ProcessLook(
            pid=push.pid if push.pid is not None else _integer(facts.get("pid", "")),
            age_s=decoded.duration_nanos / 1e9 if of_agent else None,
            rss_bytes=push.rss_bytes,
            requests=float(requests) if requests.isascii() and requests.isdigit() else None,
            in_flight=push.in_flight,
            period_bytes=float(decoded.period) if decoded.period > 0 else 512 * 1024.0,
        )
        look = Look(
            service=service,
            instance=instance,
            time_s=0.0,
            unix_s=self._unix_s(push.unix_s or decoded.time_nanos / 1e9),
            language=push.language or _language(of_agent, decoded.is_go),
            processes=(process,),
            limit_bytes=push.limit_bytes,
            working_set_bytes=push.working_set_bytes,
            release=_name(push.release),
        )
        taken_as = COUNTED_TOGETHER if kind == "goroutine" else kind
        profile = Taken(taken_as, push.data, 0, decoded)
        taken = self.store.take(look, [profile])
        received = Received(service, instance, kind, taken, look.unix_s)
        if taken:
            self.heard(received)
        return received

    def _unix_s(self, told_s: float) -> float:
        """The time of a profile; a clock that is far off is not believed."""
        now_s = self.wall()
        if now_s - _MOST_PAST_S <= told_s <= now_s + _MOST_FUTURE_S:
            return told_s
        return now_s


def _language(of_agent: bool, is_go: bool) -> str:
    if is_go:
        return "go"
    return "python" if of_agent else ""


def _integer(text: str) -> int | None:
    return int(text[:18]) if text.isascii() and text.isdigit() else None


def _name(text: str) -> str:
    """A name as it is kept: one line of printable text, not too long."""
    return "".join(each if each.isprintable() else " " for each in text)[:_LONGEST_NAME].strip()
