"""The threads profile: stacks of threads and of tasks of all loops, counted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from stanch.agent.stacks import MAX_DEPTH
from stanch.agent.tasks import current_tasks, task_stack
from stanch.agent.threads import stacks_text, task_count, thread_count, threads_profile
from stanch.profile import Profile, parse

from .serving import get, host


@contextmanager
def waiting_threads(count: int, name: str = "waits") -> Iterator[None]:
    """Have threads that wait in `wait_here`."""
    stop, there = threading.Event(), threading.Barrier(count + 1)

    def wait_here() -> None:
        there.wait()
        stop.wait()

    threads = [threading.Thread(target=wait_here, name=f"{name}-{i}") for i in range(count)]
    for thread in threads:
        thread.start()
    there.wait()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def counts(profile: Profile, kind: str, function: str) -> int:
    """How many threads or tasks have a function in their stack."""
    return sum(
        sample.values[0]
        for sample in profile.samples
        if ("kind", kind) in sample.labels
        and any(line.function.name == function for at in sample.locations for line in at.lines)
    )


def test_threads_are_counted_by_stack() -> None:
    """Threads are in the profile with their stacks, leaf first, in Go's type; ours are not."""
    name = "waiting_threads.<locals>.wait_here"
    with waiting_threads(5), waiting_threads(2, "stanch-own"):
        profile = threads_profile()
        assert counts(profile, "thread", name) == 5
        assert thread_count() == sum(
            s.values[0] for s in profile.samples if ("kind", "thread") in s.labels
        )
        text = stacks_text()
    # On a busy machine some are still on their way from the barrier, at other lines.
    sample = next(
        each
        for each in profile.samples
        if any(line.function.name == name for at in each.locations for line in at.lines)
    )
    assert sample.locations[-1].lines[0].function.name == "Thread._bootstrap"
    assert (profile.sample_types[0].type, profile.sample_types[0].unit) == ("goroutine", "count")
    assert profile.period_type == profile.sample_types[0] and profile.period == 1
    assert "[waits-0]" in text and "stanch-own" not in text


async def leaf(released: asyncio.Event) -> None:
    """Wait at the end of a chain."""
    await released.wait()


async def numbers(released: asyncio.Event) -> AsyncIterator[int]:
    """Wait inside an asynchronous generator."""
    await leaf(released)
    yield 1


async def consumer(released: asyncio.Event) -> None:
    """Wait for an asynchronous generator."""
    async for _ in numbers(released):
        pass


async def deep(released: asyncio.Event, depth: int) -> None:
    """Wait below many awaits."""
    if depth:
        await deep(released, depth - 1)
    else:
        await leaf(released)


@contextmanager
def tasks_elsewhere(count: int) -> Iterator[None]:
    """Have tasks that wait in a loop of another thread."""
    up = threading.Event()
    loop = asyncio.new_event_loop()
    released = asyncio.Event()

    async def main() -> None:
        tasks = [asyncio.create_task(leaf(released)) for _ in range(count)]
        tasks += [asyncio.create_task(consumer(released))]
        tasks += [asyncio.create_task(deep(released, 2 * MAX_DEPTH))]
        finished = asyncio.create_task(asyncio.sleep(0))
        await finished
        await asyncio.sleep(0)
        up.set()
        await asyncio.gather(*tasks)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    up.wait()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(released.set)
        thread.join()
        loop.close()


def test_tasks_of_a_loop_in_another_thread_are_seen() -> None:
    """Tasks are in the profile with the chain of what they await, leaf first; done ones are not."""
    with tasks_elsewhere(30):
        profile = threads_profile()
        assert counts(profile, "task", "leaf") >= 30
        assert counts(profile, "task", "consumer") == 1
        assert counts(profile, "task", "sleep") == 0
        assert task_count() == 33
        stacks = [task_stack(task) for task in current_tasks().tasks]
        assert "task [Task-" in stacks_text()
    names = {tuple(code.co_name for code, _ in stack) for stack in stacks}
    assert ("wait", "leaf") in names
    assert max(map(len, stacks)) == MAX_DEPTH


def test_a_task_that_runs_has_its_outermost_frame() -> None:
    """Asking from within a task does not disturb it, nor follow what is being executed."""

    async def outer() -> None:
        await inner()

    async def inner() -> None:
        stacks = [task_stack(task) for task in current_tasks().tasks]
        assert [[code.co_name for code, _ in stack] for stack in stacks] == [["outer"]]

    asyncio.run(outer())


def test_a_host_without_asyncio_does_not_get_it() -> None:
    """The profile does not import asyncio into a host that does without."""
    with host(
        """
        endpoint, _ = serve("127.0.0.1:0")
        ready(endpoint.address)
        assert "asyncio" not in sys.modules
        """
    ) as (_, address):
        profile = parse(get(address, "/debug/pprof/threads").body)
    assert {label for sample in profile.samples for label in sample.labels} == {("kind", "thread")}


def test_texts_tell_counts_and_places() -> None:
    """debug=1 gives counts with stacks, debug=2 each thread with its name."""
    with host(
        """
        endpoint, _ = serve("127.0.0.1:0")
        def main():
            ready(endpoint.address)
        main()
        """
    ) as (pid, address):
        counted = get(address, "/debug/pprof/goroutine?debug=1").text
        each = get(address, "/debug/pprof/goroutine?debug=2").text
    assert counted.startswith("goroutine profile: total 1\n1 @ thread\n#\t")
    assert "#\tmain\t<string>:" in counted
    assert each.startswith(f"process {pid}\n\nthread ") and "[MainThread]:\n" in each
