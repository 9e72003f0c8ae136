"""Detection on simulated services, with the noise of the sampler. `stanch evaluate` plays more."""

import pytest

from stanch.evaluate.detectors import Stanch
from stanch.evaluate.play import Result, Task, play_task
from stanch.evaluate.spec import BANDS, HEALTHY, Spec

SPEC = Spec(looks_per_life=40, day_every_s=1200.0)
EVEN = ("plain", "with cache", "native", "tasks", "container", "go", "split")


def played(kind: str, band: str, numbers: range) -> list[Result]:
    """Episodes of a kind."""
    return [play_task(Task(kind, band, number), SPEC, (Stanch,)) for number in numbers]


def accused(results: list[Result]) -> list[str]:
    """Everything accused that does not leak."""
    return [where for one in results for where in one.said["stanch"].wrong]


@pytest.mark.parametrize("kind", EVEN)
def test_even_leaks_are_confirmed_in_the_first_half_of_a_life(kind: str) -> None:
    """A leak of any pace is confirmed by half of the time to death, and nothing else is."""
    results = [one for band in BANDS for one in played(kind, band, range(1))]
    # A Go heap is known as of its last collection, so it may come a little later.
    late = 0.55 if kind == "go" else 0.5
    assert [one.share(one.said["stanch"].right_s) for one in results if one.died_s] != []
    assert all(one.share(one.said["stanch"].right_s) <= late for one in results)
    assert accused(results) == []


@pytest.mark.parametrize("kind", ["diurnal", "late"])
def test_uneven_leaks_are_confirmed_before_death(kind: str) -> None:
    """A leak that swings with the load, or begins late, is confirmed before it kills."""
    results = played(kind, "0.1-1 %/min", range(3))
    assert all(one.share(one.said["stanch"].right_s) < 0.9 for one in results)


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_services_are_never_accused(kind: str) -> None:
    """Caches, warm-up, load, batches and their mixtures pass as what they are, for two days.

    In its first life an even filling of a quarter of the room may be accused (docs/detection.md):
    how often is measured by `stanch evaluate`.
    """
    known = [one for one in played(kind, "", range(3)) if one.truth.history != "none"]
    assert len(known) >= 2
    assert accused(known[:2]) == []
