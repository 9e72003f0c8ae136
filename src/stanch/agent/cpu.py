"""The CPU profile: which Python stacks the CPU time of this process went to.

A hundred times a second each thread's stack is taken, and what the thread's CPU clock gained since
the last time is put on it. So threads that wait cost nothing in the profile, whatever they wait
for. The agent's own threads are left out. CPU time of threads that Python does not know, or that
came and went between two looks, is one frame of its own.
"""

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from stanch.agent.daemons import THREAD_PREFIX
from stanch.agent.stacks import Locations, Stack, frame_stack
from stanch.profile import Profile, Sample, ValueType

PERIOD_NS = 10_000_000
SAMPLE_TYPES = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
SUPPORTED = sys.platform == "linux"
UNSEEN = "[unseen threads]"

_LOOKS_PER_CHECK = 20


def cpu_profile(
    seconds: float,
    *,
    wanted: Callable[[], bool] = lambda: True,
    comments: tuple[str, ...] = (),
) -> Profile:
    """Watch the process for `seconds`, or until `wanted`, asked 5 times a second, turns false.

    Raises OSError where the system has no CPU clocks of single threads (SUPPORTED is false).
    """
    began_ns, began_unix_ns = time.monotonic_ns(), time.time_ns()
    watch = _Watch()
    end_ns = began_ns + round(seconds * 1e9)
    looks = 0
    while True:
        now_ns = time.monotonic_ns()
        # The next whole period, not the next after this look: a late look is not followed by more.
        next_ns = min(now_ns + PERIOD_NS - (now_ns - began_ns) % PERIOD_NS, end_ns)
        time.sleep(max(next_ns - now_ns, 0) / 1e9)
        watch.look()
        looks += 1
        if next_ns >= end_ns or (looks % _LOOKS_PER_CHECK == 0 and not wanted()):
            break
    return watch.profile(began_unix_ns, time.monotonic_ns() - began_ns, comments)


def thread_cpu_ns(native_id: int) -> int | None:
    """Return the CPU time of a thread of this process, None when there is no such thread.

    The clock's number is made from the kernel's thread id, as the C library does, because
    pthread_getcpuclockid reads freed memory when the thread is gone; the kernel just says so.
    Bits: the id's complement, CPUCLOCK_PERTHREAD_MASK 4, CPUCLOCK_SCHED 2
    (include/linux/posix-timers.h).
    """
    try:
        return time.clock_gettime_ns((~native_id << 3) | 6)
    except OSError:
        return None


class _Watch:
    """What was seen of the threads since the start."""

    def __init__(self) -> None:
        self._cpu_ns: dict[Stack, int] = defaultdict(int)
        self._own_ns = 0
        self._process_ns = time.process_time_ns()
        self._clocks: dict[int, int] = {}
        for thread in _known_threads():
            cpu_ns = thread_cpu_ns(thread.native_id)
            if cpu_ns is not None:
                self._clocks[thread.native_id] = cpu_ns

    def look(self) -> None:
        """Put the CPU time since the last look on the stacks of now."""
        frames = sys._current_frames()
        clocks: dict[int, int] = {}
        for thread in _known_threads():
            cpu_ns = thread_cpu_ns(thread.native_id)
            if cpu_ns is None:
                continue
            clocks[thread.native_id] = cpu_ns
            # A thread that is new here spent all its time since the last look.
            gained_ns = cpu_ns - self._clocks.get(thread.native_id, 0)
            if gained_ns <= 0:
                continue
            if thread.is_own:
                self._own_ns += gained_ns
            elif thread.ident in frames:
                self._cpu_ns[frame_stack(frames[thread.ident])] += gained_ns
        self._clocks = clocks

    def profile(self, unix_ns: int, duration_ns: int, comments: tuple[str, ...]) -> Profile:
        """Return all that was seen."""
        locations = Locations()
        unseen_ns = (
            time.process_time_ns() - self._process_ns - self._own_ns - sum(self._cpu_ns.values())
        )
        samples = [
            Sample(locations.of(stack), _values(cpu_ns)) for stack, cpu_ns in self._cpu_ns.items()
        ]
        if unseen_ns >= PERIOD_NS:
            samples.append(Sample(locations.named(UNSEEN), _values(unseen_ns)))
        return Profile(
            sample_types=SAMPLE_TYPES,
            samples=tuple(samples),
            default_sample_type="cpu",
            period_type=ValueType("cpu", "nanoseconds"),
            period=PERIOD_NS,
            time_nanos=unix_ns,
            duration_nanos=duration_ns,
            comments=comments,
            mappings=(locations.mapping,),
        )


def _values(cpu_ns: int) -> tuple[int, int]:
    return max(round(cpu_ns / PERIOD_NS), 1), cpu_ns


@dataclass(frozen=True, slots=True)
class _KnownThread:
    """A thread that `threading` knows, and the kernel's id for it."""

    ident: int
    native_id: int
    is_own: bool


def _known_threads() -> list[_KnownThread]:
    # A copy of the registry: enumerate() would wait for a lock that a thread of the host may hold.
    active = dict(threading._active)  # type: ignore[attr-defined]
    main = threading.main_thread()
    known = []
    for ident, thread in active.items():
        # In a forked child CPython 3.11 leaves the parent's id on the main thread.
        native_id = os.getpid() if thread is main else thread.native_id
        if native_id is not None:
            known.append(_KnownThread(ident, native_id, thread.name.startswith(THREAD_PREFIX)))
    return known
