"""The journal's tables. A step of MIGRATIONS is never changed once released: add another.

Times are Unix seconds. Values that only our own code reads are JSON.
"""

_ALARMS = """
CREATE TABLE alarms (
    fingerprint TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    body TEXT NOT NULL
)
"""
_MARKS = """
CREATE TABLE marks (
    fingerprint TEXT PRIMARY KEY,
    verdict TEXT NOT NULL,
    note TEXT NOT NULL,
    by TEXT NOT NULL,
    at_unix REAL NOT NULL,
    rate REAL
)
"""
_WINDOWS = """
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    begins_unix REAL NOT NULL,
    ends_unix REAL NOT NULL,
    every_s REAL,
    note TEXT NOT NULL,
    by TEXT NOT NULL
)
"""
_OUTBOX = """
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    receiver TEXT NOT NULL,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    queued_unix REAL NOT NULL,
    due_unix REAL NOT NULL,
    tries INTEGER NOT NULL,
    sent_unix REAL,
    error TEXT NOT NULL,
    UNIQUE (key, receiver)
)
"""
_OUTBOX_ORDER = "CREATE INDEX outbox_order ON outbox (receiver, state, id)"
_DEATHS = """
CREATE TABLE deaths (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    instance TEXT NOT NULL,
    cause TEXT NOT NULL,
    died_unix REAL NOT NULL,
    body TEXT NOT NULL,
    profile BLOB
)
"""
_DEATHS_ORDER = "CREATE INDEX deaths_order ON deaths (service, died_unix)"
_RECYCLES = """
CREATE TABLE recycles (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    instance TEXT NOT NULL,
    state TEXT NOT NULL,
    began_unix REAL NOT NULL,
    ended_unix REAL,
    body TEXT NOT NULL
)
"""
_RECYCLES_ORDER = "CREATE INDEX recycles_order ON recycles (service, began_unix)"
_SHARED = """
CREATE TABLE shared (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
)
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        _ALARMS,
        _MARKS,
        _WINDOWS,
        _OUTBOX,
        _OUTBOX_ORDER,
        _DEATHS,
        _DEATHS_ORDER,
        _RECYCLES,
        _RECYCLES_ORDER,
    ),
    (_SHARED,),
)
