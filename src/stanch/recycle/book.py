"""The book of recycles in the journal: what was begun is on record before anything is done."""

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stanch.journal import Transaction

Step: TypeAlias = Literal[
    "evidence", "draining", "ending", "returning", "done", "failed", "put off", "abandoned"
]
UNDER_WAY: tuple[Step, ...] = ("evidence", "draining", "ending", "returning")
MOST = 10_000
CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Recycle:
    """One recycle. about: reason, error, evidence, seconds of each step, cleared. Unix seconds."""

    id: int
    service: str
    instance: str
    step: Step
    began_unix: float
    ended_unix: float | None
    about: dict[str, Any]


def begin(transaction: Transaction, service: str, instance: str, now: float, reason: str) -> int:
    """Put a recycle on record; return its number."""
    found = transaction.execute(
        "INSERT INTO recycles (service, instance, state, began_unix, body) VALUES (?, ?, ?, ?, ?)",
        (service, instance, "evidence", now, json.dumps({"reason": reason})),
    )
    transaction.execute(
        "DELETE FROM recycles WHERE id <= (SELECT max(id) FROM recycles) - ?", (MOST,)
    )
    return int(found.lastrowid or 0)


def note(
    transaction: Transaction, number: int, step: Step, now: float | None, **about: object
) -> None:
    """Note the step of a recycle and what there is to say; now: of its end, else None."""
    row = transaction.execute("SELECT body FROM recycles WHERE id = ?", (number,)).fetchone()
    body = json.loads(row["body"]) | about
    transaction.execute(
        "UPDATE recycles SET state = ?, ended_unix = ?, body = ? WHERE id = ?",
        (step, now, json.dumps(body), number),
    )


def recycles(
    transaction: Transaction, service: str | None = None, most: int = 100
) -> list[Recycle]:
    """Return the newest recycles, the newest first."""
    where = "" if service is None else "WHERE service = ?"
    values = (most,) if service is None else (service, most)
    rows = transaction.execute(f"SELECT * FROM recycles {where} ORDER BY id DESC LIMIT ?", values)
    return [_recycle(row) for row in rows]


def under_way(transaction: Transaction) -> list[Recycle]:
    """Return those that have begun and not ended."""
    marks = ", ".join("?" * len(UNDER_WAY))
    rows = transaction.execute(f"SELECT * FROM recycles WHERE state IN ({marks})", UNDER_WAY)
    return [_recycle(row) for row in rows]


def clear(transaction: Transaction, service: str) -> int:
    """Let a service be recycled again after failures; return how many there were."""
    failed = [each for each in recycles(transaction, service, MOST) if _blocks(each)]
    for each in failed:
        note(transaction, each.id, "failed", each.ended_unix, **{CLEARED: True})
    return len(failed)


def blocking_failure(transaction: Transaction, service: str) -> str:
    """Return why a service is not recycled any more, "" when it may be."""
    newest = recycles(transaction, service, 50)
    return next((str(each.about.get("error")) for each in newest if _blocks(each)), "")


def _blocks(recycle: Recycle) -> bool:
    return recycle.step == "failed" and not recycle.about.get(CLEARED)


def _recycle(row: Any) -> Recycle:
    return Recycle(
        id=row["id"],
        service=row["service"],
        instance=row["instance"],
        step=row["state"],
        began_unix=row["began_unix"],
        ended_unix=row["ended_unix"],
        about=json.loads(row["body"]),
    )
