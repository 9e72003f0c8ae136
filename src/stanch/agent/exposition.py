"""The metrics of this process, and of all processes of a run, in Prometheus' text format 0.0.4.

Series of a process carry its pid as a label; those of the container are given once, by the
listener. Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import gc
import os
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stanch import sampler
from stanch.agent.breakdown import Breakdown
from stanch.agent.budget import BudgetState, sampling_ns
from stanch.agent.gctimes import CYCLE_S, WATCHED_S
from stanch.agent.metrics import BUCKET_SECONDS, RequestMeter
from stanch.agent.threads import task_count, thread_count
from stanch.sampler.cgroup import GroupStrain, account_of, group_strain, memory_group
from stanch.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PYTHON = ".".join(map(str, sys.version_info[:3]))
_PID_LABEL = "pid"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_LINE, _TYPE_LINE = "# HELP ", "# TYPE "


@dataclass(slots=True)
class Family:
    """A metric name with its help, its type and its lines."""

    name: str
    kind: str
    help: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, labels: Mapping[str, str], suffix: str = "") -> None:
        """Add the line of one series."""
        pairs = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        number = str(value) if isinstance(value, int) else repr(float(value))
        braces = f"{{{pairs}}}" if pairs else ""
        self.lines.append(f"{self.name}{suffix}{braces} {number}")

    def text(self) -> str:
        """Return the family as it goes on the wire."""
        help_text = self.help.replace("\\", r"\\").replace("\n", r"\n")
        head = f"{_HELP_LINE}{self.name} {help_text}\n{_TYPE_LINE}{self.name} {self.kind}\n"
        return head + "".join(f"{line}\n" for line in self.lines)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the metrics of a process need besides what the process itself tells."""

    service: str
    instance: str
    release: str
    start_unix_s: float | None
    requests: RequestMeter | None
    budget: BudgetState | None
    reads: Mapping[tuple[str, int], int]
    endpoint_cpu_s: float
    gc_watched_s: float
    memory: Breakdown | None


def process_families(facts: Facts) -> list[Family]:
    """Return the series of this process."""
    pid = {_PID_LABEL: str(os.getpid())}
    families: list[Family] = []

    def gauge(name: str, help_text: str, value: float | None) -> None:
        family = Family(name, "gauge", help_text)
        if value is not None:
            family.add(value, pid)
            families.append(family)

    state = sampler.stats()
    rss = resident_bytes()
    info = Family("stanch_info", "gauge", "The agent in this process; always 1.")
    info.add(1, {"version": __version__, "service": facts.service, "instance": facts.instance,
                 "release": facts.release, **pid, "python": PYTHON})  # fmt: skip
    families.append(info)
    gauge("process_start_time_seconds", "Start of the process, Unix time.", facts.start_unix_s)
    if (files := open_files()) is not None:
        gauge("process_open_fds", "Open file descriptors.", files)
        gauge("process_max_fds", "File descriptors the process may open.", most_files())
    gauge("process_resident_memory_bytes", "Resident memory (RSS) of the process.", rss)
    if state.running:
        live = round(state.live_bytes)
        gauge("stanch_live_heap_bytes", "Live bytes that are sampled, estimated.", live)
        if state.native:
            gauge(
                "stanch_live_native_bytes",
                "The part of stanch_live_heap_bytes that native code took, estimated.",
                round(state.live_native_bytes),
            )
        rest = None if rss is None else max(rss - live, 0)
        gauge(
            "stanch_native_rest_bytes",
            "Resident memory that the live heap does not explain: native code, the interpreter, "
            "free lists, fragmentation.",
            rest,
        )
        gauge("stanch_interval_bytes", "Mean bytes between two samples.", state.interval_bytes)
        families += _sampler_counters(state, pid)
    gauge("stanch_threads", "Python threads, the agent's own apart.", thread_count())
    gauge("stanch_asyncio_tasks", "asyncio tasks that are not done.", task_count())
    families += _collector(facts, pid)
    families += _requests(facts.requests, pid)
    families += _own_cost(facts, state, pid)
    if facts.memory is not None:
        families += _memory(facts.memory, pid)
    families += _budget(facts.budget, pid)
    return families


def container_families() -> list[Family]:
    """Return the series of the container, which all its processes share."""
    group = memory_group()
    if group is None:
        return []
    account = account_of(group)
    families = []
    for name, help_text, value in (
        ("stanch_memory_limit_bytes", "Memory limit of the container.", account.memory.limit_bytes),
        (
            "stanch_memory_working_set_bytes",
            "Memory of the container less inactive file pages, as the kubelet reckons it.",
            account.memory.working_set_bytes,
        ),
    ):
        if value is not None:
            family = Family(name, "gauge", help_text)
            family.add(value, {})
            families.append(family)
    if account.oom_kills is not None:
        kills = Family(
            "stanch_memory_oom_kills_total",
            "counter",
            "Processes of the container that the kernel killed for want of memory.",
        )
        kills.add(account.oom_kills, {})
        families.append(kills)
    families += _strain(group_strain(group))
    kinds = Family("stanch_cgroup_memory_bytes", "gauge", "Memory of the container by kind.")
    for kind, size in account.parts():
        kinds.add(size, {"kind": kind})
    return [*families, kinds] if kinds.lines else families


def _strain(strain: GroupStrain) -> list[Family]:
    """What holds the container up, as far as the kernel tells."""
    families = []
    for name, kind, help_text, value in (
        (
            "stanch_memory_pressure_seconds_total",
            "counter",
            "Time in which something of the container waited for memory (PSI, some).",
            strain.memory_waited_s,
        ),
        (
            "stanch_cpu_throttled_seconds_total",
            "counter",
            "Time in which the container's CPU quota was used up.",
            strain.cpu_throttled_s,
        ),
        (
            "stanch_memory_swap_bytes",
            "gauge",
            "Memory of the container that is in swap.",
            strain.swap_bytes,
        ),
    ):
        if value is not None:
            family = Family(name, kind, help_text)
            family.add(value, {})
            families.append(family)
    return families


def exposition(families: Iterable[Family]) -> str:
    """Return families as text."""
    return "".join(family.text() for family in families)


def join(texts: Iterable[str]) -> str:
    """Return several processes' texts as one, with each family's series together.

    Takes only what `exposition` writes; other lines are left out.
    """
    families: dict[str, Family] = {}
    for text in texts:
        family = None
        for line in text.splitlines():
            if line.startswith(_HELP_LINE):
                name, _, help_text = line.removeprefix(_HELP_LINE).partition(" ")
                # It is written again as it came, so it must not be escaped a second time.
                plain = help_text.replace(r"\n", "\n").replace(r"\\", "\\")
                family = families.setdefault(name, Family(name, "untyped", plain))
            elif line.startswith(_TYPE_LINE) and family is not None:
                family.kind = line.rpartition(" ")[2]
            elif family is not None and line.startswith(family.name):
                family.lines.append(line)
    return exposition(families.values())


def resident_bytes() -> int | None:
    """Return the resident memory of this process, None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int | None:
    """Return how many file descriptors are open, None where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 -- no object for each of them
    except OSError:
        return None


def most_files() -> int | None:
    """Return how many may be open, None where the system does not say or sets no limit."""
    try:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except (OSError, ValueError):
        return None
    return None if most == resource.RLIM_INFINITY else most


def start_unix_s() -> float | None:
    """Return when this process started, Unix time, None where the system does not say."""
    try:
        # The name in the second field may hold spaces and brackets; what follows is plain.
        after_name = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2]
        ticks = int(after_name.split()[19])
        up_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return round(time.time() - up_s + ticks / os.sysconf("SC_CLK_TCK"), 2)


def _sampler_counters(state: sampler.Stats, pid: Mapping[str, str]) -> list[Family]:
    samples = Family("stanch_samples_total", "counter", "Allocations sampled.")
    samples.add(state.samples, pid)
    dropped = Family(
        "stanch_samples_dropped_total", "counter", "Samples that could not be stored, by reason."
    )
    for reason, count in state.dropped.items():
        dropped.add(count, {**pid, "reason": reason})
    known = Family("stanch_labels", "gauge", "Different labels of samples so far, by kind.")
    known.add(state.threads_known, {**pid, "kind": "thread"})
    known.add(state.routes_known, {**pid, "kind": "route"})
    refused = Family(
        "stanch_labels_refused_total",
        "counter",
        "Samples whose label is one for the rest, as there was no room for theirs.",
    )
    refused.add(state.labels_refused, pid)
    return [samples, dropped, known, refused]


def _collector(facts: Facts, pid: Mapping[str, str]) -> list[Family]:
    collections = Family(
        "stanch_gc_collections_total", "counter", "Garbage collections by generation."
    )
    for generation, counts in enumerate(gc.get_stats()):
        collections.add(counts["collections"], {**pid, "generation": str(generation)})
    count, total_ns, longest_ns = sampler.gc_pauses()
    duty = f"timed during {WATCHED_S:g} s of each {CYCLE_S:g} s"
    pauses = Family("stanch_gc_pause_seconds", "summary", f"Pauses of the collector, {duty}.")
    pauses.add(total_ns / 1e9, pid, "_sum")
    pauses.add(count, pid, "_count")
    longest = Family(
        "stanch_gc_pause_max_seconds", "gauge", f"Longest pause of the collector, {duty}."
    )
    longest.add(longest_ns / 1e9, pid)
    watched = Family(
        "stanch_gc_watched_seconds_total", "counter", "How long pauses were timed; see the pauses."
    )
    watched.add(facts.gc_watched_s, pid)
    return [collections, pauses, longest, watched]


def _requests(meter: RequestMeter | None, pid: Mapping[str, str]) -> list[Family]:
    if meter is None:
        return []
    total = Family("stanch_requests_total", "counter", "Requests served.")
    total.add(meter.total, pid)
    failed = Family("stanch_requests_failed_total", "counter", "Requests that ended in an error.")
    failed.add(meter.failed, pid)
    flying = Family("stanch_requests_in_flight", "gauge", "Requests begun and not finished.")
    flying.add(meter.in_flight, pid)
    seconds = Family("stanch_request_seconds", "histogram", "How long requests took.")
    below = 0
    buckets = list(meter.buckets)
    for bound, count in zip(BUCKET_SECONDS, buckets[:-1], strict=True):
        below += count
        seconds.add(below, {**pid, "le": f"{bound:g}"}, "_bucket")
    seconds.add(sum(buckets), {**pid, "le": "+Inf"}, "_bucket")
    seconds.add(meter.seconds_sum, pid, "_sum")
    seconds.add(sum(buckets), pid, "_count")
    return [total, failed, flying, seconds]


def _memory(account: Breakdown, pid: Mapping[str, str]) -> list[Family]:
    kinds = Family(
        "stanch_memory_bytes",
        "gauge",
        "Resident memory by kind, which adds up to RSS; read now and then, see docs/memory.md.",
    )
    for row in account.rows:
        kinds.add(row.bytes, {**pid, "kind": row.kind})
    overshoot = Family(
        "stanch_memory_overshoot_bytes",
        "gauge",
        "By how much the estimates among stanch_memory_bytes went beyond the memory there is.",
    )
    overshoot.add(account.overshoot_bytes, pid)
    return [kinds, overshoot]


def _own_cost(facts: Facts, state: sampler.Stats, pid: Mapping[str, str]) -> list[Family]:
    cost = Family("stanch_overhead_seconds_total", "counter", "CPU time of the agent by part.")
    cost.add(sampling_ns(state) / 1e9, {**pid, "part": "sampler"})
    cost.add(facts.endpoint_cpu_s, {**pid, "part": "endpoint"})
    reads = Family("stanch_endpoint_reads_total", "counter", "Reads answered by path and status.")
    for (path, status), count in sorted(facts.reads.items()):
        reads.add(count, {**pid, "path": path, "status": str(status)})
    return [cost, reads]


def _budget(state: BudgetState | None, pid: Mapping[str, str]) -> list[Family]:
    if state is None:
        return []
    changes = Family(
        "stanch_interval_changes_total", "counter", "Changes of the interval to fit the budget."
    )
    changes.add(state.changes, pid)
    budget = Family(
        "stanch_budget_ratio", "gauge", "Share of the CPU time that the agent may cost."
    )
    budget.add(state.budget, pid)
    families = [changes, budget]
    if state.measured is not None:
        measured = Family(
            "stanch_overhead_ratio", "gauge", "Share of the CPU time that the agent cost of late."
        )
        measured.add(state.measured, pid)
        families.append(measured)
    return families
