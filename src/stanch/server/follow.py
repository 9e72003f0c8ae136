"""Findings over the steps of a watch: which are new, which changed, which are resolved."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from stanch.detect import LEAKS, STAGES, Finding

Key: TypeAlias = tuple[str, bool, str, str]

_RESOLVED_AFTER = 6
"""A finding that is not seen in so many steps is resolved."""
_RESOLVED_AFTER_S = 60.0
"""And one of a confirmed leak not before so many seconds: the heap profile of a Go program stands
still between two collections, and then its growth looks for a while like that of a full cache."""


@dataclass(slots=True)
class _Followed:
    """A finding, when it was last shown, by how many steps since then it was not, and the keys of
    all that was ever said with it."""

    finding: Finding
    seen_unix: float
    unseen: int = 0
    said_with_it: set[Key] = field(default_factory=set)

    def is_over(self, now_unix: float) -> bool:
        """Whether it was looked for long enough, whatever the clock did meanwhile."""
        if self.unseen < _RESOLVED_AFTER:
            return False
        unseen_s = abs(now_unix - self.seen_unix)
        return not self.finding.is_confirmed_leak or unseen_s >= _RESOLVED_AFTER_S


class Follower:
    """Remembers the findings that go on."""

    def __init__(self, wall: Callable[[], float], known: Iterable[Finding] = ()) -> None:
        """known: see `take_up`."""
        self._wall = wall
        self._followed: dict[Key, _Followed] = {}
        self.take_up(known)

    def take_up(self, known: Iterable[Finding]) -> None:
        """Go on with findings that went on before; they are not new."""
        now_unix = self._wall()
        for finding in known:
            self._followed[finding.key] = _Followed(
                finding, now_unix, said_with_it=_said_with(finding)
            )

    def leave(self, services: Collection[str]) -> None:
        """Follow the findings of services no more, without a word."""
        for key, followed in list(self._followed.items()):
            if followed.finding.service in services:
                del self._followed[key]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings that go on."""
        return tuple(followed.finding for followed in self._followed.values())

    def follow(
        self, found: Iterable[Finding]
    ) -> tuple[tuple[Finding, ...], tuple[Finding, ...], tuple[Finding, ...]]:
        """Compare with the steps before: what is new, changed and resolved.

        A confirmed leak stays one while it has any look of a leak, so that it does not flicker;
        one that turns out to be of another leak goes without a word, and what was once said with
        another that goes on is not told as a leak of its own, unless it becomes the graver one.
        """
        new: list[Finding] = []
        changed: list[Finding] = []
        resolved: list[Finding] = []
        seen: set[Key] = set()
        kin: set[Key] = set()
        now_unix = self._wall()
        for finding in found:
            others = _said_with(finding)
            kin |= others
            before = self._followed.get(finding.key)
            if before is None:
                if self._is_said_with_another(finding, others):
                    continue
                finding = replace(finding, first_seen_unix=now_unix)
                self._followed[finding.key] = _Followed(finding, now_unix, said_with_it=others)
                new.append(finding)
                seen.add(finding.key)
                continue
            was = before.finding
            finding = replace(finding, first_seen_unix=was.first_seen_unix)
            if was.is_confirmed_leak and not finding.is_confirmed_leak:
                if finding.kind not in LEAKS:
                    continue
                finding = replace(finding, stage="confirmed")
            seen.add(finding.key)
            before.finding, before.seen_unix, before.unseen = finding, now_unix, 0
            before.said_with_it |= others
            if (was.kind, was.stage, was.line) != (finding.kind, finding.stage, finding.line):
                changed.append(finding)
        for key in [key for key in self._followed if key not in seen]:
            if key in kin:
                # It has not ended, it is said with another finding.
                del self._followed[key]
                continue
            self._followed[key].unseen += 1
            if self._followed[key].is_over(now_unix):
                resolved.append(self._followed.pop(key).finding)
        return tuple(new), tuple(changed), tuple(resolved)

    def _is_said_with_another(self, finding: Finding, others: set[Key]) -> bool:
        """Whether one that goes on, is no less grave and is not said with this one has it."""
        return any(
            finding.key in one.said_with_it
            and STAGES.index(finding.stage) <= STAGES.index(one.finding.stage)
            for key, one in self._followed.items()
            if key not in others
        )


def _said_with(finding: Finding) -> set[Key]:
    return {
        (finding.service, not is_count, file, function)
        for is_count, file, function in finding.with_it
    }
