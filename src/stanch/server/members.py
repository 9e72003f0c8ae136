"""Which servers share a store now, and whose a service is. Pure: the store and the clock are
outside.

A service belongs to the one of the members whose hash with it is the highest (rendezvous hashing),
so when one comes or goes only its own services move. Each server tells by which members it
divides, which is a claim to all services that are its own then. Whether another one lives is told
by its counter of beats alone, which must go on within so many seconds of this server's own clock,
so clocks that differ or jump do no harm.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stanch.store.sqlshared import Beat

JOINS_AFTER = 3
"""A server is a member after so many beats, so one that dies at each start is given nothing."""


def ranked(members: Iterable[str], service: str) -> list[str]:
    """The members in the order in which a service would go to them, its owner first."""
    return sorted(members, key=lambda member: (_weight(member, service), member), reverse=True)


def owner_of(members: Sequence[str], service: str) -> str:
    """The member that a service belongs to, "" without members."""
    return max(members, key=lambda member: (_weight(member, service), member), default="")


def _weight(member: str, service: str) -> bytes:
    text = f"{member}\0{service}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).digest()


@dataclass(slots=True)
class _Seen:
    """Another server's life. silent_s: since it last gave a sign, as far as this one could read."""

    beat: int
    members: tuple[str, ...]
    left: bool
    beats: int
    silent_s: float = 0.0
    is_silent: bool = False


class Roster:
    """What one server has read of the others. For one thread at a time.

    lifetime_s: without a sign for so long a server is taken for dead. Only time in which this one
    could read counts, at most `most_gap_s` between two reads: when the store was away, nobody is
    dead of that. Who was there before this server began counts as a member until then.
    """

    def __init__(self, name: str, incarnation: int, lifetime_s: float, most_gap_s: float) -> None:
        self._name = name
        self._incarnation = incarnation
        self._lifetime_s = lifetime_s
        self._most_gap_s = most_gap_s
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._read_s: float | None = None

    def read(self, beats: Iterable[Beat], now_s: float) -> None:
        """Take in what stands in the store. now_s: this server's clock, which never jumps."""
        is_first = self._read_s is None
        gap_s = min(self._most_gap_s, now_s - (now_s if self._read_s is None else self._read_s))
        self._read_s = now_s
        found = set()
        for one in beats:
            key = (one.server, one.incarnation)
            if key == (self._name, self._incarnation):
                continue
            found.add(key)
            seen = self._seen.get(key)
            if seen is None:
                beats_before = JOINS_AFTER if is_first and one.members else 1
                self._seen[key] = _Seen(one.beat, one.members, one.left, beats_before)
                continue
            if one.beat > seen.beat:
                risen = one.beat - seen.beat
                seen.beats = risen if seen.is_silent else seen.beats + risen
                seen.beat, seen.silent_s, seen.is_silent = one.beat, 0.0, False
            else:
                seen.silent_s += gap_s
                seen.is_silent = seen.silent_s >= self._lifetime_s
            seen.members, seen.left = one.members, one.left
        for key in self._seen.keys() - found:
            del self._seen[key]

    def members(self) -> tuple[str, ...]:
        """This server and the others that services are to be divided among, sorted."""
        others = {
            server
            for (server, _), seen in self._seen.items()
            if _is_there(seen) and seen.beats >= JOINS_AFTER
        }
        return tuple(sorted(others | {self._name}))

    def claims(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each other server that may live, with the members that it divides by."""
        return tuple(
            (server, seen.members)
            for (server, _), seen in self._seen.items()
            if server != self._name and seen.members and _is_there(seen)
        )

    def has_double(self) -> bool:
        """Whether another living server has the same name, and goes before this one."""
        return any(
            server == self._name
            and incarnation < self._incarnation
            and _is_there(seen)
            and seen.beats > JOINS_AFTER
            for (server, incarnation), seen in self._seen.items()
        )


def _is_there(seen: _Seen) -> bool:
    return not (seen.left or seen.is_silent)
