"""The account of a process's memory: in real hosts, what is known to be there is in its own row."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from stanch import sampler
from stanch.agent.breakdown import breakdown, from_json
from stanch.agent.memory import EVERY_S, MemoryReader
from stanch.sampler.memory import heap_memory, process_memory

from .serving import get, host, loopback, serving

MIB = 1 << 20
NEAR = 2 * MIB
"""How far a row may be off where it is counted: allocators' own structures, a last arena."""

_HOST = """
import ctypes, json, mmap, os, sys, tempfile, threading
from stanch import sampler
from stanch.agent.breakdown import to_json
from stanch.agent.memory import MemoryReader

MIB = 1 << 20
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def account():
    told = to_json(MemoryReader(lambda: 0.0).read())
    return {row["kind"]: row["bytes"] for row in told["rows"]} | {"told": told}

def touched_block(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    return block

def answer(*accounts):
    print(json.dumps(accounts))

sampler.start(interval_bytes=16384)
"""


def accounts(code: str, **environment: str) -> list[dict[str, Any]]:
    """Run a host that is sampled finely, and return the accounts that it gives."""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", _HOST + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert answer.returncode == 0 and answer.stderr == "", answer.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    for each in found:
        told = each["told"]
        assert sum(row["bytes"] for row in told["rows"]) == told["rss_bytes"] > 0
    return found


def grown(found: list[dict[str, Any]]) -> dict[str, int]:
    """Return by how much each row grew from the first account to the last."""
    first, last = found[0], found[-1]
    return {kind: last[kind] - first.get(kind, 0) for kind in last if kind != "told"}


def small(growth: dict[str, int], *except_for: str, below: int = 4 * MIB) -> bool:
    """Whether all rows but these stayed as they were."""
    return all(abs(size) < below for kind, size in growth.items() if kind not in except_for)


def test_the_live_heap() -> None:
    """Python objects, small and large, are in the row of the live heap, within its error."""
    growth = grown(
        accounts("""
        before = account()
        kept = [bytes(67) for _ in range(600_000)], [bytes(100_000) for _ in range(200)]
        answer(before, account())
        """)
    )
    # 112 bytes of the arena for each small one, a pointer in the list, and the large ones.
    expected = 600_000 * (112 + 8) + 200 * 100_000
    assert growth["python_live"] == pytest.approx(expected, rel=0.08)
    assert small(growth, "python_live", below=8 * MIB), growth


def test_fragmentation() -> None:
    """Of many blocks each fiftieth is kept: the arenas stay, and are free space, not live heap."""
    before, full, kept = accounts("""
        before = account()
        blocks = [bytes(67) for _ in range(600_000)]
        full = account()
        blocks = blocks[::50]
        answer(before, full, account())
    """)
    expected = 600_000 * 112
    assert full["python_free"] < 0.1 * expected
    assert kept["python_free"] == pytest.approx(expected, rel=0.06)
    assert kept["python_live"] - before["python_live"] < 0.1 * expected


def test_free_space_of_arenas_is_as_the_interpreter_says() -> None:
    """The interpreter's own count of its arenas and their free bytes agrees."""
    program = """
        import sys
        from stanch import sampler
        from stanch.agent.memory import MemoryReader
        from stanch.sampler.memory import heap_memory
        sys._debugmallocstats()
        sampler.start(interval_bytes=16384)
        blocks = [bytes(40 + 16 * (n % 20)) for n in range(300_000)][::3]
        account = MemoryReader(lambda: 0.0).read()
        arena_bytes = heap_memory().arena_bytes
        sampler.stop()  # with hooks in place the interpreter does not tell
        sys._debugmallocstats()
        free = next(row for row in account.rows if row.kind == "python_free")
        print(arena_bytes, free.bytes)
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    arena_bytes, free_bytes = map(int, answer.stdout.split())

    def said(name: str) -> list[int]:
        lines = re.findall(rf"^{name}.*= +([\d,]+)$", answer.stderr, re.MULTILINE)
        return [int(number.replace(",", "")) for number in lines]

    before, after = said("# arenas allocated current")
    assert arena_bytes == (after - before) * MIB
    unused = said(r"\d+ unused pools \* \d+ bytes")[-1]
    available = said("# bytes in available blocks")[-1]
    assert free_bytes == pytest.approx(unused + available, rel=0.1, abs=2 * MIB)


def test_slack_of_malloc() -> None:
    """Of C blocks each second is freed: what glibc keeps is its slack, the rest is C code's."""
    before, full, half = accounts("""
        before = account()
        blocks = [touched_block(3000) for _ in range(20_000)]
        full = account()
        for block in blocks[::2]:
            libc.free(block)
        answer(before, full, account())
    """)
    if "malloc_free" not in full:
        pytest.skip("this C library does not tell (no mallinfo2)")
    size = 20_000 * 3016
    assert full["malloc_live"] - before["malloc_live"] == pytest.approx(size, abs=NEAR)
    assert half["malloc_live"] - before["malloc_live"] == pytest.approx(size / 2, abs=NEAR)
    assert half["malloc_free"] - before["malloc_free"] == pytest.approx(size / 2, abs=NEAR)


def test_slack_in_another_thread_s_arena() -> None:
    """What a thread freed stays free in that thread's own arena, and is counted there too."""
    growth = grown(
        accounts("""
        def work():
            blocks = [touched_block(3000) for _ in range(10_000)]
            for block in blocks[:-1]:
                libc.free(block)
        before = account()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        answer(before, account())
        """)
    )
    if "malloc_free" not in growth:
        pytest.skip("this C library does not tell (no mallinfo2)")
    assert growth["malloc_free"] == pytest.approx(10_000 * 3016, abs=NEAR)
    assert small(growth, "malloc_free"), growth


def test_large_blocks_of_c_code() -> None:
    """A large block that C code holds, as numpy's arrays are, is a malloc block, not Python's."""
    growth = grown(
        accounts("""
        before = account()
        block = touched_block(40 * MIB)
        answer(before, account())
        """)
    )
    row = "malloc_live" if "malloc_live" in growth else "other"
    assert growth[row] == pytest.approx(40 * MIB, abs=NEAR)
    assert small(growth, row), growth


def test_memory_that_was_never_touched() -> None:
    """What was only asked for is not resident: no row takes it, and it is told apart."""
    found = accounts("""
        before = account()
        block = libc.malloc(1024 * MIB)
        answer(before, account())
    """)
    before, after = (each["told"] for each in found)
    assert abs(after["rss_bytes"] - before["rss_bytes"]) < NEAR
    if "malloc_live" in found[0]:
        assert after["untouched_bytes"] == pytest.approx(1024 * MIB, abs=32 * MIB)


def test_a_python_block_that_was_never_touched() -> None:
    """A large zeroed object that nobody wrote to takes no room from what is resident."""
    found = accounts("""
        before = account()
        kept = bytes(64 * MIB)
        touched = b"x" * (8 * MIB)
        answer(before, account())
    """)
    growth = grown(found)
    assert growth["python_live"] == pytest.approx(8 * MIB, abs=NEAR)
    assert small(growth, "python_live"), growth
    assert found[1]["told"]["overshoot_bytes"] < NEAR


def test_a_mapped_file() -> None:
    """A file that is mapped and read is page cache: never a leak."""
    found = accounts("""
        with tempfile.TemporaryFile(dir=".") as file:
            file.write(b"x" * (24 * MIB))
            file.flush()
            before = account()
            view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            total = sum(view[at] for at in range(0, len(view), 4096))
            answer(before, account())
    """)
    growth = grown(found)
    assert growth["file"] + growth["shared"] == pytest.approx(24 * MIB, abs=NEAR)
    assert small(growth, "file", "shared"), growth
    assert {row["kind"]: row["can_leak"] for row in found[1]["told"]["rows"]}["file"] == "never"


def test_shared_memory() -> None:
    """Anonymous shared memory and memfd are shared memory."""
    growth = grown(
        accounts("""
        before = account()
        anonymous = mmap.mmap(-1, 12 * MIB)
        anonymous.write(b"x" * (12 * MIB))
        file = os.memfd_create("cache")
        os.truncate(file, 12 * MIB)
        view = mmap.mmap(file, 0)
        view.write(b"x" * (12 * MIB))
        answer(before, account())
        """)
    )
    assert growth["shared"] == pytest.approx(24 * MIB, abs=NEAR)
    assert small(growth, "shared", below=14 * MIB), growth


def test_stacks_of_threads() -> None:
    """What threads have used of their stacks is in the row of stacks, as long as they live."""
    before, during = accounts("""
        class Large(ctypes.Structure):
            _fields_ = [("bytes", ctypes.c_char * MIB)]
        libc.abs.argtypes = [Large]  # passed by value: on the stack
        done, end = threading.Barrier(17), threading.Event()
        def work():
            libc.abs(Large())
            done.wait()
            end.wait()
        before = account()
        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        done.wait()
        during = account()
        end.set()
        for thread in threads:
            thread.join()
        answer(before, during)
    """)
    used = during["stacks"] - before["stacks"]
    # ctypes and libffi each put a copy there.
    assert 16 * MIB <= used < 16 * 3 * MIB


def test_another_malloc_of_python() -> None:
    """With PYTHONMALLOC=malloc small objects are live heap in malloc, and there are no arenas."""
    growth = grown(
        accounts(
            """
        before = account()
        kept = [bytes(67) for _ in range(300_000)]
        answer(before, account())
        """,
            PYTHONMALLOC="malloc",
        )
    )
    # malloc takes 112 bytes for each; what the profile does not see of them is C code's.
    both = growth["python_live"] + growth.get("malloc_live", 0)
    assert both == pytest.approx(300_000 * (112 + 8), rel=0.08)
    assert growth["python_free"] == 0


def test_a_forked_child_knows_its_arenas() -> None:
    """A child inherits the count of arenas, and counts on by itself."""
    program = """
        from stanch.sampler.memory import heap_memory
        kept = [bytes(67) for _ in range(300_000)]
        here = heap_memory().arena_bytes
        if os.fork() == 0:
            same = heap_memory().arena_bytes == here
            more = [bytes(67) for _ in range(100_000)]
            os._exit(0 if same and heap_memory().arena_bytes > here else 1)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert heap_memory().arena_bytes == here
        answer(account())
    """
    assert accounts(program)


def test_start_and_stop_leave_the_arena_allocator_as_it_was() -> None:
    """After a stop, and a new start, arenas of before are not counted, and their end is not."""
    program = """
        from stanch.sampler.memory import heap_memory
        for _ in range(3):
            kept = [bytes(67) for _ in range(200_000)]
            assert heap_memory().arena_bytes >= 16 * MIB
            sampler.stop()
            sampler.start()
            assert heap_memory().arena_bytes == 0
            del kept
            assert heap_memory().arena_bytes == 0
        answer(account())
    """
    assert accounts(program)


def test_without_the_sampler() -> None:
    """A process that is not sampled is told as the kernel sees it, and the rows add up."""
    process = process_memory()
    assert process is not None and process.stack_bytes and process.malloc_heap_bytes
    account = breakdown(process, None)
    assert {row.kind for row in account.rows} == {
        "malloc_heap", "stacks", "shared", "file", "other",
    }  # fmt: skip
    assert sum(row.bytes for row in account.rows) == account.rss_bytes == process.rss_bytes
    with pytest.raises(sampler.SamplerError, match=r"call stanch\.start"):
        heap_memory()


def test_another_process_is_seen_as_it_sees_itself() -> None:
    """Heaps and stacks of another process, by its page map, are as the kernel's smaps say."""
    code = "import sys; kept = [bytes(3000) for _ in range(5000)]; print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        found = process_memory(child.pid)
        sizes = dict(re.findall(
            r"^\S+ \S+ \S+ \S+ \S+ +\[(heap|stack)\]\n(?:.*\n)*?Rss: +(\d+)",
            Path(f"/proc/{child.pid}/smaps").read_text(), re.MULTILINE,
        ))  # fmt: skip
        child.stdin.close()
    assert found is not None
    # Between the two it may have touched another page.
    assert found.malloc_heap_bytes == pytest.approx(int(sizes["heap"]) * 1024, abs=MIB // 4)
    assert found.stack_bytes == pytest.approx(int(sizes["stack"]) * 1024, abs=MIB // 16)


def test_a_status_without_the_parts_is_no_account(tmp_path: Path) -> None:
    """Where the kernel does not divide RSS there is no account, and nothing raises."""
    assert process_memory(12, tmp_path) is None
    (tmp_path / "proc/12").mkdir(parents=True)
    (tmp_path / "proc/12/status").write_text("Name:\tx\nVmRSS:\t 12 kB\n")
    assert process_memory(12, tmp_path) is None


def test_reads_are_spaced_by_what_they_cost() -> None:
    """Between reads the last account is given; the dearer a read was, the longer."""
    later = [EVERY_S + seconds for seconds in (1, 2, 3, 150, 151, 300, 300)]
    times = iter([0.0, 0.001, 1.0, *later])
    reader = MemoryReader(lambda: next(times))
    first = reader.read(EVERY_S)
    assert first is not None and reader.read(EVERY_S) is first
    second = reader.read(EVERY_S)  # takes one second: the next is 200 s away
    assert second is not first
    assert reader.read(EVERY_S) is second and reader.read() is second
    assert reader.age_s() == pytest.approx(149)
    assert reader.read() is not second


def test_the_endpoint_tells_this_process_and_its_cgroup() -> None:
    """The answer has the process, its sum and the cgroup; the metrics have the same kinds."""
    with host(
        """
        sampler.start(interval_bytes=16384)
        kept = [bytes(1000) for _ in range(50_000)]
        endpoint, meter = serve("127.0.0.1:0", service="shop", instance="a")
        ready(endpoint.address)
        """
    ) as (pid, address):
        told = json.loads(get(address, "/debug/stanch/memory").text)
        lines = get(address, "/metrics").text.splitlines()
    assert told["agent"] is True
    (process,) = told["processes"]
    assert (process["pid"], process["service"], process["instance"]) == (pid, "shop", "a")
    assert process["sampling"] and from_json(process) == from_json(told["total"])
    assert "cgroup" in told and 0 <= process["age_s"] < 60
    measured = re.findall(rf'^stanch_memory_bytes{{pid="{pid}",kind="(\w+)"}} (\d+)$',
                          "\n".join(lines), re.MULTILINE)  # fmt: skip
    assert [kind for kind, _ in measured] == [row["kind"] for row in process["rows"]]
    rss = sum(int(size) for _, size in measured)
    assert rss == pytest.approx(process["rss_bytes"], rel=0.2)
    assert f'stanch_memory_overshoot_bytes{{pid="{pid}"}}' in "\n".join(lines)


def test_an_endpoint_without_a_sampler_still_accounts() -> None:
    """A process that serves without sampling is told by the kernel's view."""
    with serving(loopback()) as endpoint:
        (process,) = json.loads(get(endpoint.address, "/debug/stanch/memory").text)["processes"]
    assert process["sampling"] is False
    assert "malloc_heap" in {row["kind"] for row in process["rows"]}


def test_reading_beside_threads_that_allocate() -> None:
    """Reads while threads map, unmap, allocate and end always add up, and never fail."""
    found = accounts("""
        end = threading.Event()
        def churn():
            while not end.is_set():
                mmap.mmap(-1, 1 << 16).close()
                for block in [touched_block(5000) for _ in range(20)]:
                    libc.free(block)
                kept = [bytes(300) for _ in range(5000)], bytes(1 << 20)
                short = threading.Thread(target=bytes, args=(10,))
                short.start()
                short.join()
        threads = [threading.Thread(target=churn) for _ in range(3)]
        for thread in threads:
            thread.start()
        seen = [account() for _ in range(100)]
        end.set()
        for thread in threads:
            thread.join()
        answer(*seen)
    """)
    assert len(found) == 100
