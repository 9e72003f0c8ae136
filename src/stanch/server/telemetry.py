"""The server's own /metrics, in Prometheus' text format: targets, ingest, the store, its memory.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import resource
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from stanch.agent.exposition import Family, open_files, resident_bytes
from stanch.agent.exposition import exposition as text_of
from stanch.server.division import Division
from stanch.server.sharing import Standing
from stanch.store.history import History
from stanch.version import __version__

_MOST_TARGETS = 5000


class Counters:
    """What has come in since the start, by outcome. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(taken=0, again=0, refused=0, full=0)
        self._bytes = 0
        self._limited: Counter[str] = Counter(address=0, token=0, service=0, services=0)

    def note(self, outcome: str, size: int = 0) -> None:
        """outcome: "taken", "again" (known already), "refused" or "full"."""
        with self._lock:
            self._counts[outcome] += 1
            self._bytes += size

    def limited(self, limit: str) -> None:
        """limit: "address" or "token" asks too often, "service" is pushed for too often, or a
        sender names too many "services"."""
        with self._lock:
            self._limited[limit] += 1

    def refusals(self) -> dict[str, int]:
        """How often each limit refused a request."""
        with self._lock:
            return dict(self._limited)

    def read(self) -> tuple[dict[str, int], int]:
        """The counts, and how many bytes of profiles came in."""
        with self._lock:
            return dict(self._counts), self._bytes


def exposition(
    history: History, counters: Counters, started_unix: float, division: Division | None = None
) -> str:
    """All metrics as text. division: of servers that share a store. Raises StoreError."""
    return text_of(_families(history, counters, started_unix, division))


def _families(
    history: History, counters: Counters, started_unix: float, division: Division | None
) -> Iterator[Family]:
    counts, received = counters.read()
    storage = history.storage()
    targets = history.targets()[:_MOST_TARGETS]
    yield _family("stanch_server_info", "gauge", "The version.", [({"version": __version__}, 1)])
    yield _family(
        "stanch_server_target_up",
        "gauge",
        "Whether the last scrape of a target, or its last push, was good.",
        [(_of(one.service, one.instance), int(not one.error)) for one in targets],
    )
    yield _family(
        "stanch_server_scrape_duration_seconds",
        "gauge",
        "How long the last scrape of a target took.",
        [
            (_of(one.service, one.instance), one.duration_s)
            for one in targets
            if one.duration_s is not None
        ],
    )
    yield _family(
        "stanch_server_pushes_total",
        "counter",
        "Profiles that were pushed, by what became of them.",
        [({"outcome": outcome}, count) for outcome, count in sorted(counts.items())],
    )
    yield _family(
        "stanch_server_received_bytes_total", "counter", "Bytes of them.", [({}, received)]
    )
    yield _family(
        "stanch_server_limited_total",
        "counter",
        "Requests refused for coming too often, or for too many services, by limit.",
        [({"limit": limit}, count) for limit, count in sorted(counters.refusals().items())],
    )
    for name, text, value in (
        ("store_bytes", "What the store takes of the disk.", storage.bytes_on_disk),
        ("store_memory_bytes", "What the engine holds of the memory.", storage.memory_bytes),
        ("store_rows", "Rows in the store.", storage.rows),
        ("store_free_bytes", "What is free where the store is.", storage.free_bytes),
        ("store_waiting_profiles", "On the disk, not in the tables yet.", storage.waiting_profiles),
        ("store_skipped_profiles", "Known before, so kept once.", storage.skipped_profiles),
    ):
        if value is not None:
            yield _family(f"stanch_server_{name}", "gauge", text, [({}, value)])
    if division is not None and (standing := division.standing()) is not None:
        yield from _sharing(division, standing)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for name, kind, text, number in (
        ("process_resident_memory_bytes", "gauge", "RSS.", resident_bytes()),
        ("process_cpu_seconds_total", "counter", "CPU time.", usage.ru_utime + usage.ru_stime),
        ("process_start_time_seconds", "gauge", "Unix time of the start.", started_unix),
        ("process_open_fds", "gauge", "Open files.", open_files()),
    ):
        if number is not None:
            yield _family(name, kind, text, [({}, number)])


def _sharing(division: Division, standing: Standing) -> Iterator[Family]:
    for name, kind, text, value in (
        ("services_owned", "gauge", "Services that this server judges.", len(division.owned)),
        ("acts", "gauge", "Whether the store knows that this server lives.", standing.acts),
        ("members", "gauge", "Servers that share the store.", len(standing.members)),
        ("members_changes_total", "counter", "How often they changed.", standing.changes),
        ("services_moved_total", "counter", "Services that came or went.", division.moves),
    ):
        yield _family(f"stanch_server_sharing_{name}", kind, text, [({}, int(value))])


def _of(service: str, instance: str) -> dict[str, str]:
    return {"service": service, "instance": instance}


def _family(
    name: str, kind: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]
) -> Family:
    family = Family(name, kind, text)
    for labels, value in values:
        family.add(value, labels)
    return family
