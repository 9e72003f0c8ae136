"""What people read: the index page and the texts that debug=1 gives, in the manner of Go's."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from stanch.profile import Location, Profile

PATHS = {
    "/debug/pprof/heap": "Live memory by stack; gc=1 collects first, seconds=N gives the change "
    "over N seconds, debug=1 gives text.",
    "/debug/pprof/allocs": "The same, showing at first what was ever allocated.",
    "/debug/pprof/threads": "Stacks of all threads and asyncio tasks; debug=1 counts them in text, "
    "debug=2 lists each.",
    "/debug/pprof/goroutine": "The same, under Go's name.",
    "/debug/pprof/profile": "CPU time by stack over seconds=N, 30 unless given.",
    "/debug/pprof/cmdline": "The command line, where the settings allow it.",
    "/metrics": "Metrics for Prometheus.",
    "/debug/stanch/retention": "What keeps memory alive, as JSON: function=NAME, "
    "place=FILE:LINE or type=NAME say whose; seconds=N looks twice and tells what grew.",
    "/debug/stanch/processes": "The processes of this run, as JSON.",
    "/debug/stanch/memory": "What the memory of these processes is made of, as JSON.",
}
"""Every path besides the index, and what it gives."""


def index_page(service: str, instance: str, pids: Iterable[int]) -> str:
    """Return the HTML of the index; it uses no script, style or image."""
    import html  # It brings a table of all entities, which only this page needs.

    title = html.escape(" ".join(filter(None, (service, instance))) or "stanch")
    rows = "\n".join(
        f'<li><a href="{html.escape(path)}{"?debug=1" if _has_text(path) else ""}">'
        f"{html.escape(path)}</a> {html.escape(help_text)}</li>"
        for path, help_text in PATHS.items()
    )
    processes = ", ".join(map(str, pids))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"</head>\n<body><h1>{title}</h1>\n<ul>\n{rows}\n</ul>\n"
        f"<p>Processes: {processes}. Profiles are their sum; pid=N gives one of them.</p>\n"
        "</body></html>\n"
    )


def _has_text(path: str) -> bool:
    return path.endswith(("/heap", "/allocs", "/threads", "/goroutine"))


def heap_text(profile: Profile) -> str:
    """Return a heap profile as text: in use and, in brackets, ever allocated; largest first."""
    totals: dict[tuple[Location, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for sample in profile.samples:
        cell = totals[sample.locations]
        for number, value in enumerate(sample.values):
            cell[number] += value
    whole = [sum(column) for column in zip(*totals.values(), strict=True)] or [0, 0, 0, 0]
    lines = [f"heap profile: {_heap_values(whole)} @ heap/{profile.period}"]
    for stack, values in sorted(totals.items(), key=lambda item: item[1][3], reverse=True):
        lines += [f"{_heap_values(values)} @", *_frames(stack), ""]
    lines += [f"# {comment}" for comment in profile.comments]
    return "\n".join(lines) + "\n"


def _heap_values(values: list[int]) -> str:
    alloc_objects, alloc_bytes, inuse_objects, inuse_bytes = values
    return f"{inuse_objects}: {inuse_bytes} [{alloc_objects}: {alloc_bytes}]"


def threads_text(profile: Profile) -> str:
    """Return a threads profile as text: how many there are of each stack, most first."""
    total = sum(sample.values[0] for sample in profile.samples)
    lines = [f"goroutine profile: total {total}"]
    for sample in sorted(profile.samples, key=lambda each: each.values[0], reverse=True):
        kinds = " ".join(text for _, text in sample.labels)
        lines += [f"{sample.values[0]} @ {kinds}", *_frames(sample.locations), ""]
    return "\n".join(lines) + "\n"


def _frames(stack: tuple[Location, ...]) -> Iterator[str]:
    for location in stack:
        for line in location.lines:
            yield f"#\t{line.function.name}\t{line.function.filename}:{line.line}"
