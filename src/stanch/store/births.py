"""Bytes still alive by time of birth, per stack, in a bounded number of bands.

A band is as wide as the agent's (five seconds) until there are too many; then neighbours are
added up and the width doubles. So a band is always a small share of the life, whether that lasts
a minute or a week.
"""

from collections.abc import Collection, Iterable

import numpy as np

from stanch.store.model import BIRTH_BAND_S, Stack
from stanch.store.series import Births, Floats


class BirthTable:
    """For each stack two rows over the bands: alive at the last look, and alive once settled."""

    def __init__(self, max_bands: int) -> None:
        if max_bands % 2:
            raise ValueError(f"max_bands is {max_bands}; expected an even number")
        self._max_bands = max_bands
        self._width_s = BIRTH_BAND_S
        self._live: dict[Stack, Floats] = {}
        self._settled: dict[Stack, Floats] = {}
        self._bands = 0

    def update(
        self, now_s: float, births: Iterable[tuple[Stack, Iterable[tuple[float, float]]]]
    ) -> None:
        """Take the births of a look at `now_s` on the life's clock; earlier looks are replaced.

        Births after `now_s` or before the life's zero go to the nearest band there is.
        """
        while now_s >= self._width_s * self._max_bands:
            self._coarsen()
        self._bands = max(self._bands, int(max(now_s, 0.0) / self._width_s) + 1)
        self._live = {}
        for stack, bands in births:
            row = self._live.get(stack)
            if row is None:
                row = self._live[stack] = np.zeros(self._max_bands)
            for second, live in bands:
                row[min(max(int(second / self._width_s), 0), self._bands - 1)] += live
        # A band has settled when it has been closed for one width.
        closed = max(0, min(int(now_s / self._width_s) - 1, self._bands))
        for stack in self._live:
            if stack not in self._settled:
                self._settled[stack] = np.full(self._max_bands, np.nan)
        for stack, settled in self._settled.items():
            fresh = np.isnan(settled[:closed])
            if fresh.any():
                live_row = self._live.get(stack)
                settled[:closed][fresh] = 0.0 if live_row is None else live_row[:closed][fresh]

    def forget_all_but(self, stacks: Collection[Stack]) -> None:
        """Drop the rows of other stacks."""
        self._live = {stack: row for stack, row in self._live.items() if stack in stacks}
        self._settled = {stack: row for stack, row in self._settled.items() if stack in stacks}

    def series(self, stacks: Iterable[Stack]) -> Births:
        """The rows in the order of `stacks`; zeros for a stack without births."""
        nothing = np.zeros(self._max_bands)
        live = [self._live.get(stack, nothing) for stack in stacks]
        settled = [self._settled.get(stack, nothing) for stack in stacks]
        shape = (len(live), self._max_bands)
        return Births(
            edges_s=np.arange(self._bands + 1, dtype=np.float64) * self._width_s,
            live_bytes=np.array(live).reshape(shape)[:, : self._bands],
            settled_bytes=np.array(settled).reshape(shape)[:, : self._bands],
        )

    def _coarsen(self) -> None:
        self._width_s *= 2
        self._bands = (self._bands + 1) // 2
        for table in (self._live, self._settled):
            for stack, row in table.items():
                halved = np.zeros(self._max_bands)
                halved[: self._max_bands // 2] = row.reshape(-1, 2).sum(axis=1)
                if table is self._settled:
                    halved[self._max_bands // 2 :] = np.nan
                table[stack] = halved
