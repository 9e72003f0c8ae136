"""The courier: takes messages out of the outbox and delivers them, again and again until taken.

One courier at a time works on a journal: a file lock that the kernel drops with the process keeps a
second server waiting. Receivers do not wait for each other's retries.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from stanch.alert.alarm import Alarm
from stanch.alert.desk import stored_alarms
from stanch.alert.outbox import Waiting, note_failed, note_refused, note_sent, take_next
from stanch.alert.receivers import DeliveryError, Receiver
from stanch.journal import HolderLock, Journal, JournalError

REFRESH_S = 60.0
ROUND_S = 0.5
STOP_S = 30.0
_MOST_IN_A_ROUND = 20


class Courier:
    """Delivers what is due, in the caller's thread by `deliver`, or in one of its own by `start`.

    receivers: by the names that the outbox knows. receivers_of: names of those who are to hear of
    a service. It opens a connection of its own to the journal. trouble: what went wrong last.
    """

    def __init__(
        self,
        directory: Path,
        receivers: Mapping[str, Receiver],
        receivers_of: Callable[[str], Iterable[str]],
        wall: Callable[[], float] = time.time,
        *,
        may_deliver: Callable[[], bool] = lambda: True,
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        """may_deliver: asked before each message. delivered: told after each that was taken.

        Raises JournalError.
        """
        self._journal = Journal(directory)
        self._may_deliver = may_deliver
        self._delivered = delivered
        self._receivers = dict(receivers)
        self._receivers_of = receivers_of
        self._wall = wall
        self._refreshed_unix: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = HolderLock(directory, "courier")
        self.trouble: str | None = None

    def start(self) -> None:
        """Deliver in a thread from now on, until `close`."""
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def close(self, deliver_for_s: float = 0.0) -> None:
        """Stop, after a last try for so long. What is not delivered by then stays in the outbox."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
        deadline = time.monotonic() + deliver_for_s
        while time.monotonic() < deadline and self._deliver_safely():
            pass
        for receiver in self._receivers.values():
            receiver.close()
        self._journal.close()
        self._lock.close()

    def deliver(self) -> int:
        """Try what is due once; return how many messages were taken. Raises JournalError.

        Nothing is tried while another process delivers from the same journal.
        """
        if not self._lock.take():
            return 0
        delivered = 0
        for name, receiver in self._receivers.items():
            for _ in range(_MOST_IN_A_ROUND):
                if self._deliver_next(name, receiver) is not True:
                    break
                delivered += 1
                self._delivered()
            self._refresh(name, receiver)
        return delivered

    def _run(self) -> None:
        while not self._stopping.wait(ROUND_S):
            self._deliver_safely()

    def _deliver_safely(self) -> int:
        try:
            delivered = self.deliver()
        except JournalError as error:
            self.trouble = str(error)
            return 0
        self.trouble = None
        return delivered

    def _deliver_next(self, name: str, receiver: Receiver) -> bool | None:
        """Deliver the next message; return whether that went well, None when none is due."""
        if not self._may_deliver():
            return None
        with self._journal.write() as transaction:
            waiting = take_next(transaction, name, self._wall())
        if waiting is None:
            return None
        try:
            receiver.send(waiting.message, uncertain=waiting.uncertain)
        except DeliveryError as error:
            self._note_failure(waiting, error)
            return False
        except Exception as error:  # A receiver's own fault must not stop the others.
            self._note_failure(waiting, DeliveryError(repr(error), uncertain=True))
            return False
        with self._journal.write() as transaction:
            note_sent(transaction, waiting, self._wall())
        return True

    def _note_failure(self, waiting: Waiting, error: DeliveryError) -> None:
        with self._journal.write() as transaction:
            if error.final:
                note_refused(transaction, waiting, str(error))
                return
            uncertain = error.uncertain or waiting.uncertain
            note_failed(transaction, waiting, self._wall(), str(error), uncertain=uncertain)

    def _refresh(self, name: str, receiver: Receiver) -> None:
        now_unix = self._wall()
        if not self._may_deliver():
            return
        if abs(now_unix - self._refreshed_unix.get(name, 0.0)) < REFRESH_S:
            return
        self._refreshed_unix[name] = now_unix
        with self._journal.read() as transaction:
            told = [alarm for alarm in stored_alarms(transaction) if _is_told(alarm)]
        firing = [alarm for alarm in told if name in self._receivers_of(alarm.service)]
        try:
            receiver.refresh(firing)
        except DeliveryError as error:
            self.trouble = f"{name}: {error}"


def _is_told(alarm: Alarm) -> bool:
    return alarm.status == "firing" and bool(alarm.told_stage)
