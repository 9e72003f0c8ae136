"""Alarms of a watch: from its states to the journal, and from the outbox to the receivers.

A journal or a receiver that fails is told as `trouble`, in a sentence; the watch goes on, and what
was to be told is told when they work again.
"""

import base64
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from stanch.alert import AlarmDesk, Condition, condition_of
from stanch.alert.configuration import AlarmConfiguration, make_receivers
from stanch.alert.courier import Courier
from stanch.alert.desk import Illustration, nothing_harmless
from stanch.alert.handover import handover_from_json, handover_to_json
from stanch.alert.message import Message
from stanch.alert.picture import memory_chart
from stanch.journal import Journal, JournalError
from stanch.server.sharedalarms import SharedAlarms
from stanch.server.watch import WatchState
from stanch.store import ServiceSeries
from stanch.store.errors import StoreError

LAST_TRY_S = 5.0


class Alarming:
    """Takes the states of a watch; tells who is to be told, in a thread of its own.

    directory: the data directory. series: what is known of a service, for the chart. harmless: why
    the leaks of a service do no harm now. shared: when several servers share a store; closed with
    this. Use it in a `with` block.
    """

    def __init__(
        self,
        configuration: AlarmConfiguration,
        directory: Path,
        *,
        series: Callable[[str], ServiceSeries],
        harmless: Callable[[str], str | None] = nothing_harmless,
        shared: SharedAlarms | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigurationError and JournalError."""
        self._shared = shared
        self._is_first_shift = True
        self._configuration = configuration
        self._series = series
        self._wall = wall
        self._journal = Journal(directory)
        self._desk = AlarmDesk(
            self._journal,
            configuration.policy,
            configuration.receivers_of,
            harmless=harmless,
            illustrate=self._illustrate,
        )
        receivers = make_receivers(configuration, wall)
        self._trouble: str | None = None
        self._courier = Courier(
            directory,
            receivers,
            configuration.receivers_of,
            wall,
            may_deliver=lambda: shared is None or shared.may_tell(),
            delivered=self._publish,
        )
        if self._journal.put_aside is not None:
            self._trouble = f"the journal was damaged; it is kept as {self._journal.put_aside}"

    def __enter__(self) -> "Alarming":
        self._courier.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._courier.close(LAST_TRY_S)
        self._publish()
        self._journal.close()
        if self._shared is not None:
            self._shared.close()

    @property
    def desk(self) -> AlarmDesk:
        """The alarms."""
        return self._desk

    @property
    def trouble(self) -> str | None:
        """What does not work now, in a sentence, or None."""
        return self._trouble or self._courier.trouble

    def take(self, state: WatchState, more: Iterable[Condition] = ()) -> list[Message]:
        """Take in a state, and conditions of other origin; return what is told. Never raises
        for a journal that cannot be written: that is `trouble`."""
        now_unix = self._wall()
        found = (condition_of(finding, now_unix) for finding in state.findings)
        conditions = [*(condition for condition in found if condition is not None), *more]
        looked_at = {row.service for row in state.rows if row.verdict not in ("down", "unknown")}
        try:
            told = self._desk.observe(now_unix, conditions, looked_at)
        except JournalError as error:
            self._trouble = str(error)
            return []
        self._trouble = None
        self._publish()
        return told

    def shift(self, lost: Collection[str], gained: Collection[str]) -> None:
        """Leave services to the servers that they belong to now, and take up others where their
        servers have left off, with the marks and windows set there.

        Raises StoreError; then it is to be called again.
        """
        if self._shared is None:
            return
        if self._is_first_shift:
            # What an earlier process has left belongs to whom the services belong to now.
            left = {alarm.service for alarm in self._desk.alarms}
            lost = frozenset(lost) | (left - set(gained))
        try:
            self._shared.share_silences()
            self._shared.give_up(self._desk, lost)
            self._shared.take_over(self._desk, gained)
            self._shared.publish()
        except JournalError as error:
            raise StoreError(f"alarms cannot be handed over: {error}") from error
        self._is_first_shift = False

    def _publish(self) -> None:
        """Let the other servers know what was told; what fails is made up for by the next time."""
        if self._shared is None:
            return
        try:
            self._shared.publish()
        except (JournalError, StoreError) as error:
            self._trouble = f"other servers are not told what was told here: {error}"

    def leave(self) -> str | None:
        """What a server that takes this one's place has to know, for its `take_up`; None when it
        cannot be told now, which is `trouble`."""
        try:
            return handover_to_json(self._desk.leave())
        except JournalError as error:
            self._trouble = str(error)
            return None

    def take_up(self, left: str) -> None:
        """Go on where another server has left off. Never raises: what cannot be read or written is
        `trouble`, and then this one tells again what it sees."""
        try:
            self._desk.take_up(handover_from_json(left), self._wall())
        except (JournalError, ValueError) as error:
            self._trouble = f"what the server before has told is not known: {error}"

    def _illustrate(self, condition: Condition) -> Illustration:
        link = self._configuration.link
        for name in ("service", "fingerprint"):
            link = link.replace(f"{{{name}}}", str(getattr(condition, name)))
        return Illustration(link, self._picture(condition))

    def _picture(self, condition: Condition) -> str:
        lives = self._series(condition.service).lives
        wanted = condition.first_to_die or next(iter(condition.instances), "")
        life = next((life for life in lives if life.instance == wanted), None)
        if life is None:
            return ""
        death_s = None
        if condition.death_unix is not None and life.time_s.size:
            death_s = float(life.time_s[-1]) + condition.death_unix - self._wall()
        chart = memory_chart(life.time_s, life.memory_bytes, life.limit_bytes, death_s)
        return base64.b64encode(chart).decode("ascii") if chart is not None else ""
