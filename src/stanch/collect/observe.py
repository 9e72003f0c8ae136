"""From a Scrape to a Look: the profiles and metrics of a target in the words of the store."""

import math
from collections.abc import Mapping

from stanch.collect.exposition import Exposition
from stanch.collect.scrape import ProcessHeap, Scrape
from stanch.store import FILES, Look, ProcessLook, StackCount
from stanch.store.life import is_sound

_REQUESTS = ("stanch_requests_total", "http_requests_total")


def observe(scrape: Scrape) -> Look | None:
    """What a scrape says about its target, None when it says nothing."""
    if not scrape.answered:
        return None
    metrics = scrape.metrics or Exposition()
    processes = tuple(_process(scrape, heap, metrics) for heap in scrape.heaps)
    if not processes:
        processes = (_process(scrape, None, metrics),)
    target = scrape.target
    group_limit = _positive(metrics.largest("stanch_memory_limit_bytes"))
    limit = target.limit_bytes or group_limit
    if limit is None and scrape.local is not None:
        limit = scrape.local.limit_bytes
    # The working set is the cgroup's: it says nothing where another limit holds, or none.
    working_set = None
    if group_limit is not None and limit == group_limit:
        working_set = _positive(metrics.largest("stanch_memory_working_set_bytes"))
    return Look(
        service=target.service or _service(scrape, metrics) or target.instance,
        instance=target.instance,
        time_s=scrape.time_s,
        unix_s=scrape.unix_s,
        language=_language(scrape, metrics),
        processes=processes,
        limit_bytes=limit,
        working_set_bytes=working_set,
        counts=scrape.counts.counts + _files(metrics) if scrape.counts is not None else (),
        release=metrics.label("stanch_info", "release") or _build_id(scrape),
        slack_bytes=_kinds(metrics, "stanch_memory_bytes", ("python_free", "malloc_free")),
        page_cache_bytes=_kinds(metrics, "stanch_cgroup_memory_bytes", ("file",)),
        max_fds=_positive(metrics.largest("process_max_fds")),
    )


def breakdown_of(scrape: Scrape) -> dict[str, int]:
    """What the memory of a target's processes is made of: bytes by kind, as an agent tells it."""
    found: dict[str, int] = {}
    metrics = scrape.metrics or Exposition()
    for metric in metrics.metrics.get("stanch_memory_bytes", ()):
        kind = metric.labels.get("kind", "")
        if kind and is_sound(metric.value):
            found[kind] = found.get(kind, 0) + round(metric.value)
    return found


def _kinds(metrics: Exposition, name: str, kinds: tuple[str, ...]) -> float | None:
    """The sum of a metric over some of its kinds; None without any."""
    values = [
        metric.value
        for metric in metrics.metrics.get(name, ())
        if metric.labels.get("kind") in kinds and math.isfinite(metric.value) and metric.value >= 0
    ]
    return sum(values) if values else None


def _files(metrics: Exposition) -> tuple[StackCount, ...]:
    """The open files of the largest process, as a count."""
    files = metrics.largest("process_open_fds")
    return (StackCount("fd", FILES, files),) if files is not None and files >= 0 else ()


def _build_id(scrape: Scrape) -> str:
    """The build of a Go binary, short; other profiles have none of the program itself."""
    for heap in scrape.heaps:
        if heap.reading.executable.is_go:
            return heap.reading.build_id[:12]
    return ""


def _process(scrape: Scrape, heap: ProcessHeap | None, metrics: Exposition) -> ProcessLook:
    reading = heap.reading if heap is not None else None
    comments = reading.comments if reading is not None else {}
    pid = (heap.pid if heap is not None else None) or _integer(comments.get("pid"))
    of_pid = str(heap.pid) if heap is not None and heap.pid is not None else None
    local, go_memory = scrape.local, scrape.go_memory
    if pid is None:
        pid = local.pid if local else _integer(metrics.label("stanch_info", "pid"))
    rss = _positive(metrics.total("process_resident_memory_bytes", of_pid))
    runtime = _go_runtime(metrics)
    if go_memory is not None:
        runtime = float(go_memory.sys_bytes - go_memory.heap_released_bytes)
    if rss is None:
        rss = float(local.rss_bytes) if local and local.rss_bytes else runtime
    started = metrics.total("process_start_time_seconds", of_pid)
    if started is None and local is not None:
        started = local.started
    return ProcessLook(
        pid=pid,
        started=started,
        age_s=reading.duration_s if reading and reading.duration_s > 0 else None,
        rss_bytes=rss,
        live_heap_bytes=_positive(metrics.total("stanch_live_heap_bytes", of_pid)),
        runtime_bytes=runtime,
        requests=_requests(metrics, of_pid, comments),
        in_flight=metrics.total("stanch_requests_in_flight", of_pid),
        period_bytes=float(reading.period) if reading and reading.period > 0 else 512 * 1024.0,
        heap=reading.heap if reading is not None else (),
        heap_fresh=heap.fresh if heap is not None else False,
    )


def _service(scrape: Scrape, metrics: Exposition) -> str:
    for heap in scrape.heaps:
        if name := heap.reading.comments.get("service", ""):
            return name
    return metrics.label("stanch_info", "service")


def _language(scrape: Scrape, metrics: Exposition) -> str:
    if scrape.heaps:
        reading = scrape.heaps[0].reading
        if reading.executable.is_go:
            return "go"
        return "python" if "stanch" in reading.comments else ""
    if "stanch_info" in metrics.metrics:
        return "python"
    return "go" if "go_info" in metrics.metrics else ""


def _requests(metrics: Exposition, pid: str | None, comments: Mapping[str, str]) -> float | None:
    for name in _REQUESTS:
        if (total := metrics.total(name, pid)) is not None and total >= 0:
            return total
    counted = _integer(comments.get("requests"))
    return float(counted) if counted is not None else None


def _go_runtime(metrics: Exposition) -> float | None:
    total = metrics.total("go_memstats_sys_bytes")
    if total is None:
        return None
    return total - (metrics.total("go_memstats_heap_released_bytes") or 0.0)


def _positive(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) and number > 0 else None


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
