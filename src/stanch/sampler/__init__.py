"""The heap sampler: a C core under CPython's allocators, and the reader of its live table.

Guarantees to its host: a sample that cannot be stored is dropped and counted; no hook allocates a
Python object, raises or waits for anything but the table's own short lock.
"""

from stanch.sampler.cgroup import memory_limit
from stanch.sampler.control import (
    LARGEST_INTERVAL_BYTES,
    PRELOAD,
    TABLE_SUFFIX,
    Stats,
    after_fork_in_child,
    count_request,
    default_interval,
    gc_pauses,
    gc_watch,
    heap_profile,
    preload_problem,
    running,
    set_interval,
    snapshot,
    start,
    stats,
    stop,
    watch_exit,
)
from stanch.sampler.errors import SamplerError, SearchError, TableError
from stanch.sampler.heap import (
    BIRTH_BAND_S,
    BIRTH_LABEL,
    ROUTE_LABEL,
    THREAD_LABEL,
    sample_weight,
    table_profile,
)
from stanch.sampler.labels import label
from stanch.sampler.tablefile import Domain, TableImage, read_table

__all__ = [
    "BIRTH_BAND_S",
    "BIRTH_LABEL",
    "LARGEST_INTERVAL_BYTES",
    "PRELOAD",
    "ROUTE_LABEL",
    "TABLE_SUFFIX",
    "THREAD_LABEL",
    "Domain",
    "SamplerError",
    "SearchError",
    "Stats",
    "TableError",
    "TableImage",
    "after_fork_in_child",
    "count_request",
    "default_interval",
    "gc_pauses",
    "gc_watch",
    "heap_profile",
    "label",
    "memory_limit",
    "preload_problem",
    "read_table",
    "running",
    "sample_weight",
    "set_interval",
    "snapshot",
    "start",
    "stats",
    "stop",
    "table_profile",
    "watch_exit",
]
