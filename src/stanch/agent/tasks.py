"""The asyncio tasks of all event loops of this process, seen from any thread.

Gives tasks and the stacks they wait in. asyncio is looked at only when the host has imported it.
`asyncio.all_tasks` belongs to one loop and thread, so the registries behind it are read instead:
copying a set is one step under the GIL, which no other thread can disturb.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stanch.agent.stacks import MAX_DEPTH, Place, Stack

MAX_TASKS = 100_000

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


def _registered(module: Any) -> list[Any]:
    """Return what asyncio keeps: weak references until 3.11 in one set, from 3.12 on in two."""
    weak = getattr(module, "_scheduled_tasks", None)
    if weak is None:
        weak = getattr(module, "_all_tasks", None)
    references: Iterable[Any] = list(getattr(weak, "data", ()))
    tasks = [task for reference in references if (task := reference()) is not None]
    tasks += list(getattr(module, "_eager_tasks", ()))
    return tasks


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
