"""A server over what the watch spooled: its store and pages, without loops of its own.

It scrapes nothing and judges nothing, so the services are asked once, and the pages say what the
watch says.
"""

import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO

import uvicorn

from stanch.collect.received import Receiver
from stanch.deaths.book import BookError
from stanch.deaths.storebook import StoreBook
from stanch.profile import ProfileError
from stanch.server.configuration import ServerConfiguration
from stanch.server.ledger import Ledger
from stanch.server.pages.application import make_application
from stanch.server.serve import http_settings
from stanch.server.watch import WatchState
from stanch.store.errors import StoreError
from stanch.store.history import TargetRow
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import Extra, SqlStore, open_store

from .host.workplace import SERVICES
from .spool import Said, follow

MEMORY_BYTES = 768 * 1024 * 1024
BOUNDS = IntakeBounds(seconds=2.0)


def serve_spool(spool: Path, listener: socket.socket, stdin: BinaryIO) -> None:
    """Serve until stdin ends; what was stored for it goes then."""
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="store-", dir=spool.parent) as name:
        data = Path(name)
        configuration = ServerConfiguration(
            data, listen="127.0.0.1:0", every_s=2.5, source=(SERVICES,)
        )
        with open_store("chdb", data, bounds=BOUNDS, memory_bytes=MEMORY_BYTES) as store:
            application = make_application(store, Receiver(store, time.time), configuration, None)
            server = uvicorn.Server(http_settings(application, configuration))

            def end() -> None:
                stdin.read()
                server.should_exit = True

            threading.Thread(target=end, daemon=True).start()
            reader = threading.Thread(target=_read, args=(store, spool, stop), daemon=True)
            reader.start()
            server.run(sockets=[listener])
            stop.set()
            reader.join()


def _read(store: SqlStore, spool: Path, stop: threading.Event) -> None:
    """Take in what the watch saw and sees; what cannot be kept is told on stderr."""
    ledger, book = Ledger(store), StoreBook(store)
    ledger.take_up()
    for message in follow(spool, stop):
        try:
            if isinstance(message, Said):
                state = message.state
                ledger.write(state.findings, state.resolved, state.fixes, message.answers.get)
                store.write_targets(_targets(state))
                for death in state.deaths:
                    book.record(death)
            else:
                store.take(message.look, message.taken, Extra(message.latency_s))
        except (StoreError, ProfileError, BookError) as error:
            print(error, file=sys.stderr)


def _targets(state: WatchState) -> list[TargetRow]:
    return [
        TargetRow(
            service=row.service,
            instance=row.instance,
            address="",
            origin="scrape",
            verdict=row.verdict,
            error=row.error or "",
            duration_s=None,
            last_unix_s=state.unix_s,
            last_good_unix_s=None if row.error else state.unix_s,
        )
        for row in state.rows
    ]
