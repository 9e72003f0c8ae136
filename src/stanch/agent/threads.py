"""The threads profile: the stacks of all threads and asyncio tasks, with their counts.

Gives a pprof profile in the terms of Go's goroutine profile, and Go's two kinds of text. The
agent's own threads, named "stanch-...", are left out.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

from stanch.agent.daemons import THREAD_PREFIX
from stanch.agent.stacks import Locations, Stack, frame_stack
from stanch.agent.tasks import MAX_TASKS, current_tasks, task_stack
from stanch.profile import Profile, Sample, ValueType

KIND_LABEL = "kind"
GOROUTINE = ValueType("goroutine", "count")
_NO_STACK = "[no Python frame]"
_MAX_TEXT_STACKS = 10_000


def is_own_thread(ident: int) -> bool:
    """Return whether a thread belongs to the agent."""
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return thread is not None and thread.name.startswith(THREAD_PREFIX)


def thread_stacks() -> list[tuple[int, Stack]]:
    """Return the identity and stack of each thread of the host."""
    frames = sys._current_frames()
    return [
        (ident, frame_stack(frame)) for ident, frame in frames.items() if not is_own_thread(ident)
    ]


def thread_count() -> int:
    """Return the number of Python threads of the host."""
    return sum(1 for ident in sys._current_frames() if not is_own_thread(ident))


def task_count() -> int:
    """Return the number of asyncio tasks that are not done."""
    tasks = current_tasks()
    return len(tasks.tasks) + tasks.left_out


def threads_profile(comments: tuple[str, ...] = ()) -> Profile:
    """Return the profile: one sample per stack and kind, with how many are in it."""
    counts: Counter[tuple[str, Stack]] = Counter()
    for _, stack in thread_stacks():
        counts["thread", stack] += 1
    found = current_tasks()
    for task in found.tasks:
        counts["task", task_stack(task)] += 1
    if found.left_out:
        comments += (f"dropped={found.left_out} tasks beyond {MAX_TASKS}",)
    locations = Locations()
    return Profile(
        sample_types=(GOROUTINE,),
        samples=tuple(
            Sample(
                locations.of(stack) if stack else locations.named(_NO_STACK),
                (count,),
                labels=((KIND_LABEL, kind),),
            )
            for (kind, stack), count in counts.most_common()
        ),
        default_sample_type="goroutine",
        period_type=GOROUTINE,
        period=1,
        time_nanos=time.time_ns(),
        comments=comments,
        mappings=(locations.mapping,),
    )


def stacks_text() -> str:
    """Return each thread and task with its stack, as Go's debug=2 does; the leaf comes first."""
    return "".join(_each_stack())


def _each_stack() -> Iterator[str]:
    for ident, stack in thread_stacks():
        thread = threading._active.get(ident)  # type: ignore[attr-defined]
        name = thread.name if thread is not None else "not made by threading"
        yield _described(f"thread {ident} [{name}]", stack)
    found = current_tasks()
    for task in found.tasks[:_MAX_TEXT_STACKS]:
        yield _described(f"task [{task.get_name()}]", task_stack(task))
    more = len(found.tasks) - _MAX_TEXT_STACKS + found.left_out
    if more > 0:
        yield f"... and {more} tasks more\n"


def _described(title: str, stack: Stack) -> str:
    lines = [f"{title}:"]
    for code, line in stack:
        lines += [code.co_qualname, f"\t{code.co_filename}:{line}"]
    return "\n".join((*lines, "", ""))
