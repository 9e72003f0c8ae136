"""Live bytes by time of birth, in a bounded number of bands."""

import numpy as np
import pytest

from stanch.store.births import BirthTable
from tests.store.looks import stack

A = stack("a")


def test_a_band_settles_when_it_has_been_closed_for_its_width() -> None:
    """Of bands of 5 s seen at 12 s, the first has settled and keeps that value later."""
    table = BirthTable(max_bands=8)
    table.update(12.0, [(A, [(0.0, 100.0), (5.0, 50.0)])])
    table.update(13.0, [(A, [(0.0, 90.0), (5.0, 50.0)])])
    series = table.series([A])
    assert series.edges_s.tolist() == [0.0, 5.0, 10.0, 15.0]
    assert series.live_bytes.tolist() == [[90.0, 50.0, 0.0]]
    assert series.settled_bytes[0, 0] == 100.0
    assert np.isnan(series.settled_bytes[0, 1:]).all()


def test_what_died_before_it_settled_was_never_there() -> None:
    """A band whose bytes have gone before it is closed for its width settles at 0."""
    table = BirthTable(max_bands=8)
    table.update(4.0, [(A, [(0.0, 100.0)])])
    table.update(11.0, [(A, [(5.0, 1.0)])])
    assert table.series([A]).settled_bytes[0, 0] == 0.0


def test_bands_double_when_there_are_too_many() -> None:
    """At 41 s eight bands of 5 s are five of 10 s with the same bytes."""
    table = BirthTable(max_bands=8)
    births = [(5.0 * band, 10.0) for band in range(8)]
    table.update(39.0, [(A, births)])
    table.update(41.0, [(A, [*births, (40.0, 7.0)])])
    series = table.series([A])
    assert series.edges_s.tolist() == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    assert series.live_bytes.tolist() == [[20.0, 20.0, 20.0, 20.0, 7.0]]
    assert series.settled_bytes[0, :3].tolist() == [20.0, 20.0, 20.0]


def test_a_week_fits() -> None:
    """A life of a week keeps its bands in bounds and its bytes whole."""
    table = BirthTable(max_bands=8)
    week = 7 * 86400.0
    table.update(week, [(A, [(second, 1.0) for second in np.arange(0.0, week, 600.0).tolist()])])
    series = table.series([A])
    assert series.live_bytes.shape[1] <= 8
    assert series.live_bytes.sum() == week / 600.0


def test_births_beyond_the_ends_go_to_the_nearest_band() -> None:
    """A birth before the zero, or in the future of a skewed clock, is not lost."""
    table = BirthTable(max_bands=8)
    table.update(12.0, [(A, [(-30.0, 1.0), (99.0, 2.0)])])
    assert table.series([A]).live_bytes.tolist() == [[1.0, 0.0, 2.0]]


def test_stacks_without_births_are_zero_and_others_can_be_forgotten() -> None:
    """An unknown stack has a row of zeros, and so has one that was forgotten."""
    table = BirthTable(max_bands=8)
    table.update(12.0, [(A, [(0.0, 1.0)])])
    table.forget_all_but(set())
    assert table.series([A, stack("b")]).live_bytes.sum() == 0.0


def test_an_odd_number_of_bands_is_refused() -> None:
    """Bands are merged in pairs, so their number must be even."""
    with pytest.raises(ValueError, match="max_bands is 7; expected an even number"):
        BirthTable(max_bands=7)
