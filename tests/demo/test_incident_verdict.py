"""The verdict: what counts as solved, and every way in which a run does not."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from stanch.demo.host.workplace import SERVICES
from stanch.demo.lives import Trace, life_of, reckon_life
from stanch.demo.record import (
    Autopsy,
    Death,
    Holding,
    Life,
    Place,
    Record,
    Recycled,
    Sighting,
    Told,
    Written,
)
from stanch.demo.truth import HEALTHY, SEEDED_LEAKS, SeededLeak
from stanch.demo.verdict import judge_incident, judge_recycled, judge_repaired

MIB = 1024 * 1024
LEAKS = (
    SeededLeak(
        "shop",
        "sessions never expire",
        "shop/sessions.py",
        ("remember",),
        also=(("shop/basket.py", "price"),),
        holders=("shop/sessions.py module global _sessions",),
    ),
    SeededLeak(
        "pricing", "nodes are not freed", "pricing/tiers.py", ("build",), c_function="make_node"
    ),
)
IN_SHOP = Place("/srv/shop/sessions.py", 41, "remember")
SHOP_NAMED = Sighting(30.0, "shop", "leak", "confirmed", IN_SHOP)
KEPT = Holding(40.0, "shop", "shop-1", ("shop/sessions.py module global _sessions", "Session"), "")
IN_PRICING = Place("/srv/pricing/tiers.py", 9, "build")
NATIVE_NAMED = Sighting(
    35.0, "pricing", "native leak", "confirmed", IN_PRICING, "make_node in libtiers.so"
)
GOOD = Record(
    services=("shop", "pricing", "catalog"),
    sightings=(SHOP_NAMED, NATIVE_NAMED),
    lives={"shop": Life(80.0, measured=True), "pricing": Life(90.0, measured=False)},
    deaths=(Death(80.0, "shop", "shop-1", 1, True, "killed by the kernel, out of memory"),),
    autopsies=(Autopsy("shop", "shop-1", 7, IN_SHOP, 90 * MIB, 100 * MIB),),
    holdings=(KEPT,),
    written=(Written(81.0, "shop", "shop-1", "oom", IN_SHOP),),
    told=(Told(31.0, "shop", "shop/sessions.py remember", "confirmed", "firing"),),
)


def problems(record: Record, healthy: Sequence[str] = ("catalog",)) -> str:
    return "\n".join(judge_incident(record, LEAKS, healthy).problems)


def test_everything_right_is_solved() -> None:
    """Each leak named in time, nothing else accused, a death and its autopsy: solved."""
    verdict = judge_incident(GOOD, LEAKS, ["catalog"])
    assert verdict.ok, verdict.problems
    assert [(row.service, row.ok) for row in verdict.rows] == [
        ("shop", True),
        ("pricing", True),
        ("catalog", True),
    ]
    assert verdict.rows[0].share == pytest.approx(30 / 80)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sightings": (NATIVE_NAMED,)}, "shop: the leak was not named"),
        ({"sightings": (SHOP_NAMED,)}, "pricing: the leak was not named"),
        ({"holdings": ()}, "shop: what keeps the leak alive was not named (no path"),
        (
            {"holdings": (replace(KEPT, path=("a module global _other",)),)},
            "shop: what keeps the leak alive was not named (said: a module global _other)",
        ),
        (
            {"holdings": (replace(KEPT, service="notify"),)},
            "shop: what keeps the leak alive was not named (no path",
        ),
        (
            {"sightings": (replace(SHOP_NAMED, stage="probable"), NATIVE_NAMED)},
            "shop: the leak was not named",
        ),
        (
            {"sightings": (replace(SHOP_NAMED, at_s=41.0), NATIVE_NAMED)},
            "shop: named late, after 51%",
        ),
        (
            {"sightings": (replace(SHOP_NAMED, kind="filling cache"), NATIVE_NAMED)},
            "shop: the leak was not named",
        ),
        (
            {
                "sightings": (
                    SHOP_NAMED,
                    NATIVE_NAMED,
                    Sighting(50.0, "catalog", "leak", "confirmed", Place("pages.py", 3, "get")),
                )
            },
            "catalog: falsely accused after 50 s",
        ),
        (
            {
                "sightings": (
                    SHOP_NAMED,
                    NATIVE_NAMED,
                    Sighting(9.0, "shop", "leak", "confirmed", Place("flask/app.py", 3, "wsgi")),
                )
            },
            "shop: falsely accused after 9 s",
        ),
        ({"deaths": ()}, "no node died at its memory limit"),
        (
            {"deaths": (*GOOD.deaths, Death(9.0, "shop", "shop-2", 1, False, "ended by itself"))},
            "shop-2 ended after 9 s of load, but not at its limit",
        ),
        ({"autopsies": ()}, "no autopsy"),
        ({"written": ()}, "the death of shop-1 after 80 s is not on record"),
        (
            {"written": (replace(GOOD.written[0], at_s=115.0),)},
            "the death of shop-1 after 80 s is not on record",
        ),
        (
            {"written": (replace(GOOD.written[0], cause="crash"),)},
            "the death of shop-1 is on record as crash, not oom",
        ),
        (
            {"written": (replace(GOOD.written[0], place=Place("json/decoder.py", 1, "x")),)},
            "the record of shop-1's death shows json/decoder.py:1 x, not the leak",
        ),
        ({"told": GOOD.told * 2}, "shop: 2 alarms of stage confirmed for 1 leak(s)"),
        (
            {"told": (replace(GOOD.told[0], service="catalog"),)},
            "catalog: 1 alarms of stage confirmed for 0 leak(s)",
        ),
        (
            {"autopsies": (replace(GOOD.autopsies[0], place=Place("json/decoder.py", 1, "x")),)},
            "the autopsy of shop-1 shows",
        ),
        ({"lives": {"pricing": Life(90.0, False)}}, "shop: no node died or grew"),
    ],
)
def test_each_miss_is_told(change: dict[str, object], said: str) -> None:
    """Each way in which a run falls short is a problem with a sentence of its own."""
    record = replace(GOOD, **change)  # type: ignore[arg-type]  # the table holds field values
    assert said in problems(record)
    assert not judge_incident(record, LEAKS, ["catalog"]).ok


def test_a_suspicion_is_no_accusation() -> None:
    """The healthy service may be suspected, or said to fill a cache, as long as none is sure."""
    place = Place("catalog/pages.py", 30, "render")
    mild = (
        Sighting(10.0, "catalog", "leak", "probable", place),
        Sighting(20.0, "catalog", "filling cache", "confirmed", place),
    )
    assert problems(replace(GOOD, sightings=(*GOOD.sightings, *mild))) == ""


def test_what_the_leak_keeps_besides_is_neither_named_nor_false() -> None:
    """To accuse the line that allocates the rest of what a leak keeps is true, but not enough."""
    besides = Sighting(30.0, "shop", "leak", "confirmed", Place("shop/basket.py", 33, "price"))
    assert problems(replace(GOOD, sightings=(*GOOD.sightings, besides))) == ""
    instead = replace(GOOD, sightings=(besides, NATIVE_NAMED))
    assert problems(instead) == "shop: the leak was not named"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"taken_by": ""}, "pricing: falsely accused"),
        ({"taken_by": "PyObject_Malloc in libpython3.11.so"}, "pricing: falsely accused"),
        ({"place": replace(IN_PRICING, function="app")}, "pricing: falsely accused"),
        ({"place": Place(), "taken_by": ""}, "pricing: the leak was not named"),
    ],
)
def test_native_memory_is_named_by_both_its_functions(
    change: dict[str, object], problem: str
) -> None:
    """The C function and the line that calls it must be there; native growth alone is just true."""
    said = replace(NATIVE_NAMED, **change)  # type: ignore[arg-type]  # the table holds field values
    found = problems(replace(GOOD, sightings=(SHOP_NAMED, said)))
    assert problem in found
    assert ("falsely" in found) == ("falsely" in problem)


@pytest.mark.parametrize(("function", "is_right"), [("make_node", True), ("f", False)])
def test_an_autopsy_of_native_memory_shows_the_c_function(function: str, is_right: bool) -> None:
    """The live table of a process that lost native memory has the C function on top."""
    other = Autopsy("pricing", "pricing", 8, Place("/srv/pricing/libtiers.so", 0, function), 1, 2)
    found = problems(replace(GOOD, autopsies=(*GOOD.autopsies, other)))
    assert (found == "") == is_right, found


def test_a_service_that_took_no_part_is_not_missed() -> None:
    """Without Go the ledger does not run, and nobody is blamed for not naming its leak."""
    verdict = judge_incident(replace(GOOD, services=("shop", "catalog")), LEAKS, ["catalog"])
    assert [row.service for row in verdict.rows] == ["shop", "catalog"]
    assert verdict.problems == (
        "pricing: falsely accused after 35 s (native leak, pricing/tiers.py:9 build)",
    )


def test_a_recycled_run_must_lose_nothing() -> None:
    """Each leak named and recycled, no kill, no failed request, nobody told: solved."""
    done = tuple(
        Recycled(50.0, service, f"{service}-1", "done", "within 9 s")
        for service in ("shop", "pricing")
    )
    good = replace(GOOD, deaths=(), autopsies=(), written=(), told=(), recycled=done)

    def said(record: Record, failed_requests: int = 0) -> str:
        return "\n".join(judge_recycled(record, LEAKS, ["catalog"], failed_requests).problems)

    assert said(good) == ""
    assert said(good, 3) == "3 requests failed"
    assert "shop: no node of it was recycled" in said(replace(good, recycled=done[1:]))
    assert "pricing: the leak was not named" in said(replace(good, sightings=(SHOP_NAMED,)))
    assert "shop-1 died after 80 s" in said(replace(good, deaths=GOOD.deaths))
    assert "people were told of shop" in said(replace(good, told=GOOD.told))
    failed = replace(done[0], what="failed", text="it hangs")
    assert "recycling shop-1 failed after 50 s: it hangs" in said(
        replace(good, recycled=(*done, failed))
    )


def test_the_repaired_code_must_be_quiet() -> None:
    """Of the repaired code nothing may be accused and nothing may die."""
    quiet = replace(GOOD, sightings=(), deaths=(), autopsies=(), lives={}, told=())
    assert judge_repaired(quiet).ok
    accused = judge_repaired(replace(quiet, sightings=(SHOP_NAMED,)))
    assert [one.partition(" after")[0] for one in accused.problems] == ["shop: falsely accused"]
    assert not judge_repaired(replace(quiet, deaths=GOOD.deaths)).ok


def test_the_truth_matches_the_code() -> None:
    """Each seeded leak names a file and functions that its service really has."""
    for leak in SEEDED_LEAKS:
        for file, function in ((leak.file, name) for name in leak.functions):
            name = function.rpartition(".")[2]
            source = (SERVICES / file).read_text()
            assert f"def {name}(" in source or f") {name}(" in source, function
        if leak.c_function:
            sources = (SERVICES / leak.service).glob("*.c")
            assert any(f"*{leak.c_function}(" in source.read_text() for source in sources)
        for file, _ in leak.also:
            assert (SERVICES / file).is_file()
    assert not {leak.service for leak in SEEDED_LEAKS} & set(HEALTHY)


def test_detection_never_sees_the_truth() -> None:
    """Only the end of a run imports the truth; the services and what watches them do not."""
    package = SERVICES.parent
    readers = {
        path.name
        for path in package.rglob("*.py")
        if "truth import" in path.read_text() or "import truth" in path.read_text()
    }
    assert readers == {"run.py", "verdict.py"}


def test_a_life_is_measured_by_the_first_death() -> None:
    """The first death at the limit of a first life is the life of the service's nodes."""
    deaths = [
        Death(95.0, "shop", "shop-2", 1, True, ""),
        Death(85.0, "shop", "shop-1", 1, True, ""),
        Death(10.0, "shop", "shop-1", 2, True, ""),
        Death(5.0, "shop", "shop-3", 1, False, ""),
    ]
    assert life_of("shop", [], deaths) == Life(85.0, measured=True)


def test_a_life_is_reckoned_from_growth() -> None:
    """A node that grows a MiB a second from 40 MiB meets 100 MiB after a minute."""
    readings = [(float(at_s), (40 + at_s) * MIB) for at_s in range(20)]
    life = life_of("shop", [Trace("shop", 100 * MIB, readings)], [])
    assert life is not None
    assert not life.measured
    assert math.isclose(life.seconds, 60.0)


def test_no_growth_gives_no_life() -> None:
    """A node that does not grow, or was hardly seen, gives no life at all."""
    assert reckon_life([(float(at_s), 40 * MIB) for at_s in range(20)], 100 * MIB) is None
    assert reckon_life([(0.0, 1), (1.0, MIB)], 100 * MIB) is None
    assert life_of("shop", [Trace("shop", 100 * MIB)], []) is None
