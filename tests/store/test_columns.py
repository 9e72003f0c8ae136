"""The bounded table of rows by looks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stanch.store.columns import Table, kept_after_thinning


def test_keys_that_come_later_count_as_zero_before() -> None:
    """A key seen first at the second look has 0 at the first."""
    table: Table[str] = Table(1, max_rows=4, max_columns=8)
    table.append({"old": (5.0,)})
    table.append({"old": (6.0,), "new": (3.0,)})
    assert table.keys == ("old", "new")
    assert table.layer(0).tolist() == [[5.0, 6.0], [0.0, 3.0]]


def test_a_look_without_news_repeats_the_last_one() -> None:
    """`repeat` adds a column like the newest."""
    table: Table[str] = Table(1, max_rows=4, max_columns=8)
    table.repeat()
    table.append({"a": (5.0,)})
    table.repeat()
    assert table.layer(0).tolist() == [[0.0, 5.0, 5.0]]


def test_thinning_keeps_the_first_look_and_the_newer_half() -> None:
    """Of eight columns the older four lose every second one, the first not among them."""
    assert kept_after_thinning(8) == [0, 2, 4, 5, 6, 7]


def test_a_long_life_stays_within_its_columns() -> None:
    """A thousand looks leave at most the columns allowed, the oldest and newest among them."""
    table: Table[str] = Table(1, max_rows=2, max_columns=16)
    times: list[int] = []
    for number in range(1000):
        kept = table.append({"a": (float(number),)})
        times = [times[column] for column in kept] + [number]
    assert table.layer(0)[0].tolist() == [float(time) for time in times]
    assert len(times) <= 16
    assert times[0] == 0
    assert times[-4:] == [996, 997, 998, 999]


def test_the_smallest_lose_their_rows_to_larger_newcomers() -> None:
    """With two rows, a third and larger key takes the row of the smallest, summed into the rest."""
    table: Table[str] = Table(1, max_rows=2, max_columns=8)
    table.append({"large": (50.0,), "small": (1.0,)})
    table.append({"large": (50.0,), "small": (2.0,), "larger": (70.0,)})
    # One row in eight may change hands at a time, which of two is none: it waits in the rest.
    assert table.crowded
    assert set(table.keys) == {"large", "small"}
    assert table.rest(0).tolist() == [0.0, 70.0]


def test_a_key_that_gets_a_row_late_begins_without_a_rise() -> None:
    """A key that displaces another has its first value in all earlier looks too."""
    table: Table[str] = Table(1, max_rows=8, max_columns=8)
    small = {f"s{number}": (float(number + 1),) for number in range(8)}
    table.append(small)
    table.append(small | {"big": (100.0,)})
    assert "big" in table.keys
    assert "s0" not in table.keys
    assert table.layer(0)[table.keys.index("big")].tolist() == [100.0, 100.0]
    assert table.rest(0).tolist() == [1.0, 1.0]


@given(
    st.lists(
        st.dictionaries(st.integers(0, 30), st.floats(0, 1e9), max_size=20),
        min_size=1,
        max_size=40,
    )
)
def test_nothing_is_lost_of_the_newest_look(looks: list[dict[int, float]]) -> None:
    """However crowded, the rows and the rest of the newest column sum to the look."""
    table: Table[int] = Table(1, max_rows=8, max_columns=8)
    for values in looks:
        table.append({key: (value,) for key, value in values.items()})
        total = table.layer(0)[:, -1].sum() + table.rest(0)[-1]
        assert np.isclose(total, sum(values.values()))
        assert len(table.keys) <= 8
