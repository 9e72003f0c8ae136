"""Findings as they are written down: to rows of the store and back, and which stand there."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from stanch.detect import Finding, finding_to_dict
from stanch.store.history import FindingRow, FindingStatus, TimeRange
from stanch.store.sqlstore import SqlStore

_MOST_FINDINGS = 10_000
_RELEASE_S = 3600.0


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
) -> FindingRow:
    """The row of a finding as it stands now."""
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
        document=finding_to_dict(finding),
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
        """Take up the findings that fired when the store was last used. Raises StoreError."""
        self._store = store
        self._wall = wall
        firing = store.history.findings(status="firing", most=_MOST_FINDINGS)
        self._written = {row.finding: row for row in firing}
        self._answers: dict[str, Mapping[str, Any]] = {}

    def explained(self, name: str) -> bool:
        """Whether it is known what keeps a finding's memory."""
        row = self._written.get(name)
        return name in self._answers or (row is not None and row.retention is not None)

    def explain(self, name: str, answer: Mapping[str, Any]) -> None:
        """Have an answer of `stanch why` written with the finding, the next time."""
        self._answers[name] = answer

    def known(self) -> tuple[Finding, ...]:
        """The findings that fire."""
        return tuple(map(finding_of, self._written.values()))

    def write(self, firing: Iterable[Finding], resolved: Iterable[Finding]) -> None:
        """Write down what fires now and what no longer does. Raises StoreError."""
        now_s = self._wall()
        releases: dict[str, str] = {}
        rows = [self._row(finding, now_s, "firing", releases) for finding in firing]
        rows += [self._row(finding, now_s, "resolved", releases) for finding in resolved]
        self._store.write_findings(rows)
        self._written = {row.finding: row for row in rows if row.status == "firing"}

    def _row(
        self, finding: Finding, now_s: float, status: FindingStatus, releases: dict[str, str]
    ) -> FindingRow:
        name = finding_name(finding)
        before = self._written.get(name)
        if before is not None:
            retention = self._answers.pop(name, None) or before.retention
            return finding_row(finding, now_s, status, before.release, retention)
        service = finding.service
        if service not in releases:
            releases[service] = self._release(service, now_s)
        return finding_row(finding, now_s, status, releases[service], None)

    def _release(self, service: str, now_s: float) -> str:
        """The newest release of a service that runs, "" when it is unknown."""
        within = TimeRange(now_s - _RELEASE_S, now_s + 60)
        releases = self._store.history.releases(service, within)
        return releases[-1] if releases else ""
