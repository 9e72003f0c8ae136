"""Names native code: from places in libraries to the functions there, by the libraries' own tables.

Reads ELF files (64-bit, little-endian) with the standard library alone: `.symtab`, or `.dynsym`
where that was stripped. A file counts only if it is the one that was loaded, by its build id, so
an autopsy after an upgrade gives no wrong names. Files may be damaged or hostile: what cannot be
read has no names, and nothing here raises. Names are the linker's; C++ stays mangled.

A table of symbols may have a million entries, so it is read through once for all the places that
are new, a piece at a time, and only the names found are kept.
"""

import os
import struct
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from stanch.sampler.tablefile import NativeFrame, TableMapping

MAX_KEPT = 1 << 18
MAX_SYMBOL_BYTES = 48 << 20
MAX_SECTIONS = 8192
MAX_SMALL_BYTES = 1 << 20  # of headers and notes
MAX_NAME_BYTES = 1024
PIECE_BYTES = 24 << 15

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_SYMTAB, _DYNSYM, _NOTES = 2, 11, 7
_LOAD = 1
_FUNCTION_TYPES = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_GNU_BUILD_ID = 3

Names: TypeAlias = dict[NativeFrame, str | None]


class Symbols:
    """Finds function names, and remembers them: None for a place without a name.

    May be used by several threads: each step on what is kept is one of a dictionary's own.
    """

    def __init__(self) -> None:
        self._kept: Names = {}

    def names(self, frames: Iterable[NativeFrame]) -> Names:
        """Return the name of the function at each place, None where there is none."""
        kept = self._kept
        wanted = set(frames)
        new: dict[TableMapping, list[NativeFrame]] = defaultdict(list)
        for frame in wanted:
            if frame not in kept:
                new[frame.mapping].append(frame)
        found = {frame: kept[frame] for frame in wanted if frame in kept}
        for mapping, places in new.items():
            by_offset = _names_in(mapping, sorted({frame.offset for frame in places}))
            found.update((frame, by_offset.get(frame.offset)) for frame in places)
        self._kept = found if len(kept) + len(found) > MAX_KEPT else {**kept, **found}
        return found


def _names_in(mapping: TableMapping, offsets: list[int]) -> dict[int, str]:
    if not mapping.build_id or not mapping.path.startswith("/"):
        return {}  # nothing would tell another file of this name from the one loaded
    try:
        # Not a FIFO that waits for a writer; and no mmap, for the file may shrink meanwhile.
        file = os.open(mapping.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return {}
    try:
        return _names_in_file(file, mapping, offsets)
    except (OSError, struct.error, ValueError, OverflowError, MemoryError):
        return {}
    finally:
        os.close(file)


def _names_in_file(file: int, mapping: TableMapping, offsets: list[int]) -> dict[int, str]:
    head = _HEADER.unpack(_bytes_at(file, 0, _HEADER.size))
    identity, programs_at, sections_at, programs, sections = (head[i] for i in (0, 5, 6, 10, 12))
    if identity[:6] != b"\x7fELF\x02\x01" or sections > MAX_SECTIONS:
        return {}
    headers = list(_SECTION.iter_unpack(_bytes_at(file, sections_at, sections * _SECTION.size)))
    notes = [_build_id(_bytes_at(file, s[4], s[5])) for s in headers if s[1] == _NOTES]
    if mapping.build_id not in notes:
        return {}
    parts = list(_PROGRAM.iter_unpack(_bytes_at(file, programs_at, programs * _PROGRAM.size)))
    addresses = {}  # by address in the file's own terms, the offset asked for
    for offset in offsets:
        for part in parts:
            into = mapping.file_start + offset - part[2]
            if part[0] == _LOAD and 0 <= into < part[5]:
                addresses[part[3] + into] = offset
    for kind in (_SYMTAB, _DYNSYM):
        for section in headers:
            if section[1] == kind and section[6] < len(headers) and section[5]:
                strings = headers[section[6]]
                found = _find(file, section[4], section[5], sorted(addresses))
                return {
                    addresses[address]: name
                    for address, name_at in found.items()
                    if (name := _text_at(file, strings[4] + name_at))
                }
    return {}


def _bytes_at(file: int, offset: int, count: int, most: int = MAX_SMALL_BYTES) -> bytes:
    """Read exactly that; ValueError when there is less, or it is too much to be sound."""
    content = os.pread(file, count, offset) if count <= most else b""
    if len(content) != count or count > most:
        raise ValueError(count)
    return content


def _text_at(file: int, offset: int) -> str:
    return os.pread(file, MAX_NAME_BYTES, offset).split(b"\0")[0].decode("utf-8", "replace")


def _build_id(notes: bytes) -> str | None:
    at = 0
    while at + _NOTE.size <= len(notes):
        name_bytes, content_bytes, kind = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        content_at = name_at + (name_bytes + 3 & ~3)
        if kind == _GNU_BUILD_ID and notes[name_at : name_at + name_bytes] == b"GNU\0":
            return notes[content_at : content_at + content_bytes].hex()
        at = content_at + (content_bytes + 3 & ~3)
    return None


def _find(file: int, offset: int, count: int, addresses: list[int]) -> dict[int, int]:
    """Return for each address the offset of the name of the function around it.

    addresses: sorted. A symbol without a size, as hand-written assembly may have, names nothing.
    """
    found: dict[int, int] = {}
    if count > MAX_SYMBOL_BYTES or not addresses:
        return found
    lowest, highest = addresses[0], addresses[-1]
    count -= count % _SYMBOL.size
    while count > 0:
        piece = _bytes_at(file, offset, min(count, PIECE_BYTES))
        offset, count = offset + len(piece), count - len(piece)
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(piece):
            if value > highest or value + size <= lowest or info & 15 not in _FUNCTION_TYPES:
                continue
            if not section:
                continue
            at = bisect_left(addresses, value)
            while at < len(addresses) and addresses[at] < value + size:
                found.setdefault(addresses[at], name)
                at += 1
    return found
