"""The process that shows the incident in the server's pages, from what the watch spooled.

`python -m stanch.demo.pages SPOOL` writes its URL at once, and ends with its stdin. It costs
nothing while nobody looks: the server, its store and what the watch saw are loaded at the first
request, which waits for it. With `--idle` it runs only on time of the CPU that nobody else wants.
"""

import os
import select
import socket
import sys
from pathlib import Path


def main(spool: Path, *, is_idle: bool) -> None:
    """Serve until stdin ends."""
    if is_idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        from stanch.demo.shown import serve_spool  # the whole server

        serve_spool(spool, listener, sys.stdin.buffer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), is_idle="--idle" in sys.argv[2:])
