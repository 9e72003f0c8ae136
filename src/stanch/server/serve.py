"""A server from its start to its end: the store, the loops and the pages, in one process.

It ends at SIGTERM or Ctrl-C: open requests are finished within a bound, then the loops stop, then
what waits is inserted and the store is closed.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.applications import Starlette

from stanch.alert.configuration import read_configuration
from stanch.collect import Scrape, TargetDefaults
from stanch.collect.discovery import JoinedTargets
from stanch.collect.observe import breakdown_of
from stanch.collect.received import Receiver
from stanch.deaths import Evidence
from stanch.deaths.book import BookError
from stanch.deaths.storebook import StoreBook, move_journal, take_up_lives
from stanch.journal import FILE_NAME, Journal, JournalError
from stanch.kube import ClusterError
from stanch.server.alarming import Alarming
from stanch.server.chronicle import Chronicle
from stanch.server.cluster import ClusterWatch, sources_of
from stanch.server.configuration import ServerConfiguration, checked
from stanch.server.division import Division
from stanch.server.fleet import Fleet, FleetOptions
from stanch.server.head import BoundedHead
from stanch.server.pages.application import make_application
from stanch.server.selfwatch import SelfWatch, told_to_people
from stanch.server.sharedalarms import SharedAlarms
from stanch.server.sharing import Sharing
from stanch.server.tokens import Tokens
from stanch.server.watch import WatchState
from stanch.store import Look, ProcessLook
from stanch.store.record import LifeState
from stanch.store.sqlhistory import read_memory_bytes
from stanch.store.sqlstore import SqlStore, open_store

_DRAIN_S = 10
_LOOPS_END_S = 20.0
_MOST_CONNECTIONS = 512
_BACKLOG = 128
_IDLE_S = 30
_MOST_TARGETS = 20_000


class ServeError(Exception):
    """The server cannot start; one sentence with the remedy."""


def serve(
    configuration: ServerConfiguration,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    say: told the URL once it answers. Raises ServeError, ConfigurationError, StoreError,
    TargetError and TokenError.
    """
    tokens = Tokens(configuration.data)
    checked(configuration, bool(tokens.listed()))
    with contextlib.ExitStack() as ending:
        try:
            source, cluster = sources_of(
                configuration.targets,
                _defaults(configuration),
                ending,
                kubeconfig=configuration.kubeconfig,
                lease=configuration.lease,
            )
        except ClusterError as error:
            raise ServeError(str(error)) from error
        listener = listen_on(*configuration.address)
        ending.callback(listener.close)
        own = None
        if configuration.watch_self:
            # Before the store, so that what that allocates is seen too.
            own = ending.enter_context(SelfWatch(listener.getsockname()[1]))
            source = JoinedTargets((source, own))
        store = ending.enter_context(open_store(configuration.store, configuration.data))
        if own is not None and own.why_not:
            store.notice(f"the server does not watch itself: {own.why_not}")
        chronicle = ending.enter_context(_chronicle(configuration, store))
        division = _division(configuration, store, listener, ending)
        options = FleetOptions(every_s=configuration.every_s, detect_every_s=configuration.every_s)
        fleet = Fleet(
            store,
            source,
            options,
            division=division,
            told=_told(configuration, store, chronicle, cluster, division, ending),
            witness=chronicle.witness,
            breakdown=breakdown_of if own is None else _breakdown(own, store),
        )
        store.on_end = lambda life, last: _pushed_end(fleet, chronicle, life, last)
        application = make_application(
            store,
            Receiver(store, time.time, fleet.heard),
            configuration,
            tokens if configuration.needs_token else None,
            lifespan=lambda app: _looping(app, fleet, store),
            division=division,
        )
        scheme = "https" if configuration.tls_cert else "http"
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        say(f"stanch server: {scheme}://{shown}:{port}/")
        # uvicorn raises the signal that ended it once more; the store is yet to be closed then.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(http_settings(application, configuration)).run(sockets=[listener])


def _breakdown(own: SelfWatch, store: SqlStore) -> Callable[[Scrape], dict[str, int]]:
    return lambda scrape: own.breakdown(scrape, lambda: read_memory_bytes(store.engine))


def _division(
    configuration: ServerConfiguration,
    store: SqlStore,
    listener: socket.socket,
    ending: contextlib.ExitStack,
) -> Division:
    """This server's part: everything, unless others may use the same store."""
    if store.engine.is_embedded:
        return Division(store)
    name = configuration.name or f"{socket.gethostname()}:{listener.getsockname()[1]}"
    sharing = ending.enter_context(Sharing(store.engine, name, configuration.lifetime_s))
    return Division(store, sharing)


def _defaults(configuration: ServerConfiguration) -> TargetDefaults:
    token_file, ca = configuration.token_file, configuration.ca
    return TargetDefaults(
        token_file=None if token_file is None else str(token_file),
        ca_file=None if ca is None else str(ca),
    )


def _chronicle(configuration: ServerConfiguration, store: SqlStore) -> Chronicle:
    """The chronicle, whose book is in the store; what an earlier version wrote down is moved there.

    Raises ServeError.
    """
    book = StoreBook(store)
    try:
        if (configuration.data / FILE_NAME).exists():
            with Journal(configuration.data) as journal:
                move_journal(journal, book)
        take_up_lives(store, book)
    except (JournalError, BookError) as error:
        raise ServeError(str(error)) from error
    return Chronicle(
        book,
        configuration.tables,
        most_targets=_MOST_TARGETS,
        last_profile=book.last_profile,
    )


def _pushed_end(fleet: Fleet, chronicle: Chronicle, life: LifeState, last: Look) -> None:
    """Write down the end of a process that only its pushes told of."""
    if not fleet.is_pushed(life.service, life.instance):
        return
    counted = last.processes[0] if last.processes else ProcessLook()
    chronicle.tell(
        life.service,
        life.instance,
        Evidence(near_limit=life.end == "killed"),
        died_unix=life.seen_ms / 1000,
        pid=life.pid,
        memory_bytes=life.memory_bytes,
        limit_bytes=life.limit_bytes,
        uptime_s=(life.seen_ms - life.start_ms) / 1000,
        requests=counted.requests,
        in_flight=counted.in_flight,
    )


def _told(
    configuration: ServerConfiguration,
    store: SqlStore,
    chronicle: Chronicle,
    cluster: ClusterWatch | None,
    division: Division,
    ending: contextlib.ExitStack,
) -> Callable[[WatchState], None]:
    """Where the states of the detection go: to the alarms, when there is a file of them.

    In a cluster also ends of containers are written down, and only the leader alarms. Of servers
    that share a store each alarms of its own services.
    """
    alarming = None
    try:
        if configuration.alarms is not None:
            alarms = read_configuration(configuration.alarms)
            shared = None
            if division.is_shared:
                shared = SharedAlarms(store.engine, configuration.data, division.may_tell)
            alarming = Alarming(alarms, configuration.data, series=store.series, shared=shared)
            division.shift = alarming.shift
            ending.enter_context(alarming)
    except JournalError as error:
        raise ServeError(str(error)) from error

    said: list[str | None] = [None]

    def is_ours(service: str) -> bool:
        return not division.is_shared or service in division.owned

    def told(state: WatchState) -> None:
        if cluster is not None:
            state = cluster.take(state, chronicle, is_ours)
        state = chronicle.take(state)
        for note in state.notes:
            store.notice(note)
        if state.source_error != said[0]:
            said[0] = state.source_error
            store.notice(state.source_error or "the lists of targets can be read again")
        if alarming is None or not (cluster is None or cluster.may_tell):
            return
        if not division.may_tell():
            return
        if cluster is not None:
            cluster.take_up(alarming)
        alarming.take(told_to_people(state))
        if cluster is not None:
            cluster.leave(alarming)
        if alarming.trouble is not None:
            store.notice(f"alarms: {alarming.trouble}")

    return told


@contextlib.asynccontextmanager
async def _looping(application: Starlette, fleet: Fleet, store: SqlStore) -> AsyncIterator[None]:
    """Run the loops for as long as the application runs."""
    stop = asyncio.Event()
    loops = asyncio.create_task(fleet.run(stop))
    loops.add_done_callback(lambda task: None if stop.is_set() else _report(task, store))
    try:
        yield
    finally:
        stop.set()
        _, late = await asyncio.wait([loops], timeout=_LOOPS_END_S)
        for task in late:
            task.cancel()


def _report(task: "asyncio.Task[None]", store: SqlStore) -> None:
    """Loops that ended by themselves are a fault that people must see."""
    if not task.cancelled() and (error := task.exception()) is not None:
        store.notice(f"scraping has stopped: {error}; restart the server")


def http_settings(application: Starlette, configuration: ServerConfiguration) -> uvicorn.Config:
    """How HTTP is spoken: bounded in connections, heads and time."""
    return uvicorn.Config(
        application,
        http=BoundedHead,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        backlog=_BACKLOG,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        ssl_certfile=configuration.tls_cert,
        ssl_keyfile=configuration.tls_key,
    )


def listen_on(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ServeError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ServeError(
            f"cannot listen on {host}:{port}: {error.strerror}; use another --listen"
        ) from error
    return listener
