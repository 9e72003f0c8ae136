"""The lasting store's history: every question of the interface, on chDB."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stanch.profile import Profile, diff, parse
from stanch.store import Look, ProcessLook
from stanch.store.history import DeathRow, FindingRow, Selection, TargetRow, TimeRange
from stanch.store.sqlstore import Extra, SqlStore, Taken, open_store
from tests.store.pprofs import heap_bytes

NOW = 1_800_000_000.0
HOUR = TimeRange(NOW - 3600, NOW + 60)
MIB = 1024 * 1024


def look(at_s: float, instance: str = "shop-1", **changes: object) -> Look:
    """A look at a process of pid 10 that began 60 s before, on the hour before NOW."""
    process = ProcessLook(10, None, 60.0 + at_s, rss_bytes=100 * MIB + at_s * MIB, requests=at_s)
    plain = Look("shop", instance, at_s, NOW - 600 + at_s, "python", (process,), 256 * MIB)
    return replace(plain, **changes)  # type: ignore[arg-type]


def live(profile: Profile | None) -> int:
    """All live bytes of a heap."""
    assert profile is not None
    return sum(sample.values[3] for sample in profile.samples)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """Ten minutes of shop-1, which leaks, is killed and restarts, and of shop-2."""
    path: Path = tmp_path_factory.mktemp("store")
    with open_store("chdb", path, wall=lambda: NOW) as opened:
        for at_s in range(0, 180, 30):
            heap = {"remember": MIB * (1 + at_s), "steady": 5 * MIB}
            labels = (("route", "/cart"), ("thread", "Main"))
            extra = Extra(0.25, {"heap": 7 * MIB})
            for instance in ("shop-1", "shop-2"):
                data = heap_bytes(heap, age_s=60.0 + at_s, labels=labels, time_s=NOW - 600 + at_s)
                one = look(at_s, instance, release="v1")
                opened.take(one, [Taken("heap", data)], extra)
        process = ProcessLook(11, None, 5.0, rss_bytes=90 * MIB)
        again = look(210.0, processes=(process,), release="v2")
        opened.take(again, [Taken("heap", heap_bytes({"steady": 5 * MIB}))])
        opened.flush()
        yield opened


def test_names_and_summaries(store: SqlStore) -> None:
    """A service is summed up with its instances and memory against limit."""
    assert store.history.service_names() == ("shop",)
    (summary,) = store.history.service_summaries(NOW)
    assert (summary.service, summary.language) == ("shop", "python")
    assert summary.limit_bytes == 256 * MIB
    assert summary.memory_bytes is not None
    assert summary.memory_share.size == summary.time_unix_s.size > 2
    assert summary.memory_share.max() == pytest.approx(250 / 256)


def test_memory_of_the_lives(store: SqlStore) -> None:
    """Each life has its series; a thinned step has the largest memory of its looks."""
    first, second, other = store.history.memory("shop", HOUR)
    assert [one.life.instance for one in (first, second, other)] == ["shop-1", "shop-1", "shop-2"]
    assert first.memory_bytes.tolist() == [(100 + at_s) * MIB for at_s in range(0, 180, 30)]
    assert first.requests_per_s[1:].tolist() == pytest.approx([1.0] * 5)
    assert first.latency_s[0] == 0.25
    assert first.breakdown["heap"].tolist() == [7 * MIB] * 6
    assert second.life.end == "stopped"
    (whole,) = [
        one
        for one in store.history.memory("shop", HOUR, points=1)
        if one.life.life == other.life.life
    ]
    assert whole.memory_bytes.max() == 250 * MIB
    assert len(store.history.memory("shop", HOUR, most=1)) == 1


def test_lives(store: SqlStore) -> None:
    """A life that stood at its limit when another process answered was killed."""
    lives = store.history.lives("shop", HOUR)
    assert [life.release for life in lives] == ["v2", "v1", "v1"]
    (killed,) = store.history.killed_lives()
    assert (killed.instance, killed.end, killed.pid) == ("shop-1", "killed", 10)
    assert killed.last_memory_bytes == 250 * MIB
    assert store.history.releases("shop", HOUR) == ("v1", "v2")


def test_the_heap_of_a_moment_is_a_profile(store: SqlStore) -> None:
    """The newest profile of each instance before a moment is added up, labels and all."""
    heap = store.history.profile(Selection("shop", NOW - 600 + 65))
    assert heap is not None
    assert live(heap) == 2 * (61 + 5) * MIB
    one = store.history.profile(Selection("shop", NOW - 600 + 65, instances=("shop-2",)))
    assert one is not None
    assert live(one) == 66 * MIB
    assert {sample.labels for sample in one.samples if sample.values[3]} == {
        (("route", "/cart"), ("thread", "Main"))
    }
    assert sum(sample.values[1] for sample in one.samples) == 2 * 66 * MIB
    functions = {line.function for s in one.samples for x in s.locations for line in x.lines}
    assert {f.name for f in functions} == {"remember", "steady", "main"}
    assert {f.start_line for f in functions} == {5}
    assert store.history.profile(Selection("shop", NOW - 5000)) is None


def test_the_first_and_the_last_heap_of_a_life(store: SqlStore) -> None:
    """Those of a range and of this life alone; None where there is none."""
    life = next(life for life in store.history.lives("shop", HOUR) if life.instance == "shop-2")
    for within, wanted in (
        (HOUR, [6 * MIB, 156 * MIB]),
        (TimeRange(NOW - 580, NOW - 500), [36 * MIB, 96 * MIB]),
    ):
        found = store.history.first_and_last(life, within)
        assert found is not None
        assert [live(one) for one in found] == wanted
    again = next(life for life in store.history.lives("shop", HOUR) if life.release == "v2")
    found = store.history.first_and_last(again, HOUR)
    assert found is not None
    assert [live(one) for one in found] == [5 * MIB] * 2
    assert store.history.first_and_last(life, TimeRange(NOW - 60, NOW)) is None


def test_the_growth_between_two_moments(store: SqlStore) -> None:
    """The difference of two heaps is what grew between."""
    selections = [Selection("shop", NOW - 600 + at_s, ("shop-2",)) for at_s in (0, 150)]
    old, new = (store.history.profile(selection) for selection in selections)
    assert old is not None
    assert new is not None
    grown = [sample for sample in diff(old, new).samples if sample.values[3]]
    assert [sample.locations[0].lines[0].function.name for sample in grown] == ["remember"]
    assert grown[0].values[3] == 150 * MIB


def test_filters_by_label_and_release(store: SqlStore) -> None:
    """A selection takes the samples of a label or of a release only."""
    assert store.history.labels("shop", HOUR) == {"route": ["/cart"], "thread": ["Main"]}
    cart = store.history.profile(Selection("shop", NOW, labels={"route": "/cart"}, age_s=900))
    other = store.history.profile(Selection("shop", NOW, labels={"route": "/x"}, age_s=900))
    assert cart is not None
    assert other is None
    second = store.history.profile(Selection("shop", NOW, release="v2", age_s=900))
    assert second is not None
    assert live(second) == 5 * MIB


def test_growth_and_births_of_a_function(store: SqlStore) -> None:
    """What one function holds in each life, and when that was born."""
    found = store.history.growth("shop", "remember", "app/remember.py", HOUR)
    by_instance = {(life.instance, life.end): size.tolist() for life, _, size in found}
    assert by_instance["shop-2", "stopped"] == [MIB * (1 + at) for at in range(0, 180, 30)]
    life = next(life for life, _, _ in found if life.instance == "shop-2")
    births = store.history.births(life.life, "remember")
    assert births is not None
    assert births.live_bytes[0, 0] == births.live_bytes.sum() == 151 * MIB
    assert store.history.births("0123456789abcdef") is None
    assert store.history.growth("shop", "remember", "cart/remember.py", HOUR)[0][2].max() == 0


def test_profiles_as_they_came(store: SqlStore) -> None:
    """Each profile is listed, and its own bytes are given as long as they are kept."""
    rows = store.history.profiles("shop", HOUR, "shop-2")
    assert len(rows) == 6
    assert rows[0].unix_s > rows[1].unix_s
    assert rows[0].has_raw
    raw = store.history.raw_profile(rows[0].profile)
    assert raw is not None
    assert sum(sample.values[3] for sample in parse(raw).samples) == rows[0].live_bytes
    assert store.history.raw_profile("00" * 16) is None
    assert store.history.raw_profile("nonsense") is None


def test_findings_replace_each_other(store: SqlStore) -> None:
    """A finding is one row, however often it is written, under a name that lasts."""
    finding = FindingRow(
        "00000000000000ff", "shop", "leak", "probable", "firing", "app.py", 7, "remember",
        NOW - 60, NOW - 30, "v1", {"seconds_to_death": [1.0, 2.0, 3.0]},
    )  # fmt: skip
    store.write_findings([finding])
    store.write_findings([replace(finding, stage="confirmed", last_unix_s=NOW)])
    assert store.history.findings("shop", "firing")[0].stage == "confirmed"
    assert store.history.finding("00000000000000ff") == store.history.findings()[0]
    assert store.history.finding("0000000000000001") is None
    assert store.history.findings("cart") == ()
    (summary,) = store.history.service_summaries(NOW)
    assert (summary.firing, summary.confirmed) == (1, 1)
    assert summary.seconds_to_death == (1.0, 2.0, 3.0)


def test_targets_and_the_worst_verdict(store: SqlStore) -> None:
    """Targets come with errors first; the gravest of their verdicts is the service's."""
    good = TargetRow("shop", "shop-1", "http://a", "scrape", "steady", "", 0.1, NOW - 5, NOW - 5)
    bad = replace(good, instance="shop-2", verdict="leak", error="no answer", last_good_unix_s=None)
    store.write_targets([good, bad])
    assert store.history.targets() == (bad, good)
    assert store.history.service_summaries(NOW)[0].worst == "leak"


def test_deaths(store: SqlStore) -> None:
    """A row replaces what was written of the same death, its profile stays until another comes;
    those that were killed are counted."""
    row = DeathRow("00000000000000ab", "shop", "shop-1", "crash", NOW - 60, {"how": "gone"})
    other = replace(row, death="00000000000000ac", service="cart", cause="exit")
    store.write_death(row, b"profile")
    store.write_death(replace(row, cause="oom", document={"how": "killed"}))
    store.write_death(other)
    (death,) = store.history.deaths(HOUR, "shop")
    assert (death.cause, death.document) == ("oom", {"how": "killed"})
    assert store.history.death(row.death) == death
    assert store.history.death_profile(row.death) == b"profile"
    assert store.history.death_profile(other.death) is None
    assert store.history.has_death_profile(row)
    assert not store.history.has_death_profile(other)
    assert not store.history.has_death_profile(replace(row, death="0000000000000001"))
    assert len(store.history.deaths(HOUR)) == 2
    assert store.history.deaths(HOUR, "shop", "shop-2") == ()
    assert store.history.deaths(TimeRange(NOW - 50, NOW)) == ()
    assert store.history.death("0000000000000001") is None
    assert [one.deaths for one in store.history.service_summaries(NOW)] == [1]


def test_the_store_tells_of_itself(store: SqlStore) -> None:
    """Rows, bytes, free space, what waits, and what was passed over."""
    assert store.take(look(0.0), [Taken("heap", heap_bytes({"x": MIB}))])
    assert not store.take(look(0.0), [Taken("heap", heap_bytes({"x": MIB}))])
    store.notice("something happened")
    storage = store.history.storage()
    assert storage.engine.startswith("chDB ")
    assert storage.rows > 0
    assert storage.bytes_on_disk > 0
    assert storage.free_bytes is not None
    assert storage.skipped_profiles == 1
    assert storage.oldest_unix_s == NOW - 600
    assert storage.notices[-1].endswith("UTC: something happened")
    assert np.isfinite(storage.waiting_profiles)
