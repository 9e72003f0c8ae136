"""The endpoint's listening socket and the pipe that wakes its acceptor, in somebody else's process.

A host that becomes a daemon closes every descriptor it finds, ours among them, and the kernel gives
their numbers to the host's next files. Writing to such a number, or closing it, would damage a file
of the host. So each descriptor is kept with the identity of what it was opened for, and touched
only while it still is that. What is left is the instant between the look and the touch.
"""

import contextlib
import enum
import os
import select
import socket

from stanch.agent.listen import Address, bind, bound_address

_Identity = tuple[int, int]


class Event(enum.Enum):
    """What ended a wait."""

    NOTHING = enum.auto()
    CONNECTION = enum.auto()
    WOKEN = enum.auto()
    LOST = enum.auto()
    """The host has closed a descriptor of ours."""


class Listening:
    """A bound socket and its pipe; `address` has the port that the kernel chose."""

    def __init__(self, asked: Address) -> None:
        """Bind. Raises EndpointError."""
        self._socket = bind(asked)
        self.address = bound_address(self._socket, asked)
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._number = self._socket.fileno()
        self._identities = {
            descriptor: _identity(descriptor) for descriptor in (self._number, *self._wake)
        }

    def is_ours(self) -> bool:
        """Return whether every descriptor still is what it was opened for."""
        identities = self._identities  # another thread may close meanwhile
        return bool(identities) and all(map(_is, identities.items()))

    def wake(self) -> bool:
        """End a wait in another thread; return whether that is possible."""
        if not self.is_ours():
            return False
        with contextlib.suppress(BlockingIOError):  # full: it is woken many times over
            os.write(self._wake[1], b"x")
        return True

    def settle(self) -> None:
        """Forget that it was woken."""
        if self.is_ours():
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake[0], 64)

    def wait(self, seconds: float) -> Event:
        """Wait for a connection or for `wake`."""
        if not self.is_ours():
            return Event.LOST
        poller = select.poll()
        poller.register(self._number, select.POLLIN)
        poller.register(self._wake[0], select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(seconds * 1000)}
        if not self.is_ours():
            return Event.LOST
        if self._wake[0] in ready:
            return Event.WOKEN
        return Event.CONNECTION if ready else Event.NOTHING

    def accept(self) -> socket.socket:
        """Return the next connection. Raises OSError, such as BlockingIOError without one."""
        return self._socket.accept()[0]

    def close(self) -> None:
        """Close what is ours, and forget the rest."""
        identities, self._identities = self._identities, {}
        self._socket.detach()  # the object would close the number when it is collected
        for descriptor, _ in filter(_is, identities.items()):
            os.close(descriptor)


def _is(expected: tuple[int, _Identity | None]) -> bool:
    descriptor, identity = expected
    return identity is not None and _identity(descriptor) == identity


def _identity(descriptor: int) -> _Identity | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
