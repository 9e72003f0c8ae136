"""The metrics: what is counted, how it is written, and when the collector is watched."""

import gc
import os
import re
import threading
import time
from collections.abc import Iterator

import pytest

from stanch import sampler
from stanch.agent.exposition import (
    Family,
    container_families,
    exposition,
    join,
    resident_bytes,
    start_unix_s,
)
from stanch.agent.gctimes import CYCLE_S, WATCHED_S, GcWatch
from stanch.agent.metrics import BUCKET_SECONDS, RequestMeter

from .serving import get, host, loopback, serving

_SERIES = re.compile(
    r'^[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? \S+$'
)

PROMISED = (
    "stanch_info",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "stanch_live_heap_bytes",
    "stanch_native_rest_bytes",
    "stanch_gc_collections_total",
    "stanch_gc_pause_seconds_sum",
    "stanch_gc_pause_seconds_count",
    "stanch_requests_total",
    "stanch_request_seconds_bucket",
    "stanch_requests_in_flight",
    "stanch_samples_total",
    "stanch_samples_dropped_total",
    "stanch_interval_bytes",
    "stanch_overhead_seconds_total",
    "stanch_threads",
    "stanch_asyncio_tasks",
    "stanch_gc_watched_seconds_total",
    "stanch_memory_bytes",
    "stanch_memory_overshoot_bytes",
)


def test_every_promised_metric_is_there() -> None:
    """A sampled host gives all series, each after its help and type, with its pid."""
    with host(
        """
        sampler.start(interval_bytes=1024)
        kept = [bytes(1000) for _ in range(1000)]
        endpoint, meter = serve("127.0.0.1:0", service="shop", instance='a"b\\\\c\\nd')
        meter.begin()
        meter.begin()
        meter.end(0.02, True)
        ready(endpoint.address)
        """
    ) as (pid, address):
        get(address, "/debug/pprof/heap")
        reply = get(address, "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = reply.text
    for name in PROMISED:
        lines = re.findall(rf"^{name}\{{.*", text, re.MULTILINE)
        assert lines and all(f'pid="{pid}"' in line for line in lines), name
    for line in text.splitlines():
        assert line.startswith("# ") or _SERIES.match(line), line
    assert r'instance="a\"b\\c\nd"' in text
    assert f'stanch_requests_total{{pid="{pid}"}} 1\n' in text
    assert f'stanch_requests_failed_total{{pid="{pid}"}} 1\n' in text
    assert f'stanch_requests_in_flight{{pid="{pid}"}} 1\n' in text
    assert f'stanch_request_seconds_bucket{{pid="{pid}",le="0.01"}} 0\n' in text
    assert f'stanch_request_seconds_bucket{{pid="{pid}",le="0.025"}} 1\n' in text
    assert f'stanch_request_seconds_bucket{{pid="{pid}",le="+Inf"}} 1\n' in text


def test_without_sampler_and_middleware_the_rest_is_given() -> None:
    """What is unknown is absent; RSS and the collector's counts are there."""
    with serving(loopback()) as endpoint:
        text = get(endpoint.address, "/metrics").text
    assert "process_resident_memory_bytes{" in text and "stanch_gc_collections_total{" in text
    assert "stanch_live_heap_bytes" not in text and "stanch_requests_total" not in text


def test_the_meter_counts_from_many_threads() -> None:
    """Counts of many threads add up, and the buckets to the total."""
    meter = RequestMeter()

    def serve() -> None:
        for _ in range(2000):
            meter.begin()
            meter.end(0.25, failed=False)
            meter.begin()
            meter.end(1000.0, failed=True)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (meter.total, meter.failed, meter.in_flight) == (16_000, 8_000, 0)
    assert meter.buckets[BUCKET_SECONDS.index(0.25)] == meter.buckets[-1] == 8_000
    assert sum(meter.buckets) == meter.total


def test_a_reset_meter_begins_anew() -> None:
    """After a fork the child counts from zero, and a request of before does not count below it."""
    meter = RequestMeter()
    meter.begin()
    meter.reset()
    meter.end(0.1, failed=False)
    assert (meter.total, meter.in_flight, sum(meter.buckets)) == (1, 0, 1)


def test_texts_of_processes_are_joined_by_family() -> None:
    """Series of one name stand together below one help and type, whatever the help holds."""
    texts = []
    for pid in ("1", "2"):
        first = Family("a_total", "counter", "Has a \\ and\na line.")
        first.add(1, {"pid": pid})
        second = Family("b", "histogram", "Other.")
        second.add(2.5, {"pid": pid}, "_sum")
        texts.append(exposition([first, second]))
    joined = join([*texts, "nonsense\n# HELP\n{}\n"])
    assert joined.startswith(
        "# HELP a_total Has a \\\\ and\\na line.\n# TYPE a_total counter\n"
        'a_total{pid="1"} 1\na_total{pid="2"} 1\n# HELP b Other.\n'
    )
    assert join([joined]).startswith(joined[:60])


def test_the_process_is_told_as_the_kernel_sees_it() -> None:
    """RSS grows by what is touched, and the start lies before now and after the machine's."""
    before = resident_bytes()
    held = bytearray(os.urandom(1) * (32 << 20))
    after = resident_bytes()
    assert before is not None and after is not None
    assert after - before > 16 << 20 and len(held) == 32 << 20
    started = start_unix_s()
    assert started is not None and time.time() - 86_400 < started <= time.time() + 1


def test_the_container_has_no_pid() -> None:
    """Series that all processes share are given without a pid."""
    assert all("pid=" not in line for family in container_families() for line in family.lines)


@pytest.fixture
def sampled() -> Iterator[None]:
    """Have the sampler run."""
    sampler.start()
    yield
    sampler.stop()


@pytest.mark.usefixtures("sampled")
def test_the_collector_is_watched_now_and_then() -> None:
    """The callback is there for a second in ten, by the clock given, and gone after stopping."""
    now = [100.0]
    before = list(gc.callbacks)
    watch = GcWatch(lambda: now[0])
    assert watch.tick() == WATCHED_S
    assert len(gc.callbacks) == len(before) + 1
    now[0] += WATCHED_S
    assert watch.tick() == CYCLE_S - WATCHED_S
    assert gc.callbacks == before and watch.watched_seconds == WATCHED_S
    now[0] += CYCLE_S - WATCHED_S
    watch.tick()
    pauses = sampler.gc_pauses()[0]
    gc.collect()
    assert sampler.gc_pauses()[0] == pauses + 1
    watch.stop()
    assert gc.callbacks == before


def test_without_the_sampler_the_collector_is_left_alone() -> None:
    """Nothing is put into a host that is not sampled."""
    before = list(gc.callbacks)
    GcWatch(lambda: 0.0).tick()
    assert gc.callbacks == before
