"""What is rolled up: long lives are read from it, and it stays when samples have gone by age."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from stanch.store import LifeSeries
from stanch.store.history import Selection
from stanch.store.sqlstore import SqlStore, open_store
from tests.store.looks import PROCESS, heap, look

NOW = 1_800_000_000.0
HOURS, EVERY_S, BORN_S = 7, 120, 40
KEEPS = 1000.0
"""Bytes a second that one stack keeps."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A process of seven hours that keeps what it allocates, a look in two minutes."""
    with open_store("chdb", tmp_path_factory.mktemp("store"), wall=lambda: NOW) as opened:
        for age_s in range(EVERY_S, HOURS * 3600 + 1, EVERY_S):
            born = tuple(
                KEEPS * BORN_S if band * 5 % BORN_S == 0 else 0.0 for band in range(age_s // 5)
            )
            kept = heap("kept", KEEPS * age_s, births=born)
            process = replace(PROCESS, age_s=float(age_s), requests=float(age_s), heap=(kept,))
            unix_s = NOW - HOURS * 3600 + age_s - 10
            opened.add(look(float(age_s), process, unix_s=unix_s))
        opened.flush()
        yield opened


def only_life(store: SqlStore) -> LifeSeries:
    """The one life there is."""
    (life,) = store.series("shop").lives
    return life


def check_line(life: LifeSeries) -> None:
    """What is kept grows by KEEPS at every look, and each band of birth is alive."""
    np.testing.assert_allclose(life.live_bytes[0], KEEPS * life.time_s, rtol=1e-6)
    assert life.births is not None
    widths = np.diff(life.births.edges_s)
    np.testing.assert_allclose(life.births.live_bytes[0][:-1], KEEPS * widths[:-1], rtol=1e-6)


def test_a_long_life_is_read_from_what_is_rolled_up(store: SqlStore) -> None:
    """Every five minutes of it, and the last quarter of an hour in full."""
    life = only_life(store)
    check_line(life)
    assert life.heap_fresh.all()
    gaps = np.diff(life.time_s)
    assert 300 <= gaps[:-9].max() <= 420
    assert (gaps[-4:] <= 240).all()
    assert life.time_s[-1] == HOURS * 3600
    ((rolled, full),) = store.engine.query(
        "SELECT (SELECT uniqExact(time) FROM rolled), (SELECT uniqExact(time) FROM samples)"
    )
    assert full == HOURS * 3600 / EVERY_S
    assert 84 <= rolled <= 86


def test_what_is_rolled_up_stays_when_samples_go(store: SqlStore) -> None:
    """Without samples an old profile is that of the five minutes before it, and the series is
    as it was but for the end."""
    store.engine.command("TRUNCATE TABLE samples")
    at_s = NOW - 3 * 3600
    profile = store.history.profile(Selection("shop", at_s))
    assert profile is not None
    live = sum(sample.values[3] for sample in profile.samples)
    age_s = HOURS * 3600 - 3 * 3600 + 10
    assert KEEPS * (age_s - 600) <= live <= KEEPS * age_s
    life = only_life(store)
    old = life.time_s < HOURS * 3600 - 1000
    np.testing.assert_allclose(life.live_bytes[0][old], KEEPS * life.time_s[old], rtol=1e-6)
