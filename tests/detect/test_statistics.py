"""Noise bounds, forecasts and growth by thirds."""

import math

import numpy as np
import pytest

from stanch.detect.forecast import memory_slope, time_to_limit
from stanch.detect.growth import Growth, growth_by_birth, growth_by_level, requests_served
from stanch.detect.significance import noise_bound, weight_variance
from stanch.store import Births


def test_the_noise_of_small_objects_is_the_period_and_of_large_ones_none() -> None:
    """Variance per byte goes from the period down to zero as objects grow."""
    period = 512 * 1024.0
    per_byte = weight_variance(np.array([100.0, period, 100 * period, np.nan]), period)
    assert per_byte[0] == pytest.approx(period, rel=1e-3)
    assert per_byte[1] == pytest.approx(period / (math.e - 1))
    assert per_byte[2] == pytest.approx(0.0, abs=1e-30)
    assert per_byte[3] == pytest.approx(period, rel=1e-3)


def test_noise_alone_passes_the_bound_as_rarely_as_promised() -> None:
    """Of 4,000 random walks of samples that come and go, watched at every step, few ever pass."""
    rng = np.random.default_rng(1)
    steps = rng.choice([-1.0, 1.0], size=(4000, 1500))
    walks = np.abs(np.cumsum(steps, axis=1))
    bounds = np.array([noise_bound(float(count), 1.0, 0.05) for count in range(1, 1501)])
    passed = (walks >= bounds).any(axis=1).mean()
    assert passed <= 0.05
    # It is a bound, not a wall: a test that could not fail would prove nothing.
    assert ((walks >= bounds * 0.6).any(axis=1)).mean() > 0.05


def test_a_straight_line_is_forecast_exactly() -> None:
    """Memory of 100 at t=10 growing by 2 a second reaches 160 in 30 s."""
    time_s = np.arange(11.0)
    slope = memory_slope(time_s, 80 + 2 * time_s, since_s=0.0)
    assert slope is not None
    death = time_to_limit(slope, 100.0, 160.0, horizon_s=1e6)
    assert death is not None
    soonest, likely, latest = death
    assert likely == pytest.approx(30.0)
    # Even a perfect line may bend: the interval is never a point.
    assert 15.0 < soonest < 30.0 < latest < 60.0


def test_the_interval_covers_the_death_of_noisy_lines() -> None:
    """Over 300 lines with noise, the true time is within the interval nearly always."""
    rng = np.random.default_rng(2)
    time_s = np.arange(0.0, 60.0, 2.5)
    hits = 0
    for _ in range(300):
        memory = 50 + time_s + rng.normal(0.0, 1.5, time_s.size)
        slope = memory_slope(time_s, memory, since_s=0.0)
        assert slope is not None
        death = time_to_limit(slope, 50 + time_s[-1], 160.0, horizon_s=1e6)
        assert death is not None
        hits += death[0] <= 160.0 - 50.0 - time_s[-1] <= death[2]
    assert hits > 0.9 * 300


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e-9])
def test_no_death_is_forecast_without_growth_or_beyond_the_horizon(rate: float) -> None:
    """Flat, falling or hardly rising memory has no end in sight."""
    time_s = np.arange(11.0)
    slope = memory_slope(time_s, 80 + rate * time_s, since_s=0.0)
    assert slope is not None
    assert time_to_limit(slope, 80.0, 160.0, horizon_s=86400.0) is None


def test_too_few_looks_make_no_slope() -> None:
    """Three points, or more that are unknown, are no line."""
    time_s = np.arange(5.0)
    unknown = np.array([1.0, np.nan, 2.0, np.nan, 3.0])
    assert memory_slope(time_s, unknown, since_s=0.0) is None


def births_of(live: list[float], settled: list[float] | None = None) -> Births:
    """Bands of 5 s of one stack."""
    once = np.array([settled or live], dtype=np.float64)
    return Births(np.arange(len(live) + 1) * 5.0, np.array([live], dtype=np.float64), once)


def by_birth(births: Births) -> Growth:
    """Growth of the one stack, looked at every 2.5 s up to the end of its bands."""
    looks = np.arange(2.5, births.edges_s[-1] + 0.1, 2.5)
    growth = growth_by_birth(births, [0], np.zeros(1), look_times_s=looks, requests=None)
    assert growth is not None
    return growth


def test_growth_by_birth_leaves_out_what_has_not_settled() -> None:
    """The newest band, which may hold work in flight, is not part of the rates."""
    growth = by_birth(births_of([10.0] * 9 + [500.0]))
    assert (growth.onset_s, growth.end_s, growth.now_s) == (0.0, 45.0, 50.0)
    assert growth.rates == pytest.approx((2.0, 2.0, 2.0))
    assert growth.grown == pytest.approx(90.0)
    assert growth.kept == 1.0


def test_growth_begins_where_little_was_before() -> None:
    """A leak that starts at 25 s is measured from there, not from the start of the process."""
    growth = by_birth(births_of([1.0, 0.0, 0.0, 0.0, 0.0, 10.0, 10.0, 10.0, 10.0, 10.0]))
    assert growth.onset_s == 25.0


def test_a_burst_at_the_beginning_is_not_growth() -> None:
    """Of a start that took ten times the later rate, only that rate's part counts."""
    growth = by_birth(births_of([100.0, 100.0, 100.0, *[10.0] * 7]))
    assert growth.grown == pytest.approx(1.25 * 30 + 30 + 30)


def test_what_once_had_settled_and_is_gone_counts_as_lost() -> None:
    """Half of what had settled is alive: kept is a half."""
    growth = by_birth(births_of([5.0] * 8, [10.0] * 8))
    assert growth.kept == 0.5


def test_growth_by_level_starts_at_the_last_low() -> None:
    """After a fall to its lowest, a level grows from there on."""
    time_s = np.arange(12.0)
    level = np.array([5.0, 9.0, 13.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0])
    growth = growth_by_level(time_s, level, requests=None)
    assert growth is not None
    assert growth.onset_s == 3.0
    assert growth.rates == pytest.approx((1.0, 1.0, 1.0))
    assert growth.kept == 1.0


def test_falls_of_a_level_are_what_it_did_not_keep() -> None:
    """A fall by half of the rise leaves a half."""
    time_s = np.arange(8.0)
    level = np.array([0.0, 4.0, 8.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    growth = growth_by_level(time_s, level, requests=None)
    assert growth is not None
    assert growth.kept == pytest.approx(0.5)


@pytest.mark.parametrize(
    "level",
    [[], [1.0], [1.0, 2.0, 3.0], [5.0] * 9, [9.0, 8.0, 7.0, 6.0, 5.0], [np.nan] * 9],
)
def test_no_growth_where_there_is_none(level: list[float]) -> None:
    """Few, flat, falling and unknown levels have no growth."""
    values = np.array(level)
    assert growth_by_level(np.arange(values.size, dtype=float), values, requests=None) is None


def test_requests_never_fall() -> None:
    """A worker that takes its count with it does not make requests unserved."""
    served = requests_served(
        np.array([10.0, 20.0, 30.0, 40.0]),
        np.array([100.0, 200.0, 150.0, 250.0]),
        from_start=True,
    )
    assert served is not None
    assert served.time_s.tolist() == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert served.served.tolist() == [0.0, 100.0, 200.0, 200.0, 300.0]
    nothing = np.array([np.nan, 5.0, np.nan, np.nan])
    assert requests_served(np.arange(4.0), nothing, from_start=True) is None
