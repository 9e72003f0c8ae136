"""A store that is killed: takes profiles until SIGKILL, and says which it took.

    python -m tests.store.killed DIRECTORY FIRST

Prints one line for each profile when it is acknowledged, its number; from FIRST on, without end.
"""

import os
import sys
import threading
import time
from pathlib import Path

from stanch.store import Look, ProcessLook
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import SqlStore, Taken, open_store
from tests.store.pprofs import heap_bytes

SENDERS = 4


def value_of(number: int) -> int:
    """The live bytes of a numbered profile: what tells it was stored, once."""
    return (number + 1) * 1000


def send(store: SqlStore, numbers: range) -> None:
    """Take profiles one after the other and print the number of each that is acknowledged."""
    for number in numbers:
        data = heap_bytes({f"f{number % 50}": value_of(number)}, time_s=number)
        process = ProcessLook(1, None, 60.0 + number)
        instance = f"shop-{number % SENDERS}"
        look = Look("shop", instance, number, time.time(), "python", (process,))
        store.take(look, [Taken("heap", data)])
        os.write(1, f"{number}\n".encode())


def main() -> None:
    """Take profiles without end, with segments so short that many are inserted meanwhile."""
    directory, first = Path(sys.argv[1]), int(sys.argv[2])
    bounds = IntakeBounds(rows=60, seconds=0.05)
    store = open_store("chdb", directory, bounds=bounds)
    os.write(1, b"open\n")
    threads = [
        threading.Thread(target=send, args=(store, range(first + sender, 10**9, SENDERS)))
        for sender in range(SENDERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
