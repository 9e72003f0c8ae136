"""The verdict: what was seen against the truth. Pure.

The incident is solved when each seeded leak was named beyond doubt within the first half of a
node's life, the path to its root named what keeps it alive, nothing else was accused, a node
really died at its limit, and the autopsies of the dead name the line too. Stanch itself must have
written down every death with that line, and people must have been told of each leak and stage once
at most. Of the repaired code nothing may be accused, nothing may die and nobody be told.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .record import Death, Life, Place, Record, Sighting, Written
from .truth import SeededLeak

IN_TIME_SHARE = 0.5
SAME_DEATH_SECONDS = 30.0
"""A death is written down as of its last look; a node at its limit may answer none for a while."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the verdict: a service, what is true of it and what Stanch said.

    `at_s` and `share` (of a node's life) tell when it was named, None when it was not. `why` says
    what is wrong when not `ok`.
    """

    service: str
    truth: str
    named: str
    at_s: float | None
    life: Life | None
    share: float | None
    ok: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rows, and every reason why the run does not count as solved, in sentences."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the incident was solved."""
        return not self.problems


def judge_incident(record: Record, leaks: Sequence[SeededLeak], healthy: Sequence[str]) -> Verdict:
    """Judge a run of the code as the incident found it."""
    present = [leak for leak in leaks if leak.service in record.services]
    rows = [_leak_row(leak, record) for leak in present]
    rows += [_healthy_row(service, record) for service in healthy if service in record.services]
    problems = [f"{row.service}: {row.why}" for row in rows if not row.ok]
    problems += _false_accusations(record, present, healthy)
    problems += _wrong_deaths(record)
    if not any(death.at_limit for death in record.deaths):
        problems.append("no node died at its memory limit, so the incident did not happen")
    problems += _wrong_autopsies(record, present)
    problems += _wrong_holders(record, present)
    problems += _wrong_book(record, present)
    problems += _storms(record, present)
    return Verdict(tuple(rows), tuple(problems))


def judge_repaired(record: Record) -> Verdict:
    """Judge a run of the repaired code, in which nothing leaks."""
    rows = [_healthy_row(service, record) for service in record.services]
    problems = [f"{row.service}: {row.why}" for row in rows if not row.ok]
    problems += _wrong_deaths(record)
    problems += [
        f"{death.node} died after {death.at_s:.0f} s of load: {death.how}"
        for death in record.deaths
        if death.at_limit
    ]
    problems += _storms(record, [])
    return Verdict(tuple(rows), tuple(problems))


def judge_recycled(
    record: Record, leaks: Sequence[SeededLeak], healthy: Sequence[str], failed_requests: int
) -> Verdict:
    """Judge a run in which what leaks is recycled: nothing dies of it, and no request fails."""
    present = [leak for leak in leaks if leak.service in record.services]
    rows = [_recycled_row(leak, record) for leak in present]
    rows += [_healthy_row(service, record) for service in healthy if service in record.services]
    problems = [f"{row.service}: {row.why}" for row in rows if not row.ok]
    problems += _false_accusations(record, present, healthy)
    problems += _wrong_deaths(record)
    problems += [
        f"{death.node} died after {death.at_s:.0f} s of load: {death.how}"
        for death in record.deaths
        if death.at_limit
    ]
    if failed_requests:
        problems.append(f"{failed_requests} requests failed")
    problems += [
        f"recycling {event.node} {event.what} after {event.at_s:.0f} s: {event.text}"
        for event in record.recycled
        if event.what not in ("begun", "done", "abandoned")  # abandoned: when the run ended
    ]
    problems += [
        f"people were told of {told.service} ({told.cause}), which recycling kept harmless"
        for told in record.told
    ]
    return Verdict(tuple(rows), tuple(problems))


def _recycled_row(leak: SeededLeak, record: Record) -> Row:
    named = [one for one in record.sightings if names(leak, one)]
    done = [
        event for event in record.recycled if event.what == "done" and event.service == leak.service
    ]
    what = f"{named[0].kind}, {named[0].place}" if named else "-"
    what += f"; {len(done)} recycled"
    at_s = named[0].at_s if named else None
    why = "" if done else "no node of it was recycled"
    why = why if named else "the leak was not named"
    return Row(leak.service, leak.what, what, at_s, None, None, bool(named and done), why)


def names(leak: SeededLeak, sighting: Sighting) -> bool:
    """Whether a sighting says, beyond doubt, what was really seeded."""
    if sighting.service != leak.service or not sighting.accuses:
        return False
    if leak.c_function and sighting.taken_by.partition(" in ")[0] != leak.c_function:
        return False
    return _is_at(leak, sighting.place)


def explains(leak: SeededLeak, sighting: Sighting) -> bool:
    """Whether an accusation is true of a seeded leak, even where it does not name it."""
    place = sighting.place
    kept_with_it = any(
        place.file.endswith(file) and place.function == function for file, function in leak.also
    )
    if sighting.service != leak.service:
        return False
    only_native = sighting.kind == "native leak" and not place.file
    return names(leak, sighting) or kept_with_it or (bool(leak.c_function) and only_native)


def _is_at(leak: SeededLeak, place: Place) -> bool:
    return place.file.endswith(leak.file) and place.function in leak.functions


def _leak_row(leak: SeededLeak, record: Record) -> Row:
    life = record.lives.get(leak.service)
    named = [one for one in record.sightings if names(leak, one)]
    if not named:
        return Row(leak.service, leak.what, "-", None, life, None, False, "the leak was not named")
    first = min(named, key=lambda one: one.at_s)
    what = f"{first.kind}, {first.place}" + (f", {first.taken_by}" if first.taken_by else "")
    if life is None:
        why = "no node died or grew, so nobody knows how long one lives"
        return Row(leak.service, leak.what, what, first.at_s, None, None, False, why)
    share = first.at_s / life.seconds
    in_time = share <= IN_TIME_SHARE
    why = "" if in_time else f"named late, after {share:.0%} of a node's life"
    return Row(leak.service, leak.what, what, first.at_s, life, share, in_time, why)


def _healthy_row(service: str, record: Record) -> Row:
    accusations = [one for one in record.sightings if one.service == service and one.accuses]
    if not accusations:
        return Row(service, "nothing leaks", "-", None, None, None, True)
    first = accusations[0]
    named = f"{first.kind}, {first.place}"
    return Row(
        service,
        "nothing leaks",
        named,
        first.at_s,
        None,
        None,
        False,
        f"falsely accused after {first.at_s:.0f} s ({named})",
    )


def _false_accusations(
    record: Record, leaks: Sequence[SeededLeak], healthy: Sequence[str]
) -> list[str]:
    """Accusations of leaking services that miss the leak; the healthy have rows of their own."""
    return [
        f"{one.service}: falsely accused after {one.at_s:.0f} s ({one.kind}, {one.place})"
        for one in record.sightings
        if one.accuses
        and one.service not in healthy
        and not any(explains(leak, one) for leak in leaks)
    ]


def _wrong_deaths(record: Record) -> list[str]:
    return [
        f"{death.node} ended after {death.at_s:.0f} s of load, but not at its limit: {death.how}"
        for death in record.deaths
        if not death.at_limit
    ]


def _wrong_holders(record: Record, leaks: Sequence[SeededLeak]) -> list[str]:
    """The path to the root of each leak that Python objects keep must name what really keeps it."""
    problems = []
    for leak in leaks:
        paths = [one.path for one in record.holdings if one.service == leak.service]
        if not leak.holders or any(name in path for path in paths for name in leak.holders):
            continue
        seen = f"said: {' -> '.join(paths[-1])}" if paths else "no path was to be had"
        problems.append(f"{leak.service}: what keeps the leak alive was not named ({seen})")
    return problems


def _wrong_autopsies(record: Record, leaks: Sequence[SeededLeak]) -> list[str]:
    """The dead of a Python service must show the line, or the C function, in their table."""
    in_table = {leak.service: leak for leak in leaks}
    relevant = [one for one in record.autopsies if one.service in in_table]
    if not relevant:
        return ["no autopsy of a killed Python process was to be had"]
    return [
        f"the autopsy of {one.node} shows {one.place} on top, not the leak"
        for one in relevant
        if not _is_on_top(in_table[one.service], one.place)
    ]


def _wrong_book(record: Record, leaks: Sequence[SeededLeak]) -> list[str]:
    """Every death at the limit must be written down as one, with the line that held the most."""
    problems = []
    for death in record.deaths:
        if not death.at_limit:
            continue
        found = next((one for one in record.written if _is_same(one, death)), None)
        if found is None:
            problems.append(f"the death of {death.node} after {death.at_s:.0f} s is not on record")
            continue
        if found.cause != "oom":
            problems.append(f"the death of {death.node} is on record as {found.cause}, not oom")
        leak = next((leak for leak in leaks if leak.service == death.service), None)
        if leak is not None and not _is_named(leak, found):
            problems.append(f"the record of {death.node}'s death shows {found.place}, not the leak")
    return problems


def _is_same(written: Written, death: Death) -> bool:
    near = abs(written.at_s - death.at_s) <= SAME_DEATH_SECONDS
    return near and (written.service, written.node) == (death.service, death.node)


def _is_named(leak: SeededLeak, written: Written) -> bool:
    if leak.c_function and written.taken_by.partition(" in ")[0] != leak.c_function:
        return False
    return _is_at(leak, written.place)


def _storms(record: Record, leaks: Sequence[SeededLeak]) -> list[str]:
    """People must be told of each leak and stage once at most, and of nothing else."""
    counts = Counter((told.service, told.stage) for told in record.told)
    seeded = Counter(leak.service for leak in leaks)
    return [
        f"{service}: {count} alarms of stage {stage} for {seeded[service]} leak(s)"
        for (service, stage), count in sorted(counts.items())
        if count > seeded[service]
    ]


def _is_on_top(leak: SeededLeak, place: Place) -> bool:
    return place.function == leak.c_function if leak.c_function else _is_at(leak, place)
