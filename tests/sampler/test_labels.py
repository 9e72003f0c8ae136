"""Labels on samples: the thread's name and the route of the context, wherever that goes."""

import json
import sys
from pathlib import Path

import pytest

from stanch.sampler import read_table, table_profile
from stanch.sampler.threadnames import pool_name

from .conftest import RunPython

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="routes are read from contexts of CPython 3.11 to 3.13"
)

START = """
import asyncio, contextvars, json, os, signal, sys, threading
import stanch
from stanch import sampler
from stanch.sampler import _core

sampler.start(interval_bytes=4096)

def route():
    return _core.label_now()[1]

def live(of=None):
    sums = {}
    for sample in sampler.table_profile(sampler.snapshot()).samples:
        names = {line.function.name for place in sample.locations for line in place.lines}
        if sample.values[3] and (of is None or of in names):
            pair = dict(sample.labels).get("thread", ""), dict(sample.labels).get("route", "")
            sums[pair] = sums.get(pair, 0) + sample.values[3]
    return sums
"""


def test_label_holds_inside_its_block(run_python: RunPython) -> None:
    """Blocks nest, an exception ends one, and each is used once at a time."""
    run_python(
        START
        + """
assert _core.label_now() == ("MainThread", "")
with stanch.label("a"):
    with stanch.label("b"):
        assert route() == "b"
    assert route() == "a"
    try:
        with stanch.label("größe/数据"):
            assert route() == "größe/数据"
            raise KeyError
    except KeyError:
        pass
    assert route() == "a"
assert route() == ""
once = stanch.label("once")
with once:
    try:
        with once:
            raise AssertionError
    except RuntimeError as error:
        assert "in use" in str(error)
assert route() == ""
for wrong in (None, 7, b"bytes"):
    try:
        stanch.label(wrong)
    except TypeError as error:
        assert repr(wrong) in str(error)
    else:
        raise AssertionError(wrong)
with stanch.label("half \\ud800 a pair"):
    assert route() == "half ? a pair"
with stanch.label("é" * 200):
    assert route() == "é" * 95
"""
    )


def test_label_is_found_in_contexts_of_any_shape(run_python: RunPython) -> None:
    """Among any number of other variables, which make the context's tree deep, it is found."""
    run_python(
        START
        + """
variables = [contextvars.ContextVar(f"v{number}") for number in range(3000)]
for number, variable in enumerate(variables):
    variable.set(number)
    assert route() == ""
    if number < 100 or number % 100 == 0:
        with stanch.label(f"r{number % 7}"):
            assert route() == f"r{number % 7}"
            assert contextvars.copy_context().run(route) == f"r{number % 7}"
assert contextvars.Context().run(route) == ""
"""
    )


def test_label_follows_the_context(run_python: RunPython) -> None:
    """It goes into tasks, timers, to_thread and await, and not into a plain thread."""
    run_python(
        START
        + """
kept = []
async def keep():
    await asyncio.sleep(0)
    kept.append([bytes(1000) for _ in range(2000)])
    return _core.label_now()
async def main():
    with stanch.label("one"):
        one = asyncio.create_task(keep())
        in_thread = asyncio.create_task(asyncio.to_thread(route))
    with stanch.label("two"):
        two = asyncio.create_task(keep())
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: done.set_result(route()))
        assert await asyncio.wait_for(keep(), 60) == ("MainThread", "two")
    assert await asyncio.gather(one, two, in_thread, done) == [
        ("MainThread", "one"), ("MainThread", "two"), "one", "two"]
    assert route() == ""
asyncio.run(main())
found = live("keep")
assert 1.5e6 < found["MainThread", "one"] < 2.6e6, found
assert 3.3e6 < found["MainThread", "two"] < 5e6, found
assert len(found) == 2, found
with stanch.label("parent's"):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(route()))
    thread.start()
    thread.join()
assert seen == [""]
"""
    )


def test_label_decorates_functions_of_all_kinds(run_python: RunPython) -> None:
    """Functions, coroutines and generators are labelled while they run, and stay what they were."""
    run_python(
        START
        + """
import inspect
@stanch.label("job")
def plain(x, *, y):
    "Text."
    return x, y, route()
assert plain(1, y=2) == (1, 2, "job") and plain.__name__ == "plain" and plain.__doc__ == "Text."

@stanch.label("step")
def steps():
    got = []
    try:
        while True:
            try:
                got.append((yield route()))
            except KeyError as error:
                got.append((error.args[0], route()))
            if len(got) == 3:
                return got
    finally:
        ends.append(route())
ends = []
assert inspect.isgeneratorfunction(steps)
generator = steps()
assert next(generator) == "step" and route() == ""
assert generator.send("a") == "step"
assert generator.throw(KeyError("b")) == "step"
try:
    generator.send("c")
except StopIteration as end:
    assert end.value == ["a", ("b", "step"), "c"]
assert ends == ["step"]
closed = steps()
next(closed)
closed.close()
assert ends == ["step", "step"] and route() == ""

@stanch.label("task")
async def coroutine(depth):
    await asyncio.sleep(0)
    return [route(), *(await coroutine(depth - 1) if depth else [])]
assert inspect.iscoroutinefunction(coroutine)

@stanch.label("async step")
async def async_steps():
    try:
        while True:
            await asyncio.sleep(0)
            try:
                yield route()
            except KeyError:
                yield "caught " + route()
    finally:
        await asyncio.sleep(0)
        ends.append(route())
assert inspect.isasyncgenfunction(async_steps)
async def main():
    assert await coroutine(2) == ["task"] * 3
    found = []
    generator = async_steps()
    async for each in generator:
        found.append((each, route()))
        if len(found) == 3:
            break
    assert found == [("async step", "")] * 3
    assert await generator.athrow(KeyError()) == "caught async step"
    await generator.aclose()
    assert ends[2:] == ["async step"]
asyncio.run(main())
"""
    )


def test_threads_have_their_names(run_python: RunPython) -> None:
    """Threads before and after the start, renamed, of a pool, and of another library."""
    run_python(
        START.replace("sampler.start", "early_start()\nsampler.start").replace(
            "from stanch.sampler import _core",
            """
from stanch.sampler import _core
asked, seen = threading.Event(), {}
def early():
    asked.wait(60)
    seen["early"] = _core.label_now()[0]
def early_start():
    global before
    before = threading.Thread(target=early, name="early-1")
    before.start()
""",
        )
        + """
import _thread
from concurrent.futures import ThreadPoolExecutor
asked.set()
before.join()
def name():
    return _core.label_now()[0]
def renamed():
    seen["named"] = name()
    threading.current_thread().name = "second"
    seen["renamed"] = name()
thread = threading.Thread(target=renamed, name="first-7")
thread.start()
thread.join()
with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1, thread_name_prefix="mine") as mine:
    seen["pool"], seen["mine"] = pool.submit(name).result(), mine.submit(name).result()
ended = _thread.allocate_lock()
ended.acquire()
def foreign():
    seen["foreign"] = name()
    ended.release()
_thread.start_new_thread(foreign, ())
ended.acquire()
kernel = open("/proc/self/comm").read().strip()
assert seen == {"early": "early-1", "named": "first-7", "renamed": "second", "mine": "mine_N",
                "pool": "ThreadPoolExecutor-N_N", "foreign": kernel}, seen
"""
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MainThread", "MainThread"),
        ("Thread-12", "Thread-N"),
        ("Thread-12 (serve_2)", "Thread-N (serve_2)"),
        ("ThreadPoolExecutor-3_11", "ThreadPoolExecutor-N_N"),
        ("asyncio_4", "asyncio_N"),
        ("Dummy-2", "Dummy-N"),
        ("shard-3", "shard-3"),
    ],
)
def test_counters_of_libraries_are_no_part_of_a_name(name: str, expected: str) -> None:
    """What threading and concurrent.futures count up becomes N; a name that was given stays."""
    assert pool_name(name) == expected


def test_bounds_and_what_is_beyond(run_python: RunPython) -> None:
    """Beyond a thousand routes and 64 names, samples share one label and are counted."""
    run_python(
        START
        + """
kept = []
for number in range(1100):
    with stanch.label(f"route {number}"):
        kept.append(bytes(100_000))
state = sampler.stats()
assert state.routes_known == 1000, state
assert state.labels_refused >= 100, state
found = {route: size for (_, route), size in live().items() if route}
rest = found["[too many routes]"]
assert len(found) == 1001 and 100 * 100_033 <= rest < 102 * 100_033, (len(found), rest)
def keep():
    kept.append(bytes(100_000))
for number in range(100):
    thread = threading.Thread(target=keep, name=f"name-{number}")
    thread.start()
    thread.join()
found = {thread for thread, _ in live("keep")}
assert "name-0" in found and "[too many thread names]" in found and len(found) <= 64, found
assert sampler.stats().threads_known == 64
sampler.stop()
sampler.start(interval_bytes=4096, labels=False)
with stanch.label("route 1"):
    kept.append([bytes(1000) for _ in range(1000)])
assert set(live()) == {("", "")}
"""
    )


def test_full_table_of_pairs(run_python: RunPython) -> None:
    """When no further pair of thread and route fits the table, samples say so and are counted."""
    run_python(
        START
        + """
kept = []
def keep():
    for number in range(200):
        with stanch.label(f"r{number}"):
            kept.append(bytes(100_000))
for number in range(22):
    thread = threading.Thread(target=keep, name=f"name-{number}")
    thread.start()
    thread.join()
image = sampler.snapshot()
assert len(image.labels) == 4096
assert image.labels_refused == sampler.stats().labels_refused > 0
assert image.dropped == 0
assert ("[too many labels]", "[too many labels]") in live("keep")
"""
    )


def test_labels_outlive_a_kill(run_python: RunPython, tmp_path: Path) -> None:
    """The table that a killed process leaves has the labels of all its samples."""
    table = tmp_path / "killed.stanch"
    run_python(
        START.replace("4096", "4096, table=sys.argv[1]")
        + """
with stanch.label("GET /orders/<id>"):
    kept = [bytes(1000) for _ in range(5000)]
os.kill(os.getpid(), signal.SIGKILL)
""",
        table,
        exit_code=-9,
    )
    profile = table_profile(read_table(table))
    labels = (("thread", "MainThread"), ("route", "GET /orders/<id>"))
    found = sum(sample.values[3] for sample in profile.samples if sample.labels == labels)
    assert 4e6 < found < 6.5e6


def test_fork_keeps_labels(run_python: RunPython) -> None:
    """A child goes on in its parent's context, inherits its labels and counts for itself."""
    answer = run_python(
        START
        + """
kept = []
with stanch.label("before"):
    kept.append([bytes(1000) for _ in range(3000)])
    pid = os.fork()
    if pid == 0:
        kept.append([bytes(1000) for _ in range(3000)])
        with stanch.label("child's"):
            kept.append([bytes(1000) for _ in range(3000)])
        found = {route: size for (_, route), size in live().items()}
        print(json.dumps([found, sampler.stats().labels_refused]), flush=True)
        os._exit(0)
os.waitpid(pid, 0)
"""
    )
    found, refused = json.loads(answer.stdout)
    assert refused == 0
    assert 5e6 < found["before"] < 8e6
    assert 2.3e6 < found["child's"] < 4e6


@pytest.mark.parametrize("allocator", ["pymalloc", "malloc"])
def test_every_allocation_sampled_in_many_threads(run_python: RunPython, allocator: str) -> None:
    """Threads and tasks that sample all they allocate, also without the GIL, are never mixed up."""
    run_python(
        START.replace("4096", "64")
        + """
import gc, zlib
packed = zlib.compress(bytes(200_000))
kept = {}
def keep(number):
    unpack = zlib.decompressobj()
    unpack.decompress(packed[:50])  # zlib takes its window without the GIL
    kept.setdefault(number, []).append((unpack, [bytes(50), {}, [number]]))
    del kept[number][:-5]
async def task(number):
    for _ in range(20):
        with stanch.label(f"r{number}"):
            keep(number)
            await asyncio.sleep(0)
            keep(number)
            assert route() == f"r{number}"
async def tasks(first):
    await asyncio.gather(*(task(first + number) for number in range(5)))
def run(first):
    for _ in range(3):
        asyncio.run(tasks(first))
threads = [threading.Thread(target=run, args=(10 * number,), name=f"t{number}")
           for number in range(6)]
gc.set_threshold(50)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
found = live("keep")
assert set(found) == {(f"t{n}", f"r{10 * n + m}") for n in range(6) for m in range(5)}, found
raw = {image_entry.domain for image_entry in sampler.snapshot().entries if image_entry.label}
assert 0 in raw
""",
        PYTHONMALLOC=allocator,
    )
