"""Bytes as given to bytes of protocol buffer: bounded gunzip, and a word on what is no profile."""

import zlib
from collections.abc import Callable
from typing import Protocol

from stanch.profile.errors import ProfileError
from stanch.profile.limits import Limits

_GZIP_MAGIC = b"\x1f\x8b"
# A gzip file may be several members in a row; nobody writes profiles in more than a few.
_MAX_MEMBERS = 16
GZIP_WINDOW = 31  # zlib's "wbits" for a gzip header and checksum

_LEGACY_STARTS = (
    b"heap profile:",
    b"goroutine profile:",
    b"threadcreate profile:",
    b"--- mutex:",
    b"--- contention:",
    b"--- contentionz",
    b"--- heapz",
    b"--- growthz",
    b"goroutineleak profile:",
    b"# ",
)


class Member(Protocol):
    """Unpacks one gzip member, as the standard library's `zlib.decompressobj` does."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""

    @property
    def unused_data(self) -> bytes:
        """What came after it."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most so many bytes of it, and at least one where there is one."""


def inflate(
    data: bytes,
    limits: Limits,
    member: Callable[[], Member] = lambda: zlib.decompressobj(GZIP_WINDOW),
    errors: type[Exception] = zlib.error,
) -> bytes:
    """Give the protocol buffer in `data`, which is gzip or plain.

    member, errors: what unpacks a gzip member, and what it raises for one that is damaged.
    Raises ProfileError when `data` or the result passes its limit and when the gzip stream is
    damaged.
    """
    if not data:
        raise ProfileError("got 0 bytes; expected a pprof profile, so take it again")
    if len(data) > limits.compressed_bytes:
        raise ProfileError(
            f"the profile is {len(data):,} bytes, above the limit of {limits.compressed_bytes:,};"
            " take a shorter one or raise Limits.compressed_bytes"
        )
    plain = _gunzip(data, limits, member, errors) if data.startswith(_GZIP_MAGIC) else data
    if len(plain) > limits.decompressed_bytes:
        raise _too_large(limits)
    return plain


def _gunzip(
    data: bytes, limits: Limits, begin: Callable[[], Member], errors: type[Exception]
) -> bytes:
    parts: list[bytes] = []
    room = limits.decompressed_bytes
    for _ in range(_MAX_MEMBERS):
        member = begin()
        try:
            part = member.decompress(data, room + 1)
        except errors as error:
            raise ProfileError(
                f"the profile's gzip stream is damaged ({error});"
                " expected whole gzip, take it again"
            ) from error
        if len(part) > room:
            raise _too_large(limits)
        if not member.eof:
            raise ProfileError(
                f"the profile's gzip stream of {len(data):,} bytes ends too early;"
                " expected whole gzip, take it again"
            )
        parts.append(part)
        room -= len(part)
        data = member.unused_data
        if not data:
            return b"".join(parts)
    raise ProfileError(
        f"the profile's gzip stream has more than {_MAX_MEMBERS} members;"
        " expected one, so write it again as one"
    )


def _too_large(limits: Limits) -> ProfileError:
    return ProfileError(
        f"the profile unpacks to more than {limits.decompressed_bytes:,} bytes;"
        " expected less, so take a shorter one or raise Limits.decompressed_bytes"
    )


def recognise(plain: bytes) -> str:
    """Say in a sentence what `plain`, which could not be read as a profile, is; "" when unknown."""
    start = plain[:256].lstrip()
    if start.startswith(b"<"):
        what = "looks like an HTML page; expected pprof, so check the path and the login"
    elif start.startswith((b"{", b"[")):
        what = "looks like JSON; expected pprof, so check the path"
    elif start.startswith(_LEGACY_STARTS):
        what = (
            "is Go's legacy text format, which is not read;"
            " ask for the profile without ?debug=1 or ?debug=2"
        )
    else:
        return ""
    shown = start[:40].decode("utf-8", "replace").splitlines()[0]
    return f"the data starts with {shown!r} and {what}"
