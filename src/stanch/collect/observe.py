"""From a Scrape to a Look: the profiles and metrics of a target in the words of the store."""

import math
from collections.abc import Mapping
from itertools import chain

from stanch.collect.exposition import Exposition
from stanch.collect.gofacts import executable_of
from stanch.collect.scrape import ProcessHeap, Scrape
from stanch.profile import Location, Profile
from stanch.store import FILES, Frame, Look, ProcessLook, Stack, StackCount, StackHeap

BIRTH_LABEL = "birth"
_MAX_FRAMES = 64
"""Frames of a stack that are kept, from the leaf: enough to name and show it."""

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
        counts=_counts(scrape.counts) + _files(metrics) if scrape.counts is not None else (),
        release=metrics.label("stanch_info", "release") or _build_id(scrape),
        slack_bytes=_kinds(metrics, "stanch_memory_bytes", ("python_free", "malloc_free")),
        page_cache_bytes=_kinds(metrics, "stanch_cgroup_memory_bytes", ("file",)),
        max_fds=_positive(metrics.largest("process_max_fds")),
    )


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
        if executable_of(heap.profile).is_go and heap.profile.mappings:
            return heap.profile.mappings[0].build_id[:12]
    return ""


def _process(scrape: Scrape, heap: ProcessHeap | None, metrics: Exposition) -> ProcessLook:
    comments = comments_of(heap.profile) if heap is not None else {}
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
    profile = heap.profile if heap is not None else None
    return ProcessLook(
        pid=pid,
        started=started,
        age_s=profile.duration_nanos / 1e9 if profile and profile.duration_nanos > 0 else None,
        rss_bytes=rss,
        live_heap_bytes=_positive(metrics.total("stanch_live_heap_bytes", of_pid)),
        runtime_bytes=runtime,
        requests=_requests(metrics, of_pid, comments),
        in_flight=metrics.total("stanch_requests_in_flight", of_pid),
        period_bytes=float(profile.period) if profile and profile.period > 0 else 512 * 1024.0,
        heap=stack_heaps(profile) if profile is not None else (),
        heap_fresh=heap.fresh if heap is not None else False,
    )


def comments_of(profile: Profile) -> dict[str, str]:
    """The key=value comments of a profile."""
    pairs = (comment.partition("=") for comment in profile.comments)
    return {key: value for key, separator, value in pairs if separator}


def _service(scrape: Scrape, metrics: Exposition) -> str:
    for heap in scrape.heaps:
        if name := comments_of(heap.profile).get("service", ""):
            return name
    return metrics.label("stanch_info", "service")


def _language(scrape: Scrape, metrics: Exposition) -> str:
    if scrape.heaps:
        profile = scrape.heaps[0].profile
        if executable_of(profile).is_go:
            return "go"
        return "python" if "stanch" in comments_of(profile) else ""
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


class _Stacks:
    """Turns pprof locations into frames, each location once."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[Frame, ...]] = {}
        self._stacks: dict[int, Stack] = {}

    def of(self, locations: tuple[Location, ...]) -> Stack:
        """The stack of a sample; samples that share their locations share the stack."""
        stack = self._stacks.get(id(locations))
        if stack is None:
            known, shown = self._frames, locations[:_MAX_FRAMES]
            # A look has some hundred thousand of them: no call for one that is known.
            frames = [known.get(id(each)) or self._of_location(each) for each in shown]
            stack = tuple(chain.from_iterable(frames))[:_MAX_FRAMES]
            self._stacks[id(locations)] = stack
        return stack

    def _of_location(self, location: Location) -> tuple[Frame, ...]:
        frames = self._frames[id(location)] = _frames_of(location)
        return frames


def _frames_of(location: Location) -> tuple[Frame, ...]:
    return tuple(
        Frame(line.function.name, line.function.filename, line.line) for line in location.lines
    ) or (Frame(f"{location.address:#x}", "", 0),)


def stack_heaps(profile: Profile) -> tuple[StackHeap, ...]:
    """Add up the samples of each stack, whatever their labels of threads and routes say.

    Values below zero, which no heap has, count as zero.
    """
    types = [value_type.type for value_type in profile.sample_types]
    allocated, live = types.index("alloc_space"), types.index("inuse_space")
    objects = types.index("inuse_objects") if "inuse_objects" in types else None
    stacks = _Stacks()
    totals: dict[Stack, list[float]] = {}
    births: dict[Stack, dict[float, float]] = {}
    for sample in profile.samples:
        stack = stacks.of(sample.locations)
        total = totals.setdefault(stack, [0.0, 0.0, 0.0])
        live_bytes = max(sample.values[live], 0)
        total[0] += max(sample.values[allocated], 0)
        total[1] += live_bytes
        total[2] += max(sample.values[objects], 0) if objects is not None else 0
        if live_bytes:
            for key, value, _ in sample.num_labels:
                if key == BIRTH_LABEL:
                    bands = births.setdefault(stack, {})
                    bands[float(value)] = bands.get(float(value), 0.0) + live_bytes
    return tuple(
        StackHeap(stack, total[0], total[1], total[2], tuple(births.get(stack, {}).items()))
        for stack, total in totals.items()
    )


def _counts(profile: Profile) -> tuple[StackCount, ...]:
    position = [value_type.type for value_type in profile.sample_types].index("goroutine")
    stacks = _Stacks()
    totals: dict[tuple[str, Stack], float] = {}
    for sample in profile.samples:
        kind = next((value for key, value in sample.labels if key == "kind"), "goroutine")
        if kind not in ("thread", "task"):
            kind = "goroutine"
        key = (kind, stacks.of(sample.locations))
        totals[key] = totals.get(key, 0.0) + max(sample.values[position], 0)
    return tuple(StackCount(kind, stack, count) for (kind, stack), count in totals.items())
