"""The asyncio tasks of all event loops of this process, seen from any thread.

Gives tasks and the stacks they wait in. asyncio is looked at only when the host has imported it.
Until 3.13 `asyncio.all_tasks` belongs to the thread of its loop, so the registries behind it are
read instead: copying a set is one step under the GIL, which no other thread can disturb. From 3.14
on the registry is C's own and `all_tasks(loop)` may be asked from any thread; what is left is to
find the loops, and those that run stand in the frames of their threads.
"""

import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from stanch.agent.stacks import MAX_DEPTH, Place, Stack

MAX_TASKS = 100_000
_MAX_ASKED = 10_000  # for their loops, of which there are few
MAX_FRAMES = 10_000  # of one thread, on the way out to the loop that it runs
_ASKS_LOOPS = sys.hexversion >= 0x030E0000

# Of a coroutine, a generator and an asynchronous generator: running, frame, what it waits for.
_KINDS = (
    ("cr_running", "cr_frame", "cr_await"),
    ("gi_running", "gi_frame", "gi_yieldfrom"),
    ("ag_running", "ag_frame", "ag_await"),
)


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks that are not done, at most MAX_TASKS, and how many more there were."""

    tasks: tuple[Any, ...] = ()
    left_out: int = 0


def current_tasks() -> Tasks:
    """Return the tasks of all loops that are not done."""
    module = sys.modules.get("asyncio.tasks")
    if module is None:
        return Tasks()
    found = _registered(module)
    kept = tuple(task for task in found[:MAX_TASKS] if not task.done())
    return Tasks(kept, max(len(found) - MAX_TASKS, 0))


def passing_queues() -> tuple[object, ...]:
    """Return what asyncio holds for the moment only: the tasks that run right now, and for each
    loop that has tasks the callbacks that it is about to run."""
    module = sys.modules.get("asyncio.tasks")
    if module is None:
        return ()
    held = [getattr(module, "_current_tasks", None)]
    for task in _registered(module)[:_MAX_ASKED]:
        try:
            held.append(getattr(task.get_loop(), "_ready", None))
        except Exception:  # a task of somebody else's kind
            continue
    return tuple({id(one): one for one in held if isinstance(one, deque | dict)}.values())


def _registered(module: Any) -> list[Any]:
    """Return what asyncio keeps: weak references until 3.11 in one set, from 3.12 on in two."""
    weak = getattr(module, "_scheduled_tasks", None)
    if weak is None:
        weak = getattr(module, "_all_tasks", None)
    references: Iterable[Any] = list(getattr(weak, "data", ()))
    tasks = [task for reference in references if (task := reference()) is not None]
    tasks += list(getattr(module, "_eager_tasks", ()))
    if _ASKS_LOOPS:
        # asyncio's own tasks, and once more those of other kinds that were found above.
        for loop in _running_loops():
            tasks += module.all_tasks(loop)
        tasks = list({id(task): task for task in tasks}.values())
    return tasks


def _running_loops() -> list[Any]:
    """Return the loops that threads run: by run_forever, or within asyncio.run as uvloop's is."""
    base_events = sys.modules.get("asyncio.base_events")
    runners = sys.modules.get("asyncio.runners")
    if base_events is None or runners is None:
        return []
    run_forever = base_events.BaseEventLoop.run_forever.__code__
    run = runners.Runner.run.__code__
    loops: dict[int, Any] = {}
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        for _ in range(MAX_FRAMES):
            if frame is None:
                break
            if frame.f_code is run_forever or frame.f_code is run:
                owner = frame.f_locals.get("self")
                loop = owner if frame.f_code is run_forever else getattr(owner, "_loop", None)
                if loop is not None:
                    loops[id(loop)] = loop
            frame = frame.f_back
    return list(loops.values())


def task_stack(task: Any) -> Stack:
    """Return where a task waits, leaf first; of a task that runs, only its outermost frame.

    The rest of a running task's stack is that of the thread which runs it.
    """
    places: list[Place] = []
    awaited = task.get_coro()
    while awaited is not None and len(places) < MAX_DEPTH:
        for running, frame_name, waits_for in _KINDS:
            frame = getattr(awaited, frame_name, None)
            if frame is not None:
                places.append((frame.f_code, frame.f_lineno or 0))
                awaited = None if getattr(awaited, running) else getattr(awaited, waits_for)
                break
        else:
            break
    return tuple(reversed(places))
