"""The outbox: messages that are to reach each receiver, in order, until each has taken them.

A message is put in by the same transaction that changes its alarm, so neither is without the other.
`queued` becomes `sending` before it is sent and `sent` after it was taken; a message found in
`sending` was under way when the process died, so the receiver may have it. A receiver gets its
messages in order, the next one only when the one before was taken or refused for good.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from stanch.alert.message import Message, message_from_json, message_to_json
from stanch.journal import Transaction

MOST_WAITING = 10_000
KEPT_SENT = 10_000
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 300.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message on its way. uncertain: it may have arrived before, for all we know."""

    id: int
    receiver: str
    message: Message
    tries: int
    uncertain: bool


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """How many messages of a receiver are in which state; error: the newest one's, or ""."""

    receiver: str
    waiting: int
    sent: int
    refused: int
    error: str


def put(transaction: Transaction, message: Message, receivers: Iterable[str]) -> int:
    """Put a message in for each receiver that has not got it yet; return for how many.

    None is taken in beyond MOST_WAITING: then a receiver has been away for so long that its
    alarms are known by other means, and the count says so.
    """
    waiting = transaction.execute(
        "SELECT count(*) FROM outbox WHERE state IN ('queued', 'sending')"
    ).fetchone()[0]
    text = message_to_json(message)
    taken = 0
    for receiver in receivers:
        if waiting + taken >= MOST_WAITING:
            break
        row = (message.key, receiver, text, message.at_unix, message.at_unix)
        found = transaction.execute(
            "INSERT OR IGNORE INTO outbox"
            " (key, receiver, message, state, queued_unix, due_unix, tries, error)"
            " VALUES (?, ?, ?, 'queued', ?, ?, 0, '')",
            row,
        )
        taken += found.rowcount
    return taken


def undelivered(transaction: Transaction) -> set[str]:
    """Return the fingerprints of the alarms that a receiver has not got all messages of."""
    rows = transaction.execute("SELECT key FROM outbox WHERE state IN ('queued', 'sending')")
    return {_alarm_of(row["key"]) for row in rows}


def withdraw(transaction: Transaction, fingerprints: Collection[str]) -> set[str]:
    """Take the messages of alarms that are not being sent out of the outbox; return the
    fingerprints of those that are being sent."""
    rows = transaction.execute(
        "SELECT id, key, state FROM outbox WHERE state IN ('queued', 'sending')"
    ).fetchall()
    of_these = [row for row in rows if _alarm_of(row["key"]) in fingerprints]
    queued = [(row["id"],) for row in of_these if row["state"] == "queued"]
    transaction.executemany("DELETE FROM outbox WHERE id = ?", queued)
    return {_alarm_of(row["key"]) for row in of_these if row["state"] == "sending"}


def _alarm_of(key: str) -> str:
    return key.rsplit("-", 2)[0]


def take_next(transaction: Transaction, receiver: str, now_unix: float) -> Waiting | None:
    """Return the oldest message for a receiver, noted as being sent; None when none is due.

    One that cannot be read is set aside as refused.
    """
    row = transaction.execute(
        "SELECT * FROM outbox WHERE receiver = ? AND state IN ('queued', 'sending')"
        " ORDER BY id LIMIT 1",
        (receiver,),
    ).fetchone()
    # A clock that was set back must not hold a message up for longer than any retry would.
    if row is None or now_unix < row["due_unix"] <= now_unix + LONGEST_RETRY_S:
        return None
    try:
        message = message_from_json(row["message"])
    except (ValueError, KeyError, TypeError) as error:
        _set_aside(transaction, row["id"], f"cannot be read: {error!r}")
        return None
    transaction.execute(
        "UPDATE outbox SET state = 'sending', tries = tries + 1 WHERE id = ?", (row["id"],)
    )
    return Waiting(
        id=row["id"],
        receiver=receiver,
        message=message,
        tries=row["tries"] + 1,
        uncertain=row["state"] == "sending",
    )


def note_sent(transaction: Transaction, waiting: Waiting, now_unix: float) -> None:
    """The receiver has taken it. Only the newest KEPT_SENT of those are kept."""
    transaction.execute(
        "UPDATE outbox SET state = 'sent', sent_unix = ?, error = '' WHERE id = ?",
        (now_unix, waiting.id),
    )
    transaction.execute(
        "DELETE FROM outbox WHERE state IN ('sent', 'refused') AND id <="
        " (SELECT max(id) FROM outbox) - ?",
        (KEPT_SENT,),
    )


def note_failed(
    transaction: Transaction, waiting: Waiting, now_unix: float, error: str, *, uncertain: bool
) -> None:
    """It could not be delivered: try again later. uncertain: it may have arrived all the same."""
    pause_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(waiting.tries - 1, 16))
    transaction.execute(
        "UPDATE outbox SET state = ?, due_unix = ?, error = ? WHERE id = ?",
        ("sending" if uncertain else "queued", now_unix + pause_s, error, waiting.id),
    )


def note_refused(transaction: Transaction, waiting: Waiting, error: str) -> None:
    """The receiver will never take this message: it is set aside, and shown."""
    _set_aside(transaction, waiting.id, error)


def counts(transaction: Transaction) -> list[OutboxCounts]:
    """Return the counts of each receiver that has messages, by name."""
    rows = transaction.execute(
        "SELECT receiver, sum(state IN ('queued', 'sending')) AS waiting, sum(state = 'sent') AS"
        " sent, sum(state = 'refused') AS refused FROM outbox GROUP BY receiver ORDER BY receiver"
    ).fetchall()
    return [OutboxCounts(**row, error=_newest_error(transaction, row["receiver"])) for row in rows]


def _set_aside(transaction: Transaction, number: int, error: str) -> None:
    transaction.execute(
        "UPDATE outbox SET state = 'refused', error = ? WHERE id = ?", (error, number)
    )


def _newest_error(transaction: Transaction, receiver: str) -> str:
    row = transaction.execute(
        "SELECT error FROM outbox WHERE receiver = ? AND error != '' ORDER BY id DESC LIMIT 1",
        (receiver,),
    ).fetchone()
    return row["error"] if row is not None else ""
