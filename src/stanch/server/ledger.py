"""Findings as they are written down: to rows of the store and back, and which stand there."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from stanch.detect import Finding, Fix, finding_to_dict
from stanch.store.history import FindingRow, FindingStatus, TimeRange
from stanch.store.sqlstore import SqlStore

_MOST_FINDINGS = 10_000
_RELEASE_S = 3600.0
FIX = "fix"
"""Where a finding's document tells what became of it in a later release: its state ("fixed" or
"still leaking"), that release, and a text."""


def finding_name(finding: Finding) -> str:
    """The name of a finding in links: 16 hex digits, the same for the same cause for ever."""
    key = "\0".join(map(str, finding.key))
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).hexdigest()


def finding_row(
    finding: Finding,
    now_unix_s: float,
    status: FindingStatus,
    release: str,
    retention: Mapping[str, Any] | None,
    fix: Mapping[str, Any] | None,
) -> FindingRow:
    """The row of a finding as it stands now. fix: what became of it in a later release, as the
    document tells it."""
    return FindingRow(
        finding=finding_name(finding),
        service=finding.service,
        kind=finding.kind,
        stage=finding.stage,
        status=status,
        file=finding.file,
        line=finding.line,
        function=finding.function,
        first_unix_s=finding.first_seen_unix or now_unix_s,
        last_unix_s=now_unix_s,
        release=release,
        document=finding_to_dict(finding) | ({FIX: fix} if fix else {}),
        retention=retention,
    )


def finding_of(row: FindingRow) -> Finding:
    """The finding of a row; fields that this version does not know are passed over."""
    known = {field.name for field in fields(Finding)}
    given = {key: _as_tuple(value) for key, value in row.document.items() if key in known}
    return Finding(**given)


def _as_tuple(value: Any) -> Any:
    """JSON has lists where a finding has tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


class Ledger:
    """Writes findings into a store; the release in which one was first seen stays with it."""

    def __init__(self, store: SqlStore, wall: Callable[[], float] = time.time) -> None:
        """What fired before is to be taken up first."""
        self._store = store
        self._wall = wall
        self._written: dict[str, FindingRow] = {}

    def take_up(self, services: Collection[str] | None = None) -> tuple[Finding, ...]:
        """Go on with what fired of services, or of all, when they were last judged; return it.

        Raises StoreError.
        """
        if services is not None and not services:
            return ()
        firing = self._store.history.findings(status="firing", most=_MOST_FINDINGS)
        taken = {row.finding: row for row in firing if services is None or row.service in services}
        self._written |= taken
        return tuple(map(finding_of, taken.values()))

    def leave(self, services: Collection[str]) -> None:
        """Let another server go on with what is known of services."""
        self._written = {
            name: row for name, row in self._written.items() if row.service not in services
        }

    def write(
        self,
        firing: Iterable[Finding],
        resolved: Iterable[Finding],
        fixes: Sequence[Fix] = (),
        answer_to: Callable[[Finding], Mapping[str, Any] | None] = lambda finding: None,
    ) -> None:
        """Write down what fires now and what no longer does. Raises StoreError.

        fixes: what became of leaks of earlier releases. answer_to: what a retention search said of
        a finding. Both stay with a finding until there is something newer.
        """
        now_s = self._wall()
        releases: dict[str, str] = {}

        def row(finding: Finding, status: FindingStatus) -> FindingRow:
            before = self._written.get(finding_name(finding))
            return finding_row(
                finding,
                now_s,
                status,
                before.release if before else self._release(finding.service, now_s, releases),
                answer_to(finding) or (before.retention if before else None),
                _fix_of(finding, fixes) or (before.document.get(FIX) if before else None),
            )

        rows = [row(finding, "firing") for finding in firing]
        rows += [row(finding, "resolved") for finding in resolved]
        self._store.write_findings(rows)
        self._written = {row.finding: row for row in rows if row.status == "firing"}

    def _release(self, service: str, now_s: float, known: dict[str, str]) -> str:
        """The newest release of a service that runs, "" when it is unknown."""
        if service not in known:
            within = TimeRange(now_s - _RELEASE_S, now_s + 60)
            known[service] = next(reversed(self._store.history.releases(service, within)), "")
        return known[service]


def _fix_of(finding: Finding, fixes: Sequence[Fix]) -> dict[str, Any] | None:
    for fix in fixes:
        if (
            fix.service == finding.service
            and fix.function == finding.function
            # Both are shortened, but not by the same other names.
            and (fix.file.endswith(finding.file) or finding.file.endswith(fix.file))
        ):
            return {"state": fix.state, "release": fix.release, "text": " ".join(fix.evidence)}
    return None
