"""The one schema, for chDB and for a ClickHouse cluster: only the engines' names differ.

Samples are ordered by service, hour, stack, instance and time: so a stack's series lies together
and its times, which Delta and ZSTD see, hardly take space. Stacks are named by 128 bits; their
frames are written once a day and are read aggregated, so writing them twice does no harm.

On a cluster a table NAME is `Distributed` over NAME_local on each node, by service: a query for
one service reads one shard, and a token of deduplication always reaches the same one.
"""

from dataclasses import dataclass

DATABASE = "stanch"
PARTITION_HOURS = 6
_UTC = "DateTime64(3, 'UTC')"
_TIME = f"{_UTC} CODEC(Delta, ZSTD(1))"
_STORES_TIME = f"{_UTC} DEFAULT now64(3) CODEC(Delta, ZSTD(1))"
"""By the clock of the store, as those of servers may differ; it is not sent."""
_NAME = "LowCardinality(String) CODEC(ZSTD(1))"
_BIG = "UInt64 CODEC(T64, ZSTD(1))"
_FLOAT = "Float64 CODEC(ZSTD(1))"
_UNKNOWN = "Float64 DEFAULT nan CODEC(ZSTD(1))"
PROFILE_NAME = "lower(hex(reinterpretAsFixedString(profile)))"
"""The name of a profile, 32 hex digits, of its column."""
BETWEEN = (
    "time >= fromUnixTimestamp64Milli({since:Int64})"
    " AND time < fromUnixTimestamp64Milli({until:Int64})"
)
"""Rows of a range; its parameters are milliseconds since the Unix epoch."""
_BY_HOURS = f"toStartOfInterval(time, INTERVAL {PARTITION_HOURS} HOUR)"


@dataclass(frozen=True, slots=True)
class Table:
    """One table. replacing: the column whose largest value wins among rows of the same key.

    shard: the expression that divides rows among the shards of a cluster. aged: whether its
    partitions are dropped by age; the others are small and stay, unless rows are forgotten_after an
    interval. added: columns that a table made by an earlier version may lack; in its older rows
    they are unknown.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    partition: str
    order: str
    replacing: str | None = None
    shard: str = "cityHash64(service)"
    aged: bool = True
    forgotten_after: str = ""
    added: tuple[str, ...] = ()

    @property
    def sent(self) -> tuple[str, ...]:
        """The columns that come with a row: all but a time by the store's own clock."""
        return tuple(name for name, kind in self.columns if kind != _STORES_TIME)


SAMPLES = Table(
    "samples",
    (
        ("service", _NAME),
        ("instance", _NAME),
        ("life", "UInt64 CODEC(ZSTD(1))"),
        ("time", _TIME),
        ("kind", _NAME),
        ("stack", "UInt128 CODEC(ZSTD(1))"),
        ("labels", _NAME),
        ("alloc_objects", _BIG),
        ("alloc_bytes", _BIG),
        ("live_objects", _BIG),
        ("live_bytes", _BIG),
        ("birth_s", "Array(UInt32) CODEC(Delta, ZSTD(1))"),
        ("birth_bytes", "Array(UInt64) CODEC(T64, ZSTD(1))"),
    ),
    partition=_BY_HOURS,
    order="service, toStartOfHour(time), stack, instance, time",
)
ROLLED = Table(
    "rolled",
    SAMPLES.columns,
    partition=_BY_HOURS,
    order="service, life, stack, time",
)
"""The first heap and the first counts of a life in each five minutes: what is left of samples when
they have gone by age, and what long lives are read from."""
STACKS = Table(
    "stacks",
    (
        ("stack", "UInt128 CODEC(ZSTD(1))"),
        ("time", _TIME),
        ("functions", "Array(LowCardinality(String)) CODEC(ZSTD(1))"),
        ("files", "Array(LowCardinality(String)) CODEC(ZSTD(1))"),
        ("lines", "Array(UInt32) CODEC(ZSTD(1))"),
        ("starts", "Array(UInt32) CODEC(ZSTD(1))"),
    ),
    partition="toDate(time)",
    order="stack",
    replacing="time",
    shard="cityHash64(stack)",
)
MEMORY = Table(
    "memory",
    (
        ("service", _NAME),
        ("instance", _NAME),
        ("life", "UInt64 CODEC(ZSTD(1))"),
        ("time", _TIME),
        ("age_s", _FLOAT),
        ("rss_bytes", _FLOAT),
        ("memory_bytes", _FLOAT),
        ("limit_bytes", _FLOAT),
        ("heap_bytes", _FLOAT),
        ("runtime_bytes", _FLOAT),
        ("requests", _FLOAT),
        ("in_flight", _FLOAT),
        ("latency_s", _FLOAT),
        ("period_bytes", _FLOAT),
        ("fresh", "UInt8"),
        ("breakdown_names", "Array(LowCardinality(String)) CODEC(ZSTD(1))"),
        ("breakdown_bytes", "Array(UInt64) CODEC(ZSTD(1))"),
        ("slack_bytes", _UNKNOWN),
        ("page_cache_bytes", _UNKNOWN),
        ("open_fds", _UNKNOWN),
        ("max_fds", _UNKNOWN),
        ("rolled", "UInt8 DEFAULT 0"),
    ),
    partition=_BY_HOURS,
    order="service, instance, time",
    added=("slack_bytes", "page_cache_bytes", "open_fds", "max_fds", "rolled"),
)
PROFILES = Table(
    "profiles",
    (
        ("service", _NAME),
        ("instance", _NAME),
        ("life", "UInt64 CODEC(ZSTD(1))"),
        ("time", _TIME),
        ("profile", "UInt128 CODEC(ZSTD(1))"),
        ("kind", _NAME),
        ("stacks", "UInt32 CODEC(ZSTD(1))"),
        ("live_bytes", _BIG),
        ("rolled", "UInt8 DEFAULT 0"),
    ),
    partition=_BY_HOURS,
    order="service, instance, time",
    added=("rolled",),
)
RAW = Table(
    "raw",
    (
        ("service", _NAME),
        ("time", _TIME),
        ("profile", "UInt128 CODEC(ZSTD(1))"),
        ("data", "String CODEC(NONE)"),
    ),
    partition="toStartOfInterval(time, INTERVAL 10 MINUTE)",
    order="profile",
)
LIVES = Table(
    "lives",
    (
        ("service", _NAME),
        ("instance", _NAME),
        ("life", "UInt64 CODEC(ZSTD(1))"),
        ("start", _TIME),
        ("seen", _TIME),
        ("end", _NAME),
        ("release", _NAME),
        ("language", _NAME),
        ("pid", "Int64 CODEC(ZSTD(1))"),
        ("limit_bytes", _FLOAT),
        ("memory_bytes", _FLOAT),
    ),
    partition="toYYYYMM(start)",
    order="service, instance, life",
    replacing="seen",
    aged=False,
)
DEATHS = Table(
    "deaths",
    (
        ("service", _NAME),
        ("instance", _NAME),
        ("death", "UInt64"),
        ("time", _TIME),
        ("written", _TIME),
        ("cause", _NAME),
        ("document", "String CODEC(ZSTD(1))"),
    ),
    partition="tuple()",
    order="service, death",
    replacing="written",
    aged=False,
)
DEATH_PROFILES = Table(
    "death_profiles",
    (
        ("service", _NAME),
        ("death", "UInt64"),
        ("time", _TIME),
        ("data", "String CODEC(NONE)"),
    ),
    partition="toDate(time)",
    order="service, death",
    replacing="time",
)
FINDINGS = Table(
    "findings",
    (
        ("service", _NAME),
        ("finding", "UInt64"),
        ("kind", _NAME),
        ("stage", _NAME),
        ("status", _NAME),
        ("file", "String CODEC(ZSTD(1))"),
        ("line", "UInt32"),
        ("function", "String CODEC(ZSTD(1))"),
        ("first", _TIME),
        ("last", _TIME),
        ("release", _NAME),
        ("document", "String CODEC(ZSTD(1))"),
        ("retention", "String CODEC(ZSTD(1))"),
    ),
    partition="tuple()",
    order="service, finding",
    replacing="last",
    aged=False,
)
TARGETS = Table(
    "targets",
    (
        ("service", _NAME),
        ("instance", _NAME),
        ("address", "String CODEC(ZSTD(1))"),
        ("origin", _NAME),
        ("verdict", _NAME),
        ("error", "String CODEC(ZSTD(1))"),
        ("duration_s", _FLOAT),
        ("last", _TIME),
        ("good", _TIME),
        ("server", "LowCardinality(String) DEFAULT '' CODEC(ZSTD(1))"),
    ),
    partition="tuple()",
    order="service, instance, address",
    replacing="last",
    aged=False,
    added=("server",),
)
SERVERS = Table(
    "servers",
    (
        ("server", _NAME),
        ("incarnation", "UInt64"),
        ("beat", "UInt64"),
        ("members", "Array(String) CODEC(ZSTD(1))"),
        ("left", "UInt8"),
        ("time", _STORES_TIME),
    ),
    partition="tuple()",
    order="server, incarnation",
    replacing="beat",
    shard="cityHash64(server)",
    aged=False,
    forgotten_after="1 DAY",
)
"""Signs of life of the servers that share the store; members: those that a server divides by."""
ALARMS = Table(
    "alarms",
    (
        ("service", _NAME),
        ("fingerprint", "String CODEC(ZSTD(1))"),
        ("version", "UInt64"),
        ("document", "String CODEC(ZSTD(1))"),
        ("time", _STORES_TIME),
    ),
    partition="tuple()",
    order="service, fingerprint",
    replacing="version",
    aged=False,
    forgotten_after="90 DAY",
)
"""What receivers have been told of each alarm, for the server that takes its service over."""
SILENCES = Table(
    "silences",
    (
        ("name", "String CODEC(ZSTD(1))"),
        ("document", "String CODEC(ZSTD(1))"),
        ("time", _STORES_TIME),
    ),
    partition="tuple()",
    order="name",
    replacing="time",
    shard="cityHash64(name)",
    aged=False,
)
"""Marks and maintenance windows, which hold on all servers; one without a document was removed."""
TABLES = (
    *(SAMPLES, ROLLED, STACKS, MEMORY, PROFILES, RAW, LIVES),
    *(DEATHS, DEATH_PROFILES, FINDINGS, TARGETS),
    *(SERVERS, ALARMS, SILENCES),
)

_SETTINGS = "fsync_after_insert = 1, fsync_part_directory = 1"
_MERGED = "min_rows_to_fsync_after_merge = 1"
"""A part that comes of a merge is synced too. The engine does not do so by itself, and deletes what
it was made of some minutes later: a power cut could take the only copy."""
_MERGING = (
    f"{_MERGED}, merge_selector_base = 20, max_bytes_to_merge_at_max_space_in_pool = 1073741824,"
    " vertical_merge_algorithm_min_columns_to_activate = 1"
)
"""Of the tables of samples. A merge costs as much CPU for a row as its insert, so parts of a busy
partition are merged twenty at a time and no further than to a gigabyte; vertically, which takes
less memory. Few or old parts are still merged in small numbers."""
_PLAIN = ", auto_statistics_types = '', ratio_of_defaults_for_sparse_serialization = 1.0"
"""Besides, of the embedded engine: no statistics of columns, which no question uses and which cost
a seventh of a merge. An older cluster does not know the first of these."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster by its name in the servers' configuration.

    replicated: ReplicatedMergeTree and `ON CLUSTER`, which need Keeper; without, every node is
    told by itself and holds its shard alone. keep_days: age at which rows are dropped; samples go
    after sample_days, when what is rolled up stands for them.
    """

    name: str
    replicated: bool = True
    keep_days: int = 30
    sample_days: int = 2


def ddl(cluster: Cluster | None = None) -> list[str]:
    """The statements that make what is missing; to run them again changes nothing."""
    on = f" ON CLUSTER {_quoted(cluster.name)}" if cluster and cluster.replicated else ""
    statements = [f"CREATE DATABASE IF NOT EXISTS {DATABASE}{on}"]
    for table in TABLES:
        name = f"{table.name}_local" if cluster else table.name
        statements += [_create(table, name, cluster, on), *_add_columns(table, name, on)]
        of_samples = _MERGING if cluster else _MERGING + _PLAIN
        settings = of_samples if table in (SAMPLES, ROLLED) else _MERGED
        statements.append(f"ALTER TABLE {DATABASE}.{name}{on} MODIFY SETTING {settings}")
        if cluster:
            statements.append(
                f"CREATE TABLE IF NOT EXISTS {DATABASE}.{table.name}{on}"
                f" AS {DATABASE}.{name} ENGINE = Distributed({_quoted(cluster.name)},"
                f" {DATABASE}, {name}, {table.shard})"
            )
            statements += _add_columns(table, table.name, on)
    return statements


def _add_columns(table: Table, name: str, on: str) -> list[str]:
    """What brings a table that an earlier version made to what it is now."""
    return [
        f"ALTER TABLE {DATABASE}.{name}{on} ADD COLUMN IF NOT EXISTS {_name(column)} {kind}"
        for column, kind in table.columns
        if column in table.added
    ]


def _create(table: Table, name: str, cluster: Cluster | None, on: str) -> str:
    columns = ", ".join(f"{_name(column)} {kind}" for column, kind in table.columns)
    family = "ReplacingMergeTree" if table.replacing else "MergeTree"
    arguments = [_name(table.replacing)] if table.replacing else []
    window = "non_replicated_deduplication_window = 2000"
    if cluster and cluster.replicated:
        family = f"Replicated{family}"
        path = f"/clickhouse/tables/{{shard}}/{DATABASE}/{table.name}"
        arguments = [_quoted(path), "'{replica}'", *arguments]
        window = "replicated_deduplication_window = 2000"
    ttl = ""
    if cluster and table.aged:
        days = cluster.sample_days if table is SAMPLES else cluster.keep_days
        ttl = f" TTL toDateTime(time) + INTERVAL {days} DAY"
        if table is RAW:
            ttl = " TTL toDateTime(time) + INTERVAL 1 HOUR"
    drop_parts = ", ttl_only_drop_parts = 1"
    if table.forgotten_after:
        ttl, drop_parts = f" TTL toDateTime(time) + INTERVAL {table.forgotten_after}", ""
    return (
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.{name}{on} ({columns})"
        f" ENGINE = {family}({', '.join(arguments)})"
        f" PARTITION BY {table.partition} ORDER BY ({table.order}){ttl}"
        f" SETTINGS {window}, {_SETTINGS}{drop_parts}"
    )


def native_types(table: Table) -> dict[str, str]:
    """The types in which columns are sent: without codecs, and names as plain strings."""
    plain = {}
    for name, kind in table.columns:
        bare = kind.partition(" CODEC(")[0].partition(" DEFAULT ")[0]
        plain[name] = bare.replace("LowCardinality(String)", "String")
    return plain


def _name(column: str) -> str:
    return f"`{column}`"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
