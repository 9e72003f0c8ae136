"""Findings as they are written down: to rows of the store and back."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stanch.detect import Finding, finding_to_dict
from stanch.store.history import FindingRow, FindingStatus


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
