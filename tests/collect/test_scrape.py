"""Scrapes of real servers that answer well, badly, late or not at all."""

import asyncio
import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.collect import Scrape, Scraper, Target, observe, parse_target
from stanch.profile import Profile, ValueType, encode
from tests.collect.answers import (
    METRICS,
    Answer,
    Served,
    counts,
    go_heap,
    python_answers,
    python_heap,
    serving,
)


def scrape(
    *targets: Target, rounds: int = 1, timeout_s: float = 20.0, **options: float
) -> list[Scrape]:
    """Scrape targets and give the last round."""

    async def play() -> list[Scrape]:
        scraper = Scraper(monotonic=time.monotonic, wall=time.time, timeout_s=timeout_s, **options)
        for _ in range(rounds):
            last = await scraper.scrape(targets)
        await scraper.close()
        return last

    return asyncio.run(play())


def scrape_one(served: Served, options: str = "", **more: float) -> Scrape:
    """Scrape one server."""
    return scrape(parse_target(f"{served.url} {options}"), **more)[0]


@pytest.fixture
def agent() -> Iterator[Served]:
    """Serve what an agent answers."""
    with serving(python_answers()) as served:
        yield served


def test_a_python_target_gives_its_heap_counts_and_metrics(agent: Served) -> None:
    """What the agent tells becomes a look with births, limit, working set and requests."""
    look = observe(scrape_one(agent))
    assert look is not None
    assert (look.service, look.language) == ("shop", "python")
    assert look.instance == agent.url.removeprefix("http://")
    assert (look.limit_bytes, look.working_set_bytes) == (167772160, 54e6)
    (process,) = look.processes
    assert (process.pid, process.age_s, process.rss_bytes) == (10, 60.0, 5.2e7)
    assert (process.requests, process.in_flight, process.period_bytes) == (1234, 3, 131072)
    (heap,) = process.heap
    assert [frame.function for frame in heap.stack] == ["remember", "handle"]
    assert (heap.allocated_bytes, heap.live_bytes, heap.live_objects) == (2e6, 1e6, 1e4)
    assert heap.births == ((0.0, 1e6),)
    assert [(count.kind, count.count) for count in look.counts] == [("task", 7.0)]


def test_the_working_set_counts_only_against_the_limit_of_its_cgroup(agent: Served) -> None:
    """With a limit of the user's own, or none at all, memory is the RSS of the target."""
    look = observe(scrape_one(agent, "limit=96MiB"))
    assert look is not None
    assert (look.limit_bytes, look.working_set_bytes) == (96 * 1024**2, None)
    without = METRICS.replace(b"stanch_memory_limit_bytes 167772160\n", b"")
    agent.answers["/metrics"] = Answer(without)
    look = observe(scrape_one(agent))
    assert look is not None
    assert (look.limit_bytes, look.working_set_bytes) == (None, None)


def test_the_same_over_a_unix_socket(tmp_path: Path) -> None:
    """A unix socket serves as a TCP port does."""
    with serving(python_answers(), unix_path=tmp_path / "s") as served:
        result = scrape_one(served, "service=cart")
    look = observe(result)
    assert result.error is None
    assert look is not None
    assert (look.service, look.instance) == ("cart", str(tmp_path / "s"))


def test_each_process_of_a_target_is_asked_for_its_heap(agent: Served) -> None:
    """With two pids in the metrics, each heap is asked for by pid, the oldest first."""
    agent.answers["/metrics"] = Answer(
        b'process_resident_memory_bytes{pid="12"} 5e7\n'
        b'process_resident_memory_bytes{pid="11"} 4e7\n'
        b'process_start_time_seconds{pid="12"} 1000\nprocess_start_time_seconds{pid="11"} 1002\n'
        b'stanch_requests_total{pid="12"} 5\nstanch_requests_total{pid="11"} 6\n'
    )
    look = observe(scrape_one(agent))
    assert look is not None
    assert [process.pid for process in look.processes] == [12, 11]
    assert [process.rss_bytes for process in look.processes] == [5e7, 4e7]
    assert [process.requests for process in look.processes] == [5, 6]
    heaps = [path for path in agent.asked if "heap" in path]
    assert heaps == ["/debug/pprof/heap?pid=12", "/debug/pprof/heap?pid=11"]


GO_TEXT = b"""heap profile: 1: 2 [3: 4] @ heap/1048576

# runtime.MemStats
# Sys = 9000000
# HeapAlloc = 5000000
# HeapReleased = 1000000
# NumGC = 3
"""


def test_a_go_target_without_metrics_tells_its_memory_in_its_text_profile() -> None:
    """Sys less HeapReleased stands for the memory, when nothing better is known."""
    answers = {
        "/debug/pprof/heap": Answer(go_heap(1_000_000)),
        "/debug/pprof/heap?debug=1": Answer(GO_TEXT),
    }
    with serving(answers) as served:
        look = observe(scrape_one(served))
        answers["/debug/pprof/heap?debug=1"] = Answer(b"# nothing of the kind")
        error = scrape_one(served).error
    assert look is not None
    assert look.processes[0].rss_bytes == 8e6
    assert error == (
        "heap?debug=1 does not end with Go's memory statistics, so its memory is unknown"
    )


def test_a_go_heap_that_did_not_change_is_stale_and_no_metrics_is_no_error() -> None:
    """A profile like the last one is marked so; /metrics is not asked again each time."""
    answers = {"/debug/pprof/heap": Answer(go_heap(1_000_000))}
    metrics = b"process_resident_memory_bytes 2e7\ngo_memstats_sys_bytes 3e7\n"
    with serving(answers | {"/metrics": Answer(metrics)}) as served:
        first, second = (scrape_one(served, rounds=rounds) for rounds in (1, 2))
    assert (first.heaps[0].fresh, second.heaps[0].fresh) == (True, False)
    look = observe(first)
    assert look is not None
    assert look.language == "go"
    assert (look.processes[0].rss_bytes, look.processes[0].runtime_bytes) == (2e7, 3e7)
    assert look.service == look.instance
    with serving({"/debug/pprof/goroutine": Answer(counts("goroutine", 9))}) as served:
        result = scrape_one(served, rounds=3)
    assert result.error is None
    assert served.asked.count("/metrics") == 1


HTML = b"<!doctype html><html><title>Log in</title></html>"
CPU = encode(Profile(sample_types=(ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))))


@pytest.mark.parametrize(
    ("path", "answer", "complaint"),
    [
        ("/debug/pprof/heap", Answer(HTML), "looks like an HTML page"),
        ("/metrics", Answer(HTML), "/metrics answered with HTML"),
        ("/debug/pprof/heap", Answer(b""), "got 0 bytes"),
        ("/debug/pprof/heap", Answer(python_heap(10**6)[:-20]), "gzip stream"),
        ("/debug/pprof/heap", Answer(gzip.compress(b"nonsense" * 9)), "expected pprof"),
        ("/debug/pprof/heap", Answer(CPU), "gave a profile of samples, cpu; expected alloc_space"),
        ("/debug/pprof/goroutine", Answer(CPU), "expected goroutine"),
        ("/metrics", Answer(b"no", 401), "refused with 401: the token is missing or wrong"),
        ("/metrics", Answer(b"no", 403), "refused with 403"),
        ("/debug/pprof/heap", Answer(b"busy", 429), "asked too often; use a longer --every"),
        ("/debug/pprof/heap", Answer(b"oh", 500), "/debug/pprof/heap answered with status 500"),
        (
            "/metrics",
            Answer(b"", 302, (("Location", "http://127.0.0.1:1/elsewhere"),)),
            "a redirect (302), which is not followed",
        ),
        (
            "/metrics",
            Answer(gzip.compress(METRICS), headers=(("Content-Encoding", "gzip"),)),
            "sent content-encoding 'gzip', which was not asked for",
        ),
        ("/metrics", Answer(METRICS * 40_000), "larger than 8,388,608 bytes"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    agent: Served, path: str, answer: Answer, complaint: str
) -> None:
    """Each fault of a target is one clear sentence in its scrape."""
    agent.answers[path] = answer
    error = scrape_one(agent).error
    assert error is not None
    assert complaint in error
    assert "\n" not in error


def test_a_broken_heap_leaves_the_rest_of_the_look(agent: Served) -> None:
    """When only the heap is damaged, memory and counts are still known."""
    agent.answers["/debug/pprof/heap"] = Answer(HTML)
    result = scrape_one(agent)
    look = observe(result)
    assert result.error is not None
    assert look is not None
    assert look.working_set_bytes == 54e6
    assert look.counts


def test_a_target_that_serves_nothing_is_told_so() -> None:
    """A web server without profiles or metrics is no target."""
    with serving({}) as served:
        result = scrape_one(served)
    assert result.error is not None
    assert "expected a Stanch agent or Go's net/http/pprof" in result.error
    assert observe(result) is None


def test_targets_that_are_down_slow_or_mute_do_not_keep_the_others(agent: Served) -> None:
    """A closed port, a server that stalls and a good one: two sentences and one look."""
    release = threading.Event()
    stalling = python_answers()
    stalling["/metrics"] = Answer(METRICS, pause=release.wait)
    with serving(stalling) as slow:
        with serving({}) as gone:
            pass
        targets = [parse_target(served.url) for served in (gone, slow, agent)]
        down, stalled, good = scrape(*targets, timeout_s=1.0)
        release.set()
    assert down.error is not None
    assert down.error.startswith("cannot connect")
    assert stalled.error == "no whole answer within 1 s"
    assert good.error is None
    assert observe(good) is not None


def test_a_socket_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    """A missing unix socket is a target that is down."""
    (result,) = scrape(parse_target(f"unix:{tmp_path}/missing"))
    assert result.error is not None
    assert result.error.startswith("cannot connect")


def test_the_token_is_sent_and_read_anew_each_time(agent: Served, tmp_path: Path) -> None:
    """A token file that is replaced in place holds from the next scrape on."""
    token = tmp_path / "token"
    token.write_text("first\n")
    target = parse_target(f"{agent.url} token_file={token}")

    async def play() -> None:
        scraper = Scraper(monotonic=time.monotonic, wall=time.time)
        await scraper.scrape([target])
        token.write_text("second\n")
        await scraper.scrape([target])
        await scraper.close()

    asyncio.run(play())
    assert set(agent.tokens) == {"Bearer first", "Bearer second"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot read the token file"),
        (b"", "holds no usable token"),
        (b"two\nlines", "holds no usable token"),
        (b"caf\xc3\xa9", "holds no usable token"),
        (b"\xff", "cannot read the token file"),
    ],
)
def test_a_bad_token_file_is_one_sentence(
    agent: Served, tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    """A token that cannot be had or sent is not sent at all."""
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    error = scrape_one(agent, f"token_file={token}").error
    assert error is not None
    assert complaint in error
    assert agent.asked == []


def test_a_bad_ca_file_is_one_sentence(tmp_path: Path) -> None:
    """A file of certificates that is none is named."""
    ca = tmp_path / "ca.pem"
    ca.write_text("nonsense")
    (result,) = scrape(parse_target(f"https://127.0.0.1:1 ca={ca}"))
    assert result.error is not None
    assert result.error.startswith(f"cannot use the CA file {ca}")


def test_values_that_no_heap_has_count_as_nothing(agent: Served) -> None:
    """Negative bytes and births are nothing held, a negative age and period are unknown."""
    agent.answers["/debug/pprof/heap"] = Answer(python_heap(-5_000, age_s=-3.0))
    look = observe(scrape_one(agent))
    assert look is not None
    (process,) = look.processes
    assert process.age_s is None
    assert process.heap == ()


def test_many_targets_are_asked_a_few_at_a_time() -> None:
    """No more than `concurrency` targets are asked at the same time."""
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def note() -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.02)
        with lock:
            running.pop()

    with serving({"/metrics": Answer(METRICS, pause=note)}) as served:
        targets = [parse_target(f"{served.url}/{number}") for number in range(12)]
        for number in range(12):
            served.answers[f"/{number}/metrics"] = served.answers["/metrics"]
        results = scrape(*targets, concurrency=3)
    assert [result.error for result in results] == [None] * 12
    assert max(most) <= 3
