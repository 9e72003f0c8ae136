"""The engine behind the store: chDB inside this process, or a ClickHouse cluster over HTTP.

Both are reached by clickhouse-connect and speak one dialect. A connection serves one thread at a
time, so each query borrows one from a small pool. Errors of the client become StoreError here and
nowhere else.

chDB: one process owns a data directory (an flock on `lock`), and an engine that is older than the
one that wrote last is refused, as it would drop the parts that it does not know (`engine-version`).
HTTP: several addresses, with commas between them; when one does not answer, the next is asked,
inserts too, since their token makes a second arrival harmless.
"""

import fcntl
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as DriverError
from clickhouse_connect.driver.exceptions import OperationalError

from stanch.store.errors import StoreError, StoreFullError
from stanch.store.schema import DATABASE, Cluster, Table, ddl

CHDB_MEMORY_BYTES = 1_250_000_000
"""How much memory chDB may take, with that of this process: above it a query fails."""

_CHDB_OPTIONS = {
    "mark_cache_size": 32 * 1024 * 1024,
    "primary_index_cache_size": 32 * 1024 * 1024,
    "background_pool_size": 2,
    "background_schedule_pool_size": 2,
}
_SETTINGS = {"distributed_product_mode": "global", "distributed_foreground_insert": 1}
_MOST_CONNECTIONS = 6
_FULL = ("NOT_ENOUGH_SPACE", "No space left on device", "CANNOT_RESERVE_SPACE", "errno: 28")
_Result = TypeVar("_Result")
Row = tuple[Any, ...]
StackFrames: TypeAlias = tuple[tuple[str, str, int, int], ...]
"""Function, file, line and the function's first line, leaf first."""


class Engine:
    """Connections to one database. Its methods may be called from several threads."""

    def __init__(self, connects: Sequence[Callable[[str | None], Client]], name: str) -> None:
        """connects: one for each node, each gives a connection to a database or to none."""
        self._connects = connects
        self._node = 0
        self._idle: queue.LifoQueue[Client] = queue.LifoQueue()
        self._slots = queue.Queue[None](_MOST_CONNECTIONS)
        self._closed = False
        self._lock_file: int | None = None
        self.name = name
        self.directory: Path | None = None
        self.stacks: dict[int, StackFrames] = {}
        """Frames that were read before, by the stack's name."""

    @property
    def is_embedded(self) -> bool:
        """Whether the engine runs in this process, over a directory of its own."""
        return self.directory is not None

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of a SELECT. Raises StoreError."""
        given = dict(parameters or {})
        answer = self._run(lambda client: client.query(sql, parameters=given).result_rows)
        return [tuple(row) for row in answer]

    def command(self, sql: str) -> None:
        """Run a statement without an answer. Raises StoreError."""
        self._run(lambda client: client.command(sql))

    def insert(self, table: Table, block: bytes, token: str) -> None:
        """Insert a block of Native format; again with the same token changes nothing.

        Raises StoreError, StoreFullError when there is no room.
        """
        settings = {"insert_deduplication_token": token}
        self._run(
            lambda client: client.raw_insert(
                f"{DATABASE}.{table.name}", insert_block=block, fmt="Native", settings=settings
            )
        )

    def close(self) -> None:
        """Close all connections and let go of the directory."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _run(self, action: Callable[[Client], _Result]) -> _Result:
        for attempt in range(len(self._connects) + 1):
            try:
                with self._client() as client:
                    return action(client)
            except OperationalError as error:
                self._node = (self._node + 1) % len(self._connects)
                if attempt == len(self._connects):
                    raise StoreError(f"no node of the store answers: {_words(error)}") from error
            except DriverError as error:
                raise _store_error(error) from error
        raise AssertionError("unreachable")

    @contextmanager
    def _client(self) -> Iterator[Client]:
        """A connection for one action; one that failed for lack of an answer is not used again."""
        if self._closed:
            raise StoreError("the store is closed")
        self._slots.put(None)
        try:
            try:
                client = self._idle.get_nowait()
            except queue.Empty:
                client = self._connects[self._node](DATABASE)
            try:
                yield client
            except OperationalError:
                client.close()
                raise
            except BaseException:
                self._idle.put(client)
                raise
            self._idle.put(client)
        finally:
            self._slots.get_nowait()


def open_chdb(directory: Path, memory_bytes: int = CHDB_MEMORY_BYTES) -> Engine:
    """The engine over a directory, which is made when it is not there. Raises StoreError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = _lock(directory)
    except OSError as error:
        raise StoreError(f"cannot use the data directory {directory}: {error.strerror}") from error
    try:
        _check_installed()
        data = directory / "chdb"
        options = {**_CHDB_OPTIONS, "max_server_memory_usage": memory_bytes}

        def connect(database: str | None) -> Client:
            return clickhouse_connect.get_client(
                dsn=f"chdb://{data.absolute()}",
                database=database,
                settings=_SETTINGS,
                chdb_options=options,
            )

        _check_version(directory / "engine-version", _installed_version())
        engine = Engine([connect], "chDB")
        _prepare(connect, ddl())
        engine.directory = directory
        engine._lock_file = lock_file
    except BaseException as error:
        os.close(lock_file)
        if isinstance(error, DriverError):
            raise _store_error(error) from error
        raise
    return engine


def open_http(urls: str) -> Engine:
    """The engine of a cluster whose tables are made already. Raises StoreError."""
    connects = [_http(url) for url in urls.split(",") if url]
    engine = Engine(connects, "ClickHouse")
    engine.query("SELECT 1")
    return engine


def init_cluster(urls: str, cluster: Cluster) -> None:
    """Make the tables of a cluster. Raises StoreError.

    A replicated one needs one address, the others hear of it; else each node is told by itself.
    """
    connects = [_http(url) for url in urls.split(",") if url]
    for connect in connects[:1] if cluster.replicated else connects:
        try:
            _prepare(connect, ddl(cluster))
        except DriverError as error:
            raise _store_error(error) from error


def _http(url: str) -> Callable[[str | None], Client]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError(
            f"{parts.scheme}://{parts.hostname} is no address of a store; expected"
            " chdb:///DIRECTORY or http[s]://[USER:PASSWORD@]HOST:PORT[,...]"
        )

    def connect(database: str | None) -> Client:
        return clickhouse_connect.get_client(
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            secure=parts.scheme == "https",
            username=parts.username or "default",
            password=parts.password or os.environ.get("STANCH_STORE_PASSWORD", ""),
            database=database or "default",
            settings=_SETTINGS,
            autogenerate_session_id=False,
            connect_timeout=5,
            send_receive_timeout=120,
            query_retries=0,
        )

    return connect


def _prepare(connect: Callable[[str | None], Client], statements: Sequence[str]) -> None:
    client = connect(None)
    try:
        for statement in statements:
            client.command(statement, use_database=False)
    finally:
        client.close()


def _lock(directory: Path) -> int:
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StoreError(
            f"another process uses the data directory {directory}; stop it, or name another one"
        ) from None
    return handle


def _check_installed() -> None:
    try:
        import chdb  # noqa: F401 -- clickhouse-connect would import it later, with a worse message
    except ImportError as error:
        raise StoreError("the store needs chDB; pip install 'stanch[server]'") from error


def _installed_version() -> str:
    from importlib.metadata import version

    return version("chdb-core")


def _check_version(file: Path, running: str) -> None:
    """Refuse an engine older than the one that wrote last; remember a newer one for good."""
    written = file.read_text().strip() if file.exists() else ""
    if written and _numbers(running) < _numbers(written):
        raise StoreError(
            f"the data directory was written by chDB {written} and this is {running}, which would"
            f" lose newer data without a word; install chdb-core {written} or later"
        )
    if written != running:
        fresh = file.with_suffix(".new")
        with fresh.open("w") as opened:
            opened.write(f"{running}\n")
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(file)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _store_error(error: DriverError) -> StoreError:
    words = _words(error)
    if any(sign in words for sign in _FULL):
        return StoreFullError(f"the store's disk is full: {words}")
    return StoreError(f"the store failed: {words}")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
