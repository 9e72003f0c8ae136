"""Which samples and frames of a profile a report is about.

pprof's focus, ignore, hide and show, and for labels its tagfocus, tagignore and tagroot.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from re import Pattern

from stanch.profile.model import Line, Location, Profile, Sample
from stanch.profile.tags import TagFilter, tags_as_roots


@dataclass(frozen=True, slots=True)
class Filters:
    """Expressions searched for in function names, file names and the file of the mapping.

    focus: keep samples with a frame that matches. ignore: leave out samples with one that does.
    hide: leave out frames that match. show: leave out frames that do not.
    tagfocus: keep samples with a label that matches. tagignore: leave out those with one that does.
    tagroot: labels that become frames, before the others are applied.
    """

    focus: Pattern[str] | None = None
    ignore: Pattern[str] | None = None
    hide: Pattern[str] | None = None
    show: Pattern[str] | None = None
    tagfocus: TagFilter | None = None
    tagignore: TagFilter | None = None
    tagroot: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Filtered:
    """A profile after filtering, and the names of the filters that matched nothing in it."""

    profile: Profile
    idle: tuple[str, ...]


def apply_filters(profile: Profile, filters: Filters) -> Filtered:
    """Give the profile with the samples and frames that `filters` leaves.

    A sample of which every frame is hidden goes too. A frame that `ignore` matches does not count
    for `focus`.
    """
    profile, idle_tags = _select_by_tags(profile, filters)
    active = {name: rx for name in _NAMES if (rx := getattr(filters, name)) is not None}
    if not active:
        return Filtered(profile, idle_tags)
    views: dict[int, _View] = {}
    used: set[str] = set()
    samples: list[Sample] = []
    for sample in profile.samples:
        seen: list[_View] = []
        for location in sample.locations:
            view = views.get(id(location))
            if view is None:
                view = views[id(location)] = _view(location, filters)
                used.update(view.matched)
            seen.append(view)
        if any(view.ignored for view in seen):
            continue
        if filters.focus is not None and not any(view.focused for view in seen):
            continue
        stack = tuple(view.shown for view in seen if view.shown is not None)
        if stack or not seen:
            samples.append(replace(sample, locations=stack))
    idle = tuple(name for name in active if name not in used)
    return Filtered(replace(profile, samples=tuple(samples)), idle_tags + idle)


def _select_by_tags(profile: Profile, filters: Filters) -> tuple[Profile, tuple[str, ...]]:
    """Apply what is about labels; give the names of those that matched nothing too."""
    idle: list[str] = []
    for name, wanted in (("tagignore", False), ("tagfocus", True)):
        by: TagFilter | None = getattr(filters, name)
        if by is None:
            continue
        matching = {id(sample) for sample in profile.samples if by.matches(sample)}
        if not matching:
            idle.append(name)
        kept = (each for each in profile.samples if (id(each) in matching) == wanted)
        profile = replace(profile, samples=tuple(kept))
    if filters.tagroot:
        profile = tags_as_roots(profile, filters.tagroot)
    return profile, tuple(idle)


_NAMES = ("focus", "ignore", "hide", "show")


@dataclass(frozen=True, slots=True)
class _View:
    """What the filters make of a location; `shown` is None where every frame of it is hidden."""

    shown: Location | None
    focused: bool
    ignored: bool
    matched: tuple[str, ...]


def _view(location: Location, filters: Filters) -> _View:
    matched: list[str] = []
    if ignored := filters.ignore is not None and _location_matches(location, filters.ignore):
        matched.append("ignore")
    focused = not ignored and (filters.focus is None or _location_matches(location, filters.focus))
    if focused:
        matched.append("focus")
    shown: Location | None = location
    if filters.hide is not None and _location_matches(location, filters.hide):
        matched.append("hide")
        hide = filters.hide
        shown = _keep_lines(location, lambda line: not _line_matches(line, hide), hide, False)
    if filters.show is not None and shown is not None:
        show = filters.show
        shown = _keep_lines(shown, lambda line: _line_matches(line, show), show, True)
        if shown is not None:
            matched.append("show")
    return _View(shown, focused, ignored, tuple(matched))


def _keep_lines(
    location: Location, wanted: Callable[[Line], bool], rx: Pattern[str], if_binary_matches: bool
) -> Location | None:
    """Keep the wanted lines of a location, or all or none of them where its binary matches."""
    if _binary_matches(location, rx):
        return location if if_binary_matches else None
    lines = tuple(line for line in location.lines if wanted(line))
    return replace(location, lines=lines) if lines else None


def _location_matches(location: Location, rx: Pattern[str]) -> bool:
    return any(_line_matches(line, rx) for line in location.lines) or _binary_matches(location, rx)


def _line_matches(line: Line, rx: Pattern[str]) -> bool:
    return bool(rx.search(line.function.name) or rx.search(line.function.filename))


def _binary_matches(location: Location, rx: Pattern[str]) -> bool:
    return location.mapping is not None and bool(rx.search(location.mapping.file))
