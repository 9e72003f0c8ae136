"""The server's lasting store says what `stanch watch` says of the same looks.

Beyond leaks of the heap that is what needs more than heaps: releases, what allocators hold free,
the kernel's page cache and open files.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from stanch.collect import FixedTargets
from stanch.collect.received import Receiver
from stanch.detect import ServiceVerdict, judge_service
from stanch.server.configuration import ServerConfiguration
from stanch.server.fleet import Fleet
from stanch.server.pages.application import make_application
from stanch.store import FILES, Look, MemoryStore, ProcessLook, StackCount
from stanch.store.sqlstore import SqlStore, open_store
from tests.server.serving import serving_application
from tests.store.looks import heap

MIB = 2.0**20
LIMIT = 256 * MIB
LOOKS = 90
EVERY_S = 5.0


def looks_of_service(service: str, name: str) -> list[Look]:
    """Looks at one process that shows one thing, the last one a few seconds ago."""
    began_s = time.time() - LOOKS * EVERY_S
    looks = []
    for number in range(LOOKS):
        age_s = EVERY_S * number + 1
        steady = heap("steady", 20 * MIB, births=(20 * MIB,))
        process = ProcessLook(7, None, age_s, 60 * MIB, requests=50 * age_s, heap=(steady,))
        look = Look(service, f"{service}-1", age_s, began_s + age_s, "python", (process,), LIMIT)
        grown = age_s * MIB / 5
        if name == "fd":
            files = StackCount("fd", FILES, 20.0 + 2 * number)
            look = replace(look, counts=(files,), max_fds=256.0)
        elif name == "fragmentation":
            held = replace(process, rss_bytes=60 * MIB + grown)
            look = replace(look, processes=(held,), slack_bytes=10 * MIB + grown)
        else:
            held = replace(process, rss_bytes=60 * MIB)
            working_set_bytes = 70 * MIB + grown
            look = replace(
                look,
                processes=(held,),
                working_set_bytes=working_set_bytes,
                page_cache_bytes=5 * MIB + grown,
            )
        looks.append(look)
    return looks


def looks_of_releases(service: str, second_keeps: float) -> list[Look]:
    """A release that leaks until its limit, then one that keeps a share of what that kept."""
    began_s = time.time() - 2 * LOOKS * EVERY_S
    looks = []
    for life, (release, keeps) in enumerate((("v1", 1.0), ("v2", second_keeps))):
        for number in range(LOOKS):
            age_s = EVERY_S * number + 1
            time_s = life * LOOKS * EVERY_S + age_s
            band_bytes = 2.4 * MIB * keeps
            births = tuple(band_bytes for _ in range(number + 1))
            kept = heap("remember", sum(births), allocated=2.4 * MIB * (number + 1), births=births)
            process = ProcessLook(
                70 + life, None, age_s, 40 * MIB + sum(births), requests=50 * age_s, heap=(kept,)
            )
            look = Look(service, f"{service}-1", time_s, began_s + time_s, "python", (process,))
            looks.append(replace(look, release=release, limit_bytes=LIMIT))
    return looks


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """One store for all services."""
    with open_store("chdb", tmp_path_factory.mktemp("store")) as opened:
        yield opened


def said(verdict: ServiceVerdict) -> list[tuple[object, ...]]:
    """What a verdict says, but for numbers that differ in their last digits."""
    findings = [
        (one.kind, one.stage, one.function, round(one.confidence, 3), one.evidence)
        for one in verdict.findings
    ]
    fixes = [(fix.state, fix.function, fix.release, fix.evidence) for fix in verdict.fixes]
    return [*findings, *fixes]


@pytest.mark.parametrize(
    ("looks_now", "kind"),
    [
        (partial(looks_of_service, "files", "fd"), "fd leak"),
        (partial(looks_of_service, "loose", "fragmentation"), "fragmentation"),
        (partial(looks_of_service, "reader", "page cache"), "page cache"),
        (partial(looks_of_releases, "mended", 0.0), "fixed"),
        (partial(looks_of_releases, "patched", 0.6), "still leaking"),
    ],
    ids=["fd", "fragmentation", "page-cache", "fixed", "still-leaking"],
)
def test_both_histories_are_judged_alike(
    store: SqlStore, looks_now: Callable[[], list[Look]], kind: str
) -> None:
    """The verdict over chDB is the one over memory, in each sentence."""
    memory = MemoryStore()
    for look in looks_now():
        memory.add(look)
        store.add(look)
    store.flush()
    (service,) = memory.services()
    watched = said(judge_service(memory.series(service)))
    assert kind in {one[0] for one in watched}, watched
    assert said(judge_service(store.series(service))) == watched


def test_what_a_release_fixed_is_in_the_pages(store: SqlStore, tmp_path: Path) -> None:
    """The finding's own page says which release fixed it, and so does each list it is in."""
    for look in looks_of_releases("shop", 0.0):
        store.add(look)
    store.flush()
    fixes = Fleet(store, FixedTargets(())).detect_once().fixes
    (fix,) = [fix for fix in fixes if fix.service == "shop"]
    assert (fix.state, fix.release) == ("fixed", "v2")
    (row,) = store.history.findings("shop")
    receiver = Receiver(store, time.time)
    application = make_application(store, receiver, ServerConfiguration(tmp_path), None)
    with serving_application(application) as url:
        assert fix.evidence[0] in httpx.get(f"{url}/findings/{row.finding}").text
        for path in ("/", "/services/shop"):
            assert "fixed</b> in release v2" in httpx.get(url + path).text
