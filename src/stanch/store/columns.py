"""Bounded history: a table of rows by looks that thins out its older half when it is full.

Rows are keyed by whatever the caller likes (stacks, names). The number of rows is bounded too:
the smallest are summed into one row for the rest.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import numpy as np

from stanch.store.series import Floats

Key = TypeVar("Key", bound=Hashable)

_FIRST_ROWS = 32


def kept_after_thinning(columns: int) -> list[int]:
    """Which of `columns` columns stay: the newer half, and every second one of the older half.

    The first column always stays, so a series never forgets where it began.
    """
    half = columns // 2
    return [*range(0, half, 2), *range(half, columns)]


class Table(Generic[Key]):
    """Values by key and by look, at most `max_rows` keys and `max_columns` looks.

    A key that appears later counts as 0 before. When there are more keys than rows, those with
    the smallest largest values lose their row: their numbers go on in the row of the rest. A key
    that later needs a row again begins at its present value: a rise is never made up.
    """

    def __init__(self, layers: int, max_rows: int, max_columns: int) -> None:
        self._layers = layers
        self._max_rows = max_rows
        self._max_columns = max_columns
        self._rows: dict[Key, int] = {}
        self._crowded = False
        self._values = np.zeros((layers, _FIRST_ROWS, max_columns))
        self._rest = np.zeros((layers, max_columns))
        self._columns = 0

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys with a row of their own, in the order of the rows."""
        return tuple(self._rows)

    @property
    def crowded(self) -> bool:
        """Whether some keys had to go into the row of the rest."""
        return self._crowded

    def layer(self, index: int) -> Floats:
        """A copy of one layer: (rows, looks)."""
        return self._values[index, : len(self._rows), : self._columns].copy()

    def rest(self, index: int) -> Floats:
        """A copy of one layer of the row of the rest: (looks,)."""
        return self._rest[index, : self._columns].copy()

    def append(self, values: Mapping[Key, tuple[float, ...]]) -> tuple[int, ...]:
        """Add a look: one number per layer for each key; keys without are 0 in it.

        Gives the positions of the former columns that were kept, all of them unless thinned, so
        that parallel series can follow.
        """
        kept = self._make_room()
        column = self._columns
        self._columns += 1
        self._values[:, :, column] = 0.0
        self._rest[:, column] = 0.0
        for key in self._admit(values):
            self._values[:, self._rows[key], column] = values[key]
        left_over = [numbers for key, numbers in values.items() if key not in self._rows]
        if left_over:
            self._rest[:, column] = np.sum(left_over, axis=0)
        return kept

    def repeat(self) -> tuple[int, ...]:
        """Add a look about which nothing new is known: the last one again."""
        kept = self._make_room()
        column = self._columns
        self._columns += 1
        if column:
            self._values[:, :, column] = self._values[:, :, column - 1]
            self._rest[:, column] = self._rest[:, column - 1]
        return kept

    def _make_room(self) -> tuple[int, ...]:
        if self._columns < self._max_columns:
            return tuple(range(self._columns))
        kept = kept_after_thinning(self._columns)
        self._values[:, :, : len(kept)] = self._values[:, :, kept]
        self._rest[:, : len(kept)] = self._rest[:, kept]
        self._columns = len(kept)
        return tuple(kept)

    def _admit(self, values: Mapping[Key, tuple[float, ...]]) -> list[Key]:
        """Give rows to the keys that deserve one; returns the keys of `values` that have a row."""
        new = [key for key in values if key not in self._rows]
        free = self._max_rows - len(self._rows)
        if len(new) > free:
            new = self._evict_for(new, values)
        for key in new:
            self._add_row(key, values[key])
        return [key for key in values if key in self._rows]

    def _evict_for(self, new: list[Key], values: Mapping[Key, tuple[float, ...]]) -> list[Key]:
        """Keep the largest of old and new rows, by their largest first layer in the last looks."""
        recent = self._values[0, : len(self._rows), max(0, self._columns - 4) : self._columns]
        size: dict[Key, float] = {
            key: max(float(recent[row].max()), values.get(key, (0.0,))[0])
            for key, row in self._rows.items()
        }
        size |= {key: values[key][0] for key in new}
        # At most one row in eight changes hands at a time, so that histories can grow long.
        most_new = self._max_rows - len(self._rows) + self._max_rows // 8
        new = sorted(new, key=lambda key: size[key], reverse=True)[:most_new]
        ranked = sorted([*self._rows, *new], key=lambda key: size[key], reverse=True)
        keep = set(ranked[: self._max_rows])
        evicted = [key for key in self._rows if key not in keep]
        self._crowded = True
        for key in evicted:
            self._rest[:, : self._columns] += self._values[:, self._rows[key], : self._columns]
        stay = [key for key in self._rows if key in keep]
        order = [self._rows[key] for key in stay]
        self._values[:, : len(order)] = self._values[:, order]
        self._values[:, len(order) :] = 0.0
        self._rows = {key: row for row, key in enumerate(stay)}
        return [key for key in new if key in keep]

    def _add_row(self, key: Key, first: tuple[float, ...]) -> None:
        row = len(self._rows)
        if row == self._values.shape[1]:
            more = np.zeros((self._layers, min(row, self._max_rows - row), self._max_columns))
            self._values = np.concatenate([self._values, more], axis=1)
        self._rows[key] = row
        before = np.array(first)[:, None] if self._crowded else 0.0
        self._values[:, row, : self._columns] = before
