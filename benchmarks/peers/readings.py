"""From what a tool gives, in its own format, to the live bytes of each known site.

Every reader returns {site: bytes}; a site that the tool knows nothing of is absent. A block counts
for the innermost function of its stack that is a site; if the stack also has the C function of
structs.c, it counts for C_FUNCTION as well.

The measured process imports this too, so what reading needs is imported by the function that reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.sites import SITE_OF_LINE, SITES

if TYPE_CHECKING:
    from stanch.profile import Profile

Sizes = dict[str, float]
SITES_FILE = "sites.py"
C_FUNCTION = "keep_structs"


def site_of(functions: Iterable[str]) -> str | None:
    """Return the first name that is a site, of a stack given from the leaf."""
    return next((name for name in functions if name in SITES), None)


def profile_sizes(profile: Profile, sample_type: str) -> Sizes:
    """Read one sample type of a pprof profile."""
    index = [kind.type for kind in profile.sample_types].index(sample_type)
    sizes: Sizes = defaultdict(float)
    for sample in profile.samples:
        names = [line.function.name for place in sample.locations for line in place.lines]
        site = site_of(names)
        if site and sample.values[index]:
            sizes[site] += sample.values[index]
            if C_FUNCTION in names:
                sizes[C_FUNCTION] += sample.values[index]
    return dict(sizes)


def pprof_sizes(data: bytes) -> Sizes:
    """Read a heap profile with Go's sample types."""
    from stanch.profile import parse

    return profile_sizes(parse(data), "inuse_space")


def pyroscope_sizes(body: bytes) -> Sizes | None:
    """Read a request of Pyroscope's push API; None when it holds no profile of memory."""
    import gzip

    from stanch.profile import parse
    from stanch.profile.wire import read_fields

    for number, series in read_fields(gzip.decompress(body)):
        if number != 1 or not isinstance(series, bytes):
            continue
        for part, message in read_fields(series):
            if part != 2 or not isinstance(message, bytes):
                continue
            for field, profile in read_fields(message):
                if field == 1 and isinstance(profile, bytes):
                    parsed = parse(profile)
                    if any(kind.type == "inuse_space" for kind in parsed.sample_types):
                        return profile_sizes(parsed, "inuse_space")
    return None


def ddtrace_sizes(body: bytes) -> Sizes | None:
    """Read a request of Datadog's profile intake; None when it holds no profile."""
    import zstandard

    from stanch.profile import parse

    head = body.find(b'filename="profile.pprof"')
    if head < 0:
        return None
    packed = body[body.index(b"\r\n\r\n", head) + 4 :]
    data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)  # up to its own end
    return profile_sizes(parse(data), "heap-space")


def memray_sizes(path: Path) -> Sizes | None:
    """Read what is not yet freed from a file of memray, also while it is written; None without."""
    from memray import FileReader

    sizes: Sizes = defaultdict(float)
    try:
        with FileReader(path) as reader:
            for record in reader.get_leaked_allocation_records(merge_threads=True):
                site = site_of(function for function, _, _ in record.stack_trace())
                if site:
                    sizes[site] += record.size
    except OSError:
        return None
    return dict(sizes)


def scalene_sizes(path: Path) -> Sizes | None:
    """Read the megabytes allocated by each line, the nearest that Scalene has to live bytes."""
    import json

    if not path.exists():
        return None
    sizes: Sizes = defaultdict(float)
    for file, content in json.loads(path.read_text())["files"].items():
        for line in content["lines"] if Path(file).name == SITES_FILE else ():
            site = SITE_OF_LINE.get(line["lineno"])
            if site and line["n_malloc_mb"]:
                sizes[site] += line["n_malloc_mb"] * (1 << 20)
    return dict(sizes)


def tracemalloc_sizes() -> Sizes:
    """Read tracemalloc of this process."""
    import tracemalloc

    sizes: Sizes = defaultdict(float)
    for line in tracemalloc.take_snapshot().statistics("lineno"):
        frame = line.traceback[-1]
        site = SITE_OF_LINE.get(frame.lineno) if frame.filename.endswith(SITES_FILE) else None
        if site:
            sizes[site] += line.size
    return dict(sizes)
