"""Detection on simulated fleets, with the noise of the sampler. See fleet_report for more seeds."""

import pytest

from tests.detect.episodes import HEALTHY, healthy_episode, leaky_episode
from tests.detect.fleet_report import UNTUNED

SEEDS = range(UNTUNED, UNTUNED + 4)
EVEN = ("plain", "with cache", "native", "tasks", "container", "go", "split")


@pytest.mark.parametrize("kind", EVEN)
def test_even_leaks_are_confirmed_in_the_first_half_of_a_life(kind: str) -> None:
    """Every leak of a life of 90 s is confirmed by half of it, and nothing else is."""
    outcomes = [leaky_episode(kind, seed) for seed in SEEDS]
    # A Go heap is known as of its last collection, so one in four may come a little later.
    late = [one for one in outcomes if one.share_of_life > (0.55 if kind == "go" else 0.5)]
    assert late == []
    assert [one.accused for one in outcomes] == [()] * len(outcomes)


@pytest.mark.parametrize("kind", ["diurnal", "late"])
def test_uneven_leaks_are_confirmed_before_death(kind: str) -> None:
    """A leak that swings with the load, or begins late, is confirmed before it kills."""
    outcomes = [leaky_episode(kind, seed) for seed in SEEDS]
    assert all(one.share_of_life < 0.9 for one in outcomes)


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_processes_are_never_accused(kind: str) -> None:
    """Caches, warm-up, load, batches and their mixtures pass as what they are."""
    outcomes = [healthy_episode(kind, seed) for seed in SEEDS]
    assert [one.accused for one in outcomes] == [()] * len(outcomes)


@pytest.mark.parametrize(("life_s", "looks"), [(2400.0, 240), (6 * 86400.0, 120)])
def test_time_has_no_scale(life_s: float, looks: int) -> None:
    """A leak of 40 minutes or six days, often looked at, is found as one of 90 s is."""
    leak = leaky_episode("plain", UNTUNED, life_s, looks)
    assert leak.share_of_life <= 0.5
    healthy = healthy_episode("warm-up and cache", UNTUNED, life_s, looks)
    assert healthy.accused == ()
