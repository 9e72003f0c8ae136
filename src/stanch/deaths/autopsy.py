"""What a dead process held: from the live table that it left, or from the last look at it."""

from dataclasses import dataclass, replace
from pathlib import Path

from stanch.collect.reading import Reader
from stanch.deaths.death import Death
from stanch.detect.blame import blamed, taken_by
from stanch.detect.wording import native_text
from stanch.profile import encode
from stanch.sampler import TABLE_SUFFIX, TableError, TableImage, read_table, table_profile
from stanch.store import Frame

_CLOCKS_S = 5.0  # a start is told by different clocks


@dataclass(frozen=True, slots=True)
class Autopsy:
    """A heap profile, pprof, and what it says: the line that holds the most, as in a finding."""

    profile: bytes
    file: str
    line: int
    function: str
    taken_by: str
    place_bytes: float
    live_bytes: float


def autopsy_of(profile: bytes) -> Autopsy | None:
    """Return what a heap profile says, gzip or plain; None when it holds nothing or is none.

    Raises ProfileError when it is no profile at all.
    """
    held: dict[tuple[Frame, Frame | None], float] = {}
    total = 0.0
    for heap in Reader().read(profile).heap:
        if heap.live_bytes <= 0 or not heap.stack:
            continue
        place = (blamed(heap.stack), taken_by(heap.stack))
        held[place] = held.get(place, 0.0) + heap.live_bytes
        total += heap.live_bytes
    if not held:
        return None
    frame, native = max(held, key=lambda place: held[place])
    taken = native_text(native) if native is not None and native != frame else ""
    held_there = held[(frame, native)]
    return Autopsy(profile, frame.file, frame.line, frame.function, taken, held_there, total)


def with_autopsy(death: Death, autopsy: Autopsy, source: str, age_s: float) -> Death:
    """Return a death with what its autopsy says.

    source: "table" or "scrape". age_s: how long before the end the profile was taken.
    """
    return replace(
        death,
        file=autopsy.file,
        line=autopsy.line,
        function=autopsy.function,
        taken_by=autopsy.taken_by,
        place_bytes=autopsy.place_bytes,
        live_bytes=autopsy.live_bytes,
        profile_from=source,
        profile_age_s=max(0.0, age_s),
    )


def table_of(directories: tuple[Path, ...], pid: int, since_unix: float) -> TableImage | None:
    """Return the live table that a process has, or left, in the directories or just below them.

    since_unix: one of a process that began before that is of another process of this number.
    """
    for path in table_paths(directories, pid):
        try:
            image = read_table(path)
        except (OSError, TableError):
            continue
        if image.pid == pid and image.start_unix_ns / 1e9 >= since_unix - _CLOCKS_S:
            return image
    return None


def table_paths(directories: tuple[Path, ...], pid: int) -> list[Path]:
    """Return the files that may be the table of a process of this machine."""
    name = f"{pid}{TABLE_SUFFIX}"
    return [
        path
        for directory in directories
        for path in (directory / name, *directory.glob(f"*/{name}"))
        if path.exists()
    ]


def table_autopsy(image: TableImage) -> Autopsy | None:
    """Return what a live table says; None when it holds nothing."""
    return autopsy_of(encode(table_profile(image)))
