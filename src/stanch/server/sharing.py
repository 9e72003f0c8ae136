"""Servers that share a store: which services are this one's, as of now.

Each writes a sign of life into the store every few seconds, with the members by which it divides
the services, and then reads the others'. A service becomes this server's when all that is known
says so: by its own members, told in the store, it is the owner, and nobody else who may live claims
it. It stays so until the members change, when the detection hands over before another server
begins; or until no sign has been written for most of a lifetime, as then the others take this
server for dead.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stanch.server.configuration import DEFAULT_LIFETIME_S
from stanch.server.members import Roster, owner_of, ranked
from stanch.store.engine import Engine
from stanch.store.errors import StoreError
from stanch.store.sqlshared import Beat, read_beats, write_beat

_BEATS_IN_A_LIFETIME = 6
_SURE = 0.8
"""So much of a lifetime after its last sign a server acts; the others wait for all of it."""
_LAST_WORD_S = 10.0


def uptime_s() -> float:
    """A clock that never jumps, and goes on while the machine sleeps where there is such a one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Standing:
    """How the sharing is. members: the servers that this one divides by, itself among them.

    acts: whether the store knows that this server lives. changes: of the members so far. trouble:
    why not, or what else is wrong, a sentence, or "".
    """

    name: str
    members: tuple[str, ...]
    acts: bool
    changes: int
    trouble: str


class Sharing:
    """One server's part. Its methods may be called from several threads. Use it in a `with` block,
    at whose end the others are told that this server has left.

    name: told apart from all others'. lifetime_s: see Roster. clock: never jumps.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        lifetime_s: float = DEFAULT_LIFETIME_S,
        *,
        clock: Callable[[], float] = uptime_s,
    ) -> None:
        self.name = name
        self._engine = engine
        self._lifetime_s = lifetime_s
        self._every_s = lifetime_s / _BEATS_IN_A_LIFETIME
        self._clock = clock
        self._incarnation = secrets.randbits(63)
        self._beat = 0
        self._roster = Roster(name, self._incarnation, lifetime_s, 2 * self._every_s)
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards all below
        self._told: tuple[str, ...] = ()
        """Members that stand in the store, and after which the others' were read."""
        self._next: tuple[str, ...] = ()
        """Members that are to be told next."""
        self._wanted: tuple[str, ...] = (name,)
        """Members as they are; more of them take effect when the detection has handed over."""
        self._claims: tuple[tuple[str, tuple[str, ...]], ...] = ()
        self._held: set[str] = set()
        """What was this server's since it told its members, whatever others claim."""
        self._sure_until_s = float("-inf")
        self._term = 0
        self._changes = 0
        self._trouble = "no sign of life of this server is in the store yet"

    def __enter__(self) -> "Sharing":
        """Raises StoreError for a store whose tables are of an earlier version."""
        try:
            read_beats(self._engine)
        except StoreError as error:
            if "UNKNOWN_TABLE" in str(error):
                raise StoreError(
                    "the tables of the cluster are of an earlier version, without signs of life of"
                    " servers; run 'stanch store init' again, which adds them"
                ) from error
        self._beat_safely()
        self._thread = threading.Thread(target=self._run, name="stanch-sharing", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_LAST_WORD_S)
        with self._lock:
            self._give_all_up()
            last = Beat(self.name, self._incarnation, self._beat + 1, (), left=True)
        # Without it the others wait for a lifetime.
        with contextlib.suppress(StoreError):
            write_beat(self._engine, last)

    @property
    def acts(self) -> bool:
        """Whether the store has had a sign of this server, so that nobody takes it for dead."""
        return self._clock() < self._sure_until_s

    @property
    def term(self) -> int:
        """Rises whenever this server has lost all, such as after it could not write for a while."""
        with self._lock:
            return self._term

    def standing(self) -> Standing:
        """How the sharing is."""
        with self._lock:
            return Standing(self.name, self._wanted, self.acts, self._changes, self._trouble)

    def owns(self, service: str) -> bool:
        """Whether this server judges a service, and tells people of it."""
        with self._lock:
            mine = all(
                owner_of(members, service) == self.name
                for members in (self._told, self._next, self._wanted)
            )
            if not mine or not self.acts:
                self._held.discard(service)
                return False
            if service not in self._held:
                if any(owner_of(members, service) == other for other, members in self._claims):
                    return False
                self._held.add(service)
            return True

    def owner(self, service: str) -> str:
        """Which server has a service, as far as this one knows; "" while none has."""
        with self._lock:
            claims = [*self._claims, (self.name, self._told)]
        return next((one for one, members in claims if owner_of(members, service) == one), "")

    def before(self, service: str) -> frozenset[str]:
        """The members that a service would go to sooner than to this server."""
        with self._lock:
            order = ranked(self._wanted, service)
        return frozenset(order[: order.index(self.name)])

    def turn(self) -> tuple[str, ...]:
        """The members to hand over to; give them to `handed_over` when that is done."""
        with self._lock:
            return self._wanted

    def handed_over(self, members: tuple[str, ...]) -> None:
        """What is no longer this server's by these members, others may take up."""
        with self._lock:
            if members == self._wanted != self._next:
                self._next = members
                self._wake.set()

    def sign(self) -> None:
        """Write a sign of life, read the others', and see whose the services are.

        For one thread at a time. Raises StoreError.
        """
        began_s = self._clock()
        beat = self._beat + 1
        with self._lock:
            if not self.acts or self._roster.has_double():
                # Others may have taken over; begin as one that has just come.
                self._give_all_up()
            telling = self._next
        write_beat(self._engine, Beat(self.name, self._incarnation, beat, telling))
        self._beat = beat
        beats = read_beats(self._engine)
        now_s = self._clock()
        if now_s - began_s >= _SURE * self._lifetime_s:
            raise StoreError(f"it took {now_s - began_s:.0f} s")
        self._roster.read(beats, now_s)
        with self._lock:
            self._told = telling
            self._claims = self._roster.claims()
            self._sure_until_s = began_s + _SURE * self._lifetime_s
            self._trouble = ""
            if self._roster.has_double():
                self._give_all_up()
                self._trouble = (
                    f"another server is called {self.name} too; give each a `name` of its own"
                )
                return
            members = self._roster.members()
            if members != self._wanted:
                self._wanted = members
                self._changes += 1
            if self._next != members and set(members) <= set(self._next or members):
                # Nothing is lost by it, so there is nothing to hand over.
                self._next = members
                self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._every_s)
            self._wake.clear()
            if not self._stopping:
                self._beat_safely()

    def _beat_safely(self) -> None:
        try:
            self.sign()
        except StoreError as error:
            with self._lock:
                self._trouble = f"this server cannot tell the others that it lives: {error}"

    def _give_all_up(self) -> None:
        """Claim nothing any more; `_lock` is held."""
        self._told = self._next = ()
        self._term += 1
        self._held.clear()
        self._sure_until_s = float("-inf")
