"""Free ports on loopback."""

import contextlib
import socket

LOOPBACK = "127.0.0.1"


def free_addresses(count: int) -> list[str]:
    """Return `count` different "127.0.0.1:PORT" that nobody listens on at this moment.

    All are held until the last is found, so that no port is given twice. Nothing keeps another
    program from taking one afterwards; the node that finds its port taken says so in its log.
    """
    with contextlib.ExitStack() as held:
        addresses = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind((LOOPBACK, 0))
            addresses.append(f"{LOOPBACK}:{listener.getsockname()[1]}")
        return addresses
