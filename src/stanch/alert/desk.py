"""The desk: from what is wrong now to alarms in the journal and messages in the outbox.

`observe` is called after each look, from one thread. What it changes and what it tells become
durable together, so a process that is killed at any moment tells each thing exactly once.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from stanch.alert.alarm import Alarm, alarm_from_json, alarm_to_json
from stanch.alert.condition import Condition, without_doubles
from stanch.alert.handover import Handover
from stanch.alert.lifecycle import News, Policy, Quiet, follow
from stanch.alert.message import Message, message_key
from stanch.alert.outbox import put, undelivered, withdraw
from stanch.alert.silences import Marked, Window, marks, quiet_of, replace_silences, windows
from stanch.journal import Journal, Transaction

_SAVE_EVERY_S = 60.0
_MOST_ALARMS = 2000
"""So many causes are followed; beyond, the oldest that are resolved are forgotten."""


@dataclass(frozen=True, slots=True)
class Illustration:
    """What goes with a message: a link to the finding and a chart, PNG in base64; "" for none."""

    link: str = ""
    picture: str = ""


def nothing_harmless(_service: str) -> str | None:
    """Return None: no leak is harmless where nothing is recycled."""
    return None


def no_illustration(_condition: Condition) -> Illustration:
    """Return neither link nor picture."""
    return Illustration()


class AlarmDesk:
    """Follows all alarms of a journal.

    receivers_of: names of those who are to be told of a service's alarms. harmless: why the leaks
    of a service do no harm now, None when they do. illustrate: asked once for each message.
    """

    def __init__(
        self,
        journal: Journal,
        policy: Policy,
        receivers_of: Callable[[str], Iterable[str]],
        *,
        harmless: Callable[[str], str | None] = nothing_harmless,
        illustrate: Callable[[Condition], Illustration] = no_illustration,
    ) -> None:
        """Take up the journal's alarms where an earlier process left them. Raises JournalError."""
        self._journal = journal
        self._policy = policy
        self._receivers_of = receivers_of
        self._harmless = harmless
        self._illustrate = illustrate
        self._saved_unix = 0.0
        self._marks: dict[str, Marked] = {}
        self._windows: list[Window] = []
        self._delivered: dict[str, Alarm] = {}
        with journal.read() as transaction:
            # Since when a cause is unseen counts from this process's first look, not from before.
            self._alarms = {
                alarm.fingerprint: replace(alarm, unseen_unix=None)
                for alarm in stored_alarms(transaction)
            }

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All alarms, those that are over too."""
        return tuple(self._alarms.values())

    def observe(
        self, now_unix: float, conditions: Iterable[Condition], looked_at: Collection[str]
    ) -> list[Message]:
        """Take in what is wrong now; return the messages that were put into the outbox.

        looked_at: the services that were looked at: only there a missing condition means anything.
        Raises JournalError; then nothing has changed, and the next call makes up for it.
        """
        shown: dict[str, Condition] = {}
        told = {alarm.fingerprint for alarm in self.alarms if alarm.told_stage}
        for condition in without_doubles(conditions, told):
            shown.setdefault(condition.fingerprint, condition)
        with self._journal.read() as transaction:
            self._marks, self._windows = marks(transaction), windows(transaction)
        after: dict[str, Alarm | None] = {}
        messages: list[Message] = []
        for fingerprint in [*self._alarms, *(new for new in shown if new not in self._alarms)]:
            before = self._alarms.get(fingerprint)
            seen = shown.get(fingerprint)
            service = seen.service if seen is not None else before and before.service
            alarm, news = follow(
                before,
                seen,
                self._quiet(before, seen, now_unix),
                now_unix,
                self._policy,
                looked=service in looked_at,
            )
            if alarm is not None and news is not None:
                if news in ("firing", "worse") and seen is not None:
                    picture = self._illustrate(seen)
                    alarm = replace(alarm, link=picture.link, picture=picture.picture)
                messages.append(_message(alarm, news, before, now_unix))
            if alarm != before:
                after[fingerprint] = alarm
        self._save(now_unix, after, messages)
        return messages

    def leave(self) -> Handover:
        """What a server that takes this one's place has to know. Raises JournalError.

        An alarm is left as it was when all receivers had got its messages: one that is under way
        is rather told twice than never.
        """
        with self._journal.read() as transaction:
            waiting = undelivered(transaction)
            marked, open_windows = marks(transaction), windows(transaction)
        before, self._delivered = self._delivered, {}
        for fingerprint, alarm in self._alarms.items():
            if fingerprint in waiting:
                if fingerprint in before:
                    self._delivered[fingerprint] = before[fingerprint]
            elif alarm.status == "firing" and alarm.told_stage:
                self._delivered[fingerprint] = alarm
        left = tuple(self._delivered.values())
        return Handover(left, tuple(marked.values()), tuple(open_windows))

    def take_up(self, left: Handover, now_unix: float) -> None:
        """Go on where another server has left off. Raises JournalError.

        What that one told is told; what this one told before, and that one no more, is over. An
        alarm whose messages this server still has to deliver stays as it is here.
        """
        told = {alarm.fingerprint: alarm for alarm in left.alarms}
        with self._journal.write() as transaction:
            waiting = undelivered(transaction)
            after = {
                fingerprint: _taken_up(alarm, told.get(fingerprint), now_unix)
                for fingerprint, alarm in {**told, **self._alarms}.items()
                if fingerprint not in waiting
            }
            for fingerprint, alarm in after.items():
                _store(transaction, fingerprint, alarm)
            replace_silences(transaction, left.marks, left.windows)
        self._alarms.update(after)

    def take_over(self, services: Collection[str], told: Iterable[Alarm], now_unix: float) -> None:
        """Go on with the alarms of services where another server has left off. Raises JournalError.

        told: what that one has told of them. An alarm whose messages this server still has to
        deliver stays as it is here.
        """
        left = {alarm.fingerprint: alarm for alarm in told}
        here = {alarm.fingerprint: alarm for alarm in self.alarms if alarm.service in services}
        with self._journal.write() as transaction:
            waiting = undelivered(transaction)
            after = {
                fingerprint: _taken_up(alarm, left.get(fingerprint), now_unix)
                for fingerprint, alarm in {**left, **here}.items()
                if fingerprint not in waiting
            }
            for fingerprint, alarm in after.items():
                _store(transaction, fingerprint, alarm)
        self._alarms.update(after)

    def give_up(self, services: Collection[str]) -> frozenset[str]:
        """Forget the alarms of services that another server takes over, and take their messages
        back. Raises JournalError.

        Returns the fingerprints of those whose message is just being sent: they are forgotten by a
        later call.
        """
        theirs = {alarm.fingerprint for alarm in self.alarms if alarm.service in services}
        with self._journal.write() as transaction:
            under_way = withdraw(transaction, theirs)
            for fingerprint in theirs - under_way:
                _store(transaction, fingerprint, None)
        for fingerprint in theirs - under_way:
            del self._alarms[fingerprint]
        return frozenset(under_way)

    def _quiet(
        self, alarm: Alarm | None, condition: Condition | None, now_unix: float
    ) -> Quiet | None:
        probe, _ = follow(alarm, condition, None, now_unix, self._policy)
        if probe is None:
            return None
        marked = self._marks.get(probe.fingerprint)
        return quiet_of(probe, marked, self._windows, self._harmless, now_unix)

    def _save(
        self, now_unix: float, after: dict[str, Alarm | None], messages: list[Message]
    ) -> None:
        """Write what changed. Mere numbers are written now and then, changes of state at once."""
        is_due = abs(now_unix - self._saved_unix) >= _SAVE_EVERY_S
        urgent = {
            fingerprint
            for fingerprint, alarm in after.items()
            if is_due or _state(alarm) != _state(self._alarms.get(fingerprint))
        }
        if urgent:
            with self._journal.write() as transaction:
                for fingerprint in urgent:
                    _store(transaction, fingerprint, after[fingerprint])
                for message in messages:
                    put(transaction, message, self._receivers_of(message.alarm.service))
            if is_due:
                self._saved_unix = now_unix
        for fingerprint, alarm in after.items():
            if alarm is None:
                del self._alarms[fingerprint]
            else:
                self._alarms[fingerprint] = alarm
        self._forget_beyond_bound()

    def _forget_beyond_bound(self) -> None:
        over = len(self._alarms) - _MOST_ALARMS
        if over <= 0:
            return
        resolved = [alarm for alarm in self.alarms if alarm.status == "resolved"]
        oldest = sorted(resolved, key=lambda alarm: alarm.resolved_unix or 0.0)[:over]
        with self._journal.write() as transaction:
            for alarm in oldest:
                _store(transaction, alarm.fingerprint, None)
        for alarm in oldest:
            del self._alarms[alarm.fingerprint]


def _taken_up(alarm: Alarm, left: Alarm | None, now_unix: float) -> Alarm:
    """An alarm as another server has left it; None where that one had nothing told of it."""
    if left is not None:
        # What it looks like now this one has seen itself, if anybody has.
        return replace(
            left,
            seen_unix=max(left.seen_unix, alarm.seen_unix),
            unseen_unix=None,
            rate=alarm.rate,
            death_unix=alarm.death_unix,
            first_to_die=alarm.first_to_die,
            instances=alarm.instances,
            text=alarm.text,
            picture=alarm.picture,
        )
    if not alarm.told_stage:
        return alarm
    return replace(alarm, status="resolved", resolved_unix=now_unix, told_stage="", told_rate=None)


def stored_alarms(transaction: Transaction) -> list[Alarm]:
    """Return all alarms of a journal; one that cannot be read is left out."""
    found = []
    for row in transaction.execute("SELECT body FROM alarms"):
        try:
            found.append(alarm_from_json(row["body"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _store(transaction: Transaction, fingerprint: str, alarm: Alarm | None) -> None:
    if alarm is None:
        transaction.execute("DELETE FROM alarms WHERE fingerprint = ?", (fingerprint,))
        return
    transaction.execute(
        "INSERT OR REPLACE INTO alarms VALUES (?, ?, ?)",
        (fingerprint, alarm.status, alarm_to_json(alarm)),
    )


def _state(alarm: Alarm | None) -> tuple[object, ...]:
    """What of an alarm must not be lost."""
    if alarm is None:
        return ()
    return (alarm.status, alarm.episode, alarm.stage, alarm.told, alarm.quiet)


def _message(alarm: Alarm, news: News, before: Alarm | None, now_unix: float) -> Message:
    return Message(
        key=message_key(alarm),
        news=news,
        alarm=alarm,
        at_unix=now_unix,
        before=before.told_stage if before is not None else "",
    )
