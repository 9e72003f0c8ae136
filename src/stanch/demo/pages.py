"""The process that shows the incident: a store and the pages, fed by the demo through its stdin.

`python -m stanch.demo.pages DIRECTORY` writes its URL when it answers, and ends with its stdin.
What comes is pickled by the demo itself, so nothing of a stranger is unpickled.
"""

import os
import pickle
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import uvicorn

from stanch.collect.received import Receiver
from stanch.profile import ProfileError
from stanch.server.configuration import ServerConfiguration
from stanch.server.ledger import Ledger
from stanch.server.pages.application import make_application
from stanch.server.serve import http_settings, listen_on
from stanch.server.watch import WatchState
from stanch.store.errors import StoreError
from stanch.store.history import TargetRow
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import Extra, SqlStore, open_store

MEMORY_BYTES = 768 * 1024 * 1024
BOUNDS = IntakeBounds(seconds=2.0)


def main(data: Path, messages: BinaryIO) -> None:
    """Serve until the messages end, on time of the CPU that the incident leaves over."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    configuration = ServerConfiguration(data, listen="127.0.0.1:0", every_s=2.5)
    with (
        open_store("chdb", data, bounds=BOUNDS, memory_bytes=MEMORY_BYTES) as store,
        listen_on("127.0.0.1", 0) as listener,
    ):
        application = make_application(store, Receiver(store, time.time), configuration, None)
        server = uvicorn.Server(http_settings(application, configuration))
        reader = threading.Thread(target=_read, args=(store, messages, server), daemon=True)
        reader.start()
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
        server.run(sockets=[listener])


def _read(store: SqlStore, messages: BinaryIO, server: uvicorn.Server) -> None:
    """Take in what comes until it ends; what cannot be kept is told on stderr."""
    ledger = Ledger(store)
    try:
        while True:
            message = pickle.load(messages)
            try:
                if isinstance(message, WatchState):
                    ledger.write(message.findings, message.resolved)
                    store.write_targets(_targets(message))
                else:
                    look, taken, latency_s = message
                    store.take(look, taken, Extra(latency_s))
            except (StoreError, ProfileError) as error:
                print(error, file=sys.stderr)
    except EOFError:
        pass
    finally:
        server.should_exit = True


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


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.buffer)
