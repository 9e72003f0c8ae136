"""What lowers or forbids an accusation: holders, earlier lives, deaths; and what a fix has done."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stanch.detect import Holder, Place, ServiceVerdict, holder_of, judge_service
from stanch.store import Counts, Frame, LifeSeries, ServiceSeries
from stanch.store.series import Floats
from tests.detect.lives import LEAK, MIB, TIME, frame, leaking, life

PLACE = Place("/srv/app/remember.py", "remember")
LONG = np.arange(2.5, 101.0, 2.5)


def growing(room_taken: float, **changes: Any) -> LifeSeries:
    """A life that grows evenly and has taken this share of the room."""
    grown = 48.5 * MIB
    changes.setdefault("limit", 50 * MIB + grown / room_taken)
    return leaking(**changes)


def earlier(level: Floats, **changes: Any) -> LifeSeries:
    """An ended life of 100 s in which LEAK held this much."""
    return replace(life(LONG, 50 * MIB + level, {LEAK: level}), **changes)


def judged(now: LifeSeries, *past: LifeSeries, holder: Holder | None = None) -> ServiceVerdict:
    """The verdict on a life, with what else is known."""
    holders = {PLACE: holder} if holder is not None else {}
    return judge_service(ServiceSeries("shop", (now,), past), None, holders)


def stage(verdict: ServiceVerdict) -> str:
    """The stage of the one finding."""
    (finding,) = verdict.findings
    return finding.stage


@pytest.mark.parametrize(
    ("behaviour", "taken", "expected"),
    [
        ("unknown", 0.30, "probable"),
        ("unknown", 0.40, "confirmed"),
        ("unbounded", 0.15, "suspect"),
        ("unbounded", 0.24, "confirmed"),
        ("never emptied", 0.15, "suspect"),
        ("never emptied", 0.19, "confirmed"),
        ("uncollected", 0.15, "suspect"),
        ("uncollected", 0.19, "confirmed"),
        ("not emptied", 0.15, "suspect"),
        ("not emptied", 0.19, "confirmed"),
        ("emptied", 0.28, "probable"),
        ("emptied", 0.32, "confirmed"),
        ("maybe bounded", 0.30, "probable"),
        ("passing", 0.30, "probable"),
        ("endless", 0.06, "suspect"),
        ("endless", 0.10, "confirmed"),
        ("lost", 0.10, "confirmed"),
    ],
)
def test_what_holds_the_memory_lowers_what_is_asked(
    behaviour: Any, taken: float, expected: str
) -> None:
    """The less a container can let go, the earlier a leak is confirmed."""
    verdict = judged(growing(taken), holder=Holder(behaviour, "app.py module global SESSIONS"))
    assert stage(verdict) == expected


MIDDLEWARE = frame("StanchWSGI.__call__", "/venv/site-packages/stanch/agent/middleware.py")
LOOP = frame("Handle._run", "/usr/lib/python3.11/asyncio/events.py")


def asked_for(taken: float, *above: Frame, slowing: float = 1.0) -> LifeSeries:
    """A life whose growth is allocated beneath these frames; its last third has so much less."""
    stack, grown = (*LEAK, *above), 48.5 * MIB
    pace = np.where(TIME > 33, slowing, 1.0)
    level = np.cumsum(pace) * 2.5 * MIB
    births = {stack: np.array([5.0] * 6 + [5 * slowing] * 4) * MIB}
    limit = 50 * MIB + grown / taken
    return life(TIME, 50 * MIB + level, {stack: level}, births=births, limit=limit)


@pytest.mark.parametrize(
    ("behaviour", "above", "slowing", "expected"),
    [
        ("never emptied", (MIDDLEWARE,), 1.0, "confirmed"),
        ("never emptied", (MIDDLEWARE,), 0.87, "suspect"),
        ("never emptied", (), 1.0, "suspect"),
        ("never emptied", (LOOP, MIDDLEWARE), 1.0, "suspect"),
        ("not emptied", (MIDDLEWARE,), 1.0, "suspect"),
        ("unbounded", (MIDDLEWARE,), 1.0, "suspect"),
    ],
)
def test_what_requests_put_where_nothing_takes_out_is_confirmed_early(
    behaviour: Any, above: tuple[Frame, ...], slowing: float, expected: str
) -> None:
    """At a tenth of the room, when it does not slow at all and no other work allocates it."""
    holder = Holder(behaviour, "app.py module global SESSIONS")
    assert stage(judged(asked_for(0.11, *above, slowing=slowing), holder=holder)) == expected


def test_a_container_on_its_way_to_a_bound_is_not_accused() -> None:
    """However much of the room it has taken, as long as its bound is below the limit."""
    filling = Holder("bounded", "CACHE", "dict", length=500, bound=600, at_bytes=40 * MIB)
    assert stage(judged(growing(0.6), holder=filling)) == "suspect"
    too_large = replace(filling, bound=5000)
    assert stage(judged(growing(0.6), holder=too_large)) == "confirmed"


def test_a_bound_that_was_passed_long_ago_is_none() -> None:
    """Memory that has doubled since its container was full is not what that container bounds."""
    full = Holder("bounded", "CACHE", "dict", length=600, bound=600, at_bytes=20 * MIB)
    assert stage(judged(growing(0.6), holder=full)) == "confirmed"


def test_a_plateau_that_earlier_lives_came_to_is_no_leak() -> None:
    """Growth up to what an earlier life held steadily is a cache filling once more."""
    plateau = np.minimum(LONG * MIB, 45 * MIB)
    assert stage(judged(growing(0.5), earlier(plateau))) == "suspect"
    assert stage(judged(growing(0.5))) == "confirmed"
    evidence = " ".join(judged(growing(0.5), earlier(plateau)).findings[0].evidence)
    assert "In one earlier life it levelled off at 45.0 MiB." in evidence


def test_growth_that_an_earlier_life_did_not_have_is_confirmed_earlier() -> None:
    """New since a release: 24 % of the room is enough, and the release is named."""
    clean = earlier(np.zeros(LONG.size), release="41")
    now = replace(growing(0.24), release="42")
    verdict = judged(now, clean)
    assert stage(verdict) == "confirmed"
    assert "it is new since release 41." in " ".join(verdict.findings[0].evidence)
    assert stage(judged(now)) == "suspect"


def test_an_earlier_life_that_was_too_short_says_nothing() -> None:
    """A life of ten seconds does not show that what comes after thirty is new."""
    short = life(TIME[:4], np.full(4, 50 * MIB), {LEAK: np.zeros(4)})
    assert stage(judged(growing(0.24), short)) == "suspect"


def test_a_suspect_is_worth_one_search_until_it_has_doubled() -> None:
    """A verdict asks for a search, not again with its answer, and again when much more grew."""
    now = growing(0.2)
    (asked,) = judged(now).inspections
    assert (asked.instance, asked.place) == ("shop-1", PLACE)
    known = Holder("unknown", at_bytes=asked.grown_bytes)
    assert judged(now, holder=known).inspections == ()
    assert judged(now, holder=replace(known, at_bytes=0.3 * asked.grown_bytes)).inspections
    assert judged(growing(0.02)).inspections == ()


DICT = {"name": "a.py module global SESSIONS", "type": "dict", "length": 9, "bytes": 90}

CYCLE = {"reference": "reference cycle waiting for the collector", "bytes": 95}
TAKEN: dict[str, Any] = {"growth_per_second": 2.0, "removed_from": True}


@pytest.mark.parametrize(
    ("holders", "paths", "behaviour"),
    [
        ([DICT | {"bound": None, "growth_per_second": 2.0}], [], "unbounded"),
        ([DICT | {"bound": None, "growth_per_second": 0.0}], [], "unknown"),
        ([DICT | {"bound": None, "growth_per_second": None}], [], "unknown"),
        ([DICT | {"bound": 10, "growth_per_second": 2.0}], [], "bounded"),
        ([DICT | {"bytes": 10, "growth_per_second": 2.0}], [], "unknown"),
        ([DICT | {"type": "OrderedDict", "growth_per_second": 2.0}], [],
         "maybe bounded"),
        ([DICT | {"growth_per_second": 2.0, "removed_from": True}], [], "emptied"),
        ([DICT | {"growth_per_second": 2.0, "removed_from": False}], [], "never emptied"),
        ([DICT | TAKEN | {"removal_ran": True}], [], "emptied"),
        ([DICT | TAKEN | {"removal_ran": None}], [], "emptied"),
        ([DICT | TAKEN | {"removal_ran": False}], [], "not emptied"),
        ([DICT | TAKEN | {"removal_ran": False, "length_compared": True}], [], "maybe bounded"),
        ([DICT | TAKEN | {"removed_from": False, "length_compared": True}], [], "maybe bounded"),
        ([DICT | {"type": "functools.lru_cache", "growth_per_second": 2.0}], [], "endless"),
        ([DICT | {"name": "local rows of running job (a.py:3)", "growth_per_second": 9.0}], [],
         "passing"),
        ([], [{"reference": "not reachable from any Python object: native", "bytes": 95}], "lost"),
        ([], [{"reference": "uncollectable cycle, in gc.garbage", "bytes": 95}], "lost"),
        ([], [CYCLE], "unknown"),
        ("nonsense", {"no": "list"}, "unknown"),
        ([None, 5, {"bytes": "many"}], [None, 7], "unknown"),
    ],
)  # fmt: skip
def test_answers_of_the_search_are_read(holders: Any, paths: Any, behaviour: str) -> None:
    """The container through which most of the memory goes decides; nonsense says nothing."""
    answer = {"bytes": 100, "holders": holders, "paths": paths}
    assert holder_of(answer, 5.0).behaviour == behaviour


def test_a_cycle_is_held_for_as_long_as_the_collector_is_off() -> None:
    """The same answer says next to nothing while the collector runs."""
    answer = {"bytes": 100, "paths": [CYCLE]}
    assert holder_of(answer | {"collector": "off"}, 1.0).behaviour == "uncollected"
    assert holder_of(answer | {"collector": "on"}, 1.0).behaviour == "unknown"


def test_a_holder_is_named_by_the_global_that_leads_to_it() -> None:
    """A queue's own deque says less than the name of the queue; without a container a path does."""
    growing = {"type": "deque", "growth_per_second": 3.0, "bytes": 90}
    growing["root"] = "a.py module global Q"
    answer = {"bytes": 100, "holders": [growing | {"name": "Queue.queue"}]}
    assert holder_of(answer, 1.0).name == "Queue.queue of a.py module global Q"
    chain = {"reference": "context variable NOW", "bytes": 90, "holds": [{"bytes": 80}]}
    top = {"reference": "events.py module global loop", "bytes": 95, "holds": [chain]}
    found = holder_of({"bytes": 100, "paths": [top]}, 1.0)
    assert (found.behaviour, found.name) == ("unknown", "context variable NOW")


def died(release: str) -> LifeSeries:
    """An ended life of this release that died of the leak."""
    return replace(leaking(limit=100 * MIB, ended_near_limit=True), release=release)


def test_a_fixed_leak_is_told() -> None:
    """The next release has run as long as the leak took to show, and nothing of it is there."""
    flat = np.full(TIME.size, 50 * MIB)
    fixed = replace(life(TIME, flat, {LEAK: np.zeros(TIME.size)}), release="43")
    (fix,) = judged(fixed, died("42")).fixes
    assert (fix.state, fix.function, fix.before, fix.release) == ("fixed", "remember", "42", "43")
    assert "Release 43 has fixed remember" in fix.evidence[0]


def test_a_leak_that_is_only_slower_is_told_with_its_share() -> None:
    """A quarter of the former rate is left."""
    slower = replace(leaking(rate=0.25 * MIB), release="43")
    (fix,) = judged(slower, died("42")).fixes
    assert fix.state == "still leaking"
    assert fix.share == pytest.approx(0.25, abs=0.03)
    assert "at 25% of the former rate" in fix.evidence[0] or "at 2" in fix.evidence[0]


def test_no_fix_is_claimed_of_the_same_release_or_too_early() -> None:
    """Without another release, or before the old leak would have shown, nothing is said."""
    flat = np.full(TIME.size, 50 * MIB)
    quiet = life(TIME, flat, {LEAK: np.zeros(TIME.size)})
    assert judged(quiet, died("42")).fixes == ()
    assert judged(replace(quiet, release="42"), died("42")).fixes == ()
    young = replace(life(TIME[:2], flat[:2], {LEAK: np.zeros(2)}), release="43")
    assert judged(young, died("42")).fixes == ()


def coroutines(number: Floats, place: str = "follow") -> Counts:
    """So many tasks that stand in a function."""
    return Counts(("task",), ((frame(place, "/srv/app/deliveries.py"),),), number.reshape(1, -1))


MAIL = Holder("unbounded", "Deliveries._following", "set", through=frozenset({"follow"}))


def test_what_tasks_that_leak_hold_is_one_finding_with_them() -> None:
    """The count names it; what it keeps is said with it, and one that is kept elsewhere is not."""
    tasks = coroutines(10 * TIME)
    now = growing(0.4, counts=tasks)
    (finding,) = judged(now, holder=MAIL).findings
    assert (finding.kind, finding.function, finding.stage) == ("task leak", "follow", "confirmed")
    assert finding.with_it == ((False, "app/remember.py", "remember"),)
    assert finding.holder == "Deliveries._following"
    assert any("one leak" in sentence for sentence in finding.evidence)
    elsewhere = replace(MAIL, through=frozenset({"other"}))
    assert len(judged(now, holder=elsewhere).findings) == 2


def test_what_one_container_keeps_is_one_finding() -> None:
    """Two functions allocate what the same dict keeps: the larger one names the leak."""
    other = (frame("price"), frame("quote"))
    small, large = 0.3 * MIB * TIME, 0.7 * MIB * TIME
    births = {
        LEAK: np.full(10, 5 * 0.7 * MIB),
        other: np.full(10, 5 * 0.3 * MIB),
    }
    heap = {LEAK: large, other: small}
    now = life(TIME, 50 * MIB + MIB * TIME, heap, births=births, limit=130 * MIB)
    places = (PLACE, Place("/srv/app/price.py", "price"))
    series = ServiceSeries("shop", (now,), ())
    held = dict.fromkeys(places, Holder("unbounded", "SESSIONS", "dict"))
    (finding,) = judge_service(series, None, held).findings
    assert (finding.function, finding.stage) == ("remember", "confirmed")
    assert finding.with_it == ((False, "app/price.py", "price"),)
    lost = dict.fromkeys(places, Holder("lost", "not reachable from any Python object"))
    assert len(judge_service(series, None, lost).findings) == 2


def test_the_functions_on_the_way_to_the_memory_are_read() -> None:
    """Coroutines and running frames of the heaviest branch, however the answer is broken."""
    follow = {"reference": "local mail of Box.follow (a.py:3)", "type": "Mail", "bytes": 90}
    task = {"reference": "asyncio task", "type": "coroutine run", "bytes": 95, "holds": [follow]}
    paths = [{"reference": "Box.tasks", "type": "set", "bytes": 100, "holds": [task]}]
    assert holder_of({"bytes": 100, "paths": paths}, 1.0).through == {"Box.follow", "run"}
    for broken in (None, 3, [3], [{"bytes": 100, "holds": 5, "reference": None}]):
        assert holder_of({"bytes": 100, "paths": broken}, 1.0).through == frozenset()
