"""When the sidecar takes a profile, what it reads of a cgroup, and what it keeps on disk."""

import os
from pathlib import Path

import pytest

from stanch.sampler.cgroup import MemoryGroup
from stanch.sidecar import Gauge, Reading, Shelf, Trigger

LIMIT = 1000


def at(share: float, pressure: float | None = None) -> Reading:
    """A reading of so much memory."""
    return Reading(True, round(share * LIMIT), LIMIT, 0, pressure)


def story(*looks: tuple[float, float]) -> list[tuple[float, str]]:
    """The reasons that come of looks: time and share of the limit."""
    trigger = Trigger()
    found = ((time_s, trigger.look(time_s, at(share))) for time_s, share in looks)
    return [(time_s, why) for time_s, why in found if why is not None]


def test_each_share_counts_once_on_the_way_up() -> None:
    """Slow growth: at 70, 85 and 95 percent, whatever comes between."""
    looks = [(float(second * 20), 0.5 + 0.01 * second) for second in range(50)]
    assert [why for _, why in story(*looks)] == [
        "memory at 70% of the limit",
        "memory at 85% of the limit",
        "memory at 95% of the limit",
    ]


def test_a_share_counts_again_after_memory_has_fallen() -> None:
    """Not while it trembles around it, but when it was five points below."""
    looks = [(0.0, 0.69), (100.0, 0.71), (200.0, 0.69), (300.0, 0.71), (400.0, 0.64), (500.0, 0.71)]
    assert [time_s for time_s, _ in story(*looks)] == [100.0, 500.0]


def test_sudden_growth_counts_once_in_its_time() -> None:
    """A tenth of the limit within half a minute."""
    looks = [(0.0, 0.2), (10.0, 0.25), (20.0, 0.31), (25.0, 0.33), (60.0, 0.34), (70.0, 0.45)]
    assert story(*looks) == [
        (20.0, "memory grew by 11% of the limit within 30 s"),
        (70.0, "memory grew by 11% of the limit within 30 s"),
    ]


def test_pressure_counts_when_it_begins() -> None:
    """Ten percent of the last ten seconds, once until it has ended."""
    trigger = Trigger()
    found = [trigger.look(0.0, at(0.1, pressure)) for pressure in (0.0, 12.0, 30.0, 2.0, 11.0)]
    assert [why is not None for why in found] == [False, True, False, False, True]
    assert found[1] == "memory pressure: something waited 12 % of ten seconds"


def test_without_a_limit_nothing_is_due() -> None:
    """What cannot be read gives no reason."""
    nothing = Reading(False, None, None, None, None)
    assert Trigger().look(0.0, nothing) is None
    assert Trigger().look(0.0, Reading(True, 5000, None, 0, None)) is None


def test_version_2_of_the_interface_is_read(tmp_path: Path) -> None:
    """Usage, limit, kills and the group's own pressure."""
    group = tmp_path / "sys/fs/cgroup/app"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("900\n")
    (group / "memory.max").write_text("1000\n")
    (group / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n")
    (group / "memory.pressure").write_text("some avg10=7.50 avg60=1.00 avg300=0.10 total=9\n")
    (tmp_path / "proc/42").mkdir(parents=True)
    reading = Gauge(42, MemoryGroup(group, group, 2), tmp_path).read()
    assert reading == Reading(True, 800, 1000, 2, 7.5)
    assert reading.share == 0.8


def test_version_1_of_the_interface_is_read(tmp_path: Path) -> None:
    """The machine's pressure stands for the group's, which version 1 does not tell."""
    group = tmp_path / "memory/app"
    group.mkdir(parents=True)
    (group / "memory.usage_in_bytes").write_text("900\n")
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (group / "memory.stat").write_text("total_inactive_file 100\n")
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/pressure/memory").write_text("some avg10=1.25 avg60=0 avg300=0 total=0\n")
    assert Gauge(7, MemoryGroup(group, group, 1), tmp_path).read() == Reading(
        False, 800, 1000, 1, 1.25
    )


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """No group and no process."""
    assert Gauge(None, None, tmp_path).read() == Reading(False, None, None, None, None)


def test_the_shelf_is_bounded_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go by number and by size; the last profile always stays."""
    monkeypatch.setattr("stanch.sidecar.shelf.MOST_FILES", 3)
    monkeypatch.setattr("stanch.sidecar.shelf.MOST_BYTES", 250)
    shelf = Shelf(tmp_path / "kept")
    shelf.keep_last(b"first")
    shelf.keep_last(b"last")
    for number in range(5):
        path = shelf.keep(f"{number}.pb.gz", b"x" * 100)
        os.utime(path, (number, number))
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["3.pb.gz", "4.pb.gz", "last.pb.gz"]
    assert shelf.last.read_bytes() == b"last"
    assert shelf.last.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
