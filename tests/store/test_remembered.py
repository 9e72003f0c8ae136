"""Heaps of the past that were read are remembered, and never shown where there is a newer one."""

from pathlib import Path

from stanch.store import Look, ProcessLook
from stanch.store.history import Selection
from stanch.store.sqlstore import SqlStore, Taken, open_store
from tests.store.pprofs import heap_bytes

NOW = 1_800_000_000.0


def take(store: SqlStore, instance: str, ago_s: float, size: int) -> None:
    """A heap of one function's bytes, some seconds before NOW."""
    age_s = 1000.0 - ago_s
    process = ProcessLook(10, None, age_s)
    look = Look("shop", instance, age_s, NOW - ago_s, "python", (process,))
    data = heap_bytes({"kept": size}, age_s=age_s, labels=(("route", "/cart"),))
    store.take(look, [Taken("heap", data)])
    store.flush()


def live(store: SqlStore, selection: Selection) -> int:
    """The live bytes of a selection that is there."""
    profile = store.history.profile(selection)
    assert profile is not None
    return sum(sample.values[3] for sample in profile.samples)


def test_a_heap_is_read_once_and_never_stale(tmp_path: Path) -> None:
    """The same profiles are read from the tables once; what came last is in the newest moment, also
    of another instance, and labels, kinds and moments are told apart."""
    newest = Selection("shop", NOW)
    with open_store("chdb", tmp_path, wall=lambda: NOW) as store:
        take(store, "shop-1", 200, 1000)
        assert live(store, newest) == 1000
        assert store.history.profile(newest) is store.history.profile(newest)
        take(store, "shop-1", 100, 2000)
        assert live(store, newest) == 2000
        take(store, "shop-2", 50, 4000)
        assert live(store, newest) == 6000
        assert live(store, Selection("shop", NOW, ("shop-1",))) == 2000
        assert live(store, Selection("shop", NOW - 150)) == 1000
        assert live(store, Selection("shop", NOW, labels={"route": "/cart"})) == 6000
        assert store.history.profile(Selection("shop", NOW, labels={"route": "/x"})) is None
        assert store.history.profile(Selection("shop", NOW, kind="task")) is None
        assert store.history.profile(Selection("shop", NOW - 5000)) is None
