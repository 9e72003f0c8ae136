"""Which life of an instance a look belongs to, on the life's own clock.

The same questions as in memory (`life.is_same_life`) tell one life from the next, and the same
share of the limit a death from a restart. What is known of an instance is small, so all of them
are remembered while they are heard of; after a restart of the server it is read from the store.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from stanch.store.decoder import digest
from stanch.store.life import NEAR_LIMIT, is_same_life
from stanch.store.model import Look, ProcessLook
from stanch.store.record import LifeState

REFRESH_S = 60.0
"""A row of the table of lives is written at least so often while the life goes on."""
ROLLED_EVERY_S = 300.0
"""So often a heap, and counts, of a life are kept in the coarse table too."""
_SURE_FOR_MS = 120_000
"""After so long without a look another server may have seen a new life with the same pid."""
_FORGET_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a look stands: its life, the life's clock, and what the table of lives must know.

    offsets_s: for each process of the look, what its own birth seconds are less than the life's.
    rolled: whether its samples are the first ones of a kind in some minutes. ended: the life that
    was before, when this look shows that it is over, and its last look.
    """

    life: int
    age_s: float
    offsets_s: tuple[float, ...]
    lives: tuple[LifeState, ...]
    rolled: bool = False
    ended: tuple[LifeState, Look] | None = None


@dataclass(slots=True)
class _Known:
    """An instance: its life's state, the last look without its heaps, and the last memory."""

    state: LifeState
    last: Look
    written_ms: int
    offsets_s: dict[int | None, float]
    memory: tuple[float | None, float | None] = (None, None)
    rolled: dict[str, int] = field(default_factory=dict)


class Tracker:
    """Remembers the running life of each instance. For one thread at a time."""

    def __init__(self, running: Iterable[LifeState] = ()) -> None:
        """running: the lives that a store knows of."""
        self._known: dict[tuple[str, str], _Known] = {}
        for state in running:
            self._known[state.service, state.instance] = _remembered(state)

    def fits(self, look: Look) -> bool:
        """Whether a look is of the life that is known of its instance, from a short while ago."""
        known = self._known.get((look.service, look.instance))
        return (
            known is not None
            and is_same_life(known.last, look)
            and look.unix_s * 1000 - known.state.seen_ms <= _SURE_FOR_MS
        )

    def learn(self, look: Look, states: Iterable[LifeState]) -> None:
        """Before a look that does not fit: go on with what a store knows of its instance.

        states: its running lives, which other servers may have begun, the newest first. That of the
        look is taken, else the newest, which the look will end.
        """
        remembered = [_remembered(state) for state in states]
        same = [known for known in remembered if is_same_life(known.last, look)]
        key = (look.service, look.instance)
        if same or (remembered and key not in self._known):
            self._known[key] = (same or remembered)[0]

    def place(self, look: Look, memory_bytes: float | None, kinds: Iterable[str] = ()) -> Moment:
        """The place of a look, which counts as seen. Its heaps are asked for their sums only.

        memory_bytes: what counts against the limit. kinds: of the profiles that came with it.
        """
        unix_ms = round(look.unix_s * 1000)
        key = (look.service, look.instance)
        known = self._known.get(key)
        written: list[LifeState] = []
        ended = None
        if known is not None and not is_same_life(known.last, look):
            end = "killed" if _near_limit(known) else "restarted"
            ended = replace(known.state, end=end), known.last
            written.append(ended[0])
            known = None
        if known is None:
            known = self._known[key] = _begin(look, unix_ms)
            written.append(known.state)
        known.last = look
        known.memory = (known.memory[1], memory_bytes)
        state = known.state = replace(
            known.state,
            seen_ms=max(unix_ms, known.state.seen_ms),
            limit_bytes=look.limit_bytes or known.state.limit_bytes,
            memory_bytes=known.state.memory_bytes if memory_bytes is None else memory_bytes,
            language=look.language or known.state.language,
            release=look.release or known.state.release,
        )
        if written:
            written[-1] = state
        elif state.seen_ms - known.written_ms >= REFRESH_S * 1000:
            written.append(state)
        if written:
            known.written_ms = state.seen_ms
        age_s = _age_s(look, known.state, unix_ms)
        offsets_s = _offsets_s(known, look, age_s)
        # Lives have their turns at different moments, so that a fleet's load is even.
        every_ms = round(ROLLED_EVERY_S * 1000)
        turn = (unix_ms + state.life % every_ms) // every_ms
        due = [kind for kind in kinds if known.rolled.get(kind) != turn]
        known.rolled.update(dict.fromkeys(due, turn))
        return Moment(state.life, age_s, offsets_s, tuple(written), bool(due), ended)

    def forget_silent(self, now_ms: int) -> None:
        """Forget the instances that have not been heard of for a day."""
        silent = [
            key for key, known in self._known.items() if known.state.seen_ms < now_ms - _FORGET_MS
        ]
        for key in silent:
            del self._known[key]

    def life_of(self, service: str, instance: str) -> LifeState | None:
        """The running life of an instance."""
        known = self._known.get((service, instance))
        return known.state if known is not None else None


def _remembered(state: LifeState) -> _Known:
    """What a store knows of a life, as if its last look had just been taken."""
    age_s = (state.seen_ms - state.start_ms) / 1000
    process = ProcessLook(pid=state.pid, age_s=age_s)
    look = Look(state.service, state.instance, 0.0, 0.0, state.language, (process,))
    return _Known(state, look, state.seen_ms, {}, (None, state.memory_bytes))


def _begin(look: Look, unix_ms: int) -> _Known:
    oldest = look.processes[0] if look.processes else ProcessLook()
    start_ms = unix_ms - round((oldest.age_s or 0.0) * 1000)
    name = digest(f"{look.service}\0{look.instance}\0{start_ms}\0{oldest.pid}".encode())
    state = LifeState(
        life=struct.unpack_from("<Q", name)[0],
        service=look.service,
        instance=look.instance,
        start_ms=start_ms,
        seen_ms=unix_ms,
        end="running",
        release=look.release,
        language=look.language,
        pid=oldest.pid,
        limit_bytes=look.limit_bytes,
        memory_bytes=None,
    )
    return _Known(state, look, unix_ms, {})


def _age_s(look: Look, state: LifeState, unix_ms: int) -> float:
    age_s = look.processes[0].age_s if look.processes else None
    return age_s if age_s is not None else max(0.0, (unix_ms - state.start_ms) / 1000)


def _offsets_s(known: _Known, look: Look, age_s: float) -> tuple[float, ...]:
    """Measured once for each process, so that the jitter of looks does not smear the bands."""
    alive = {process.pid for process in look.processes}
    known.offsets_s = {pid: offset for pid, offset in known.offsets_s.items() if pid in alive}
    return tuple(
        known.offsets_s.setdefault(process.pid, age_s - (process.age_s or age_s))
        for process in look.processes
    )


def _near_limit(known: _Known) -> bool:
    """Whether memory stood at its limit at the end, or would have by the next look."""
    before, last = known.memory
    limit = known.state.limit_bytes
    if limit is None or last is None:
        return False
    rise = max(0.0, last - before) if before is not None else 0.0
    return last + 1.5 * rise >= NEAR_LIMIT * limit
