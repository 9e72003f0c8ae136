"""CPU and peak memory of a workload under a tool, against the same without."""

import random
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.peers.runs import Run
from benchmarks.peers.tools import Tool

RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Ratio:
    """CPU with the tool / CPU without, and between which bounds it lies.

    Of pairs: the median, and its 95 % interval by bootstrap. Of whole runs: median and extremes.
    """

    middle: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, slots=True)
class Whole:
    """One run with the tool on from the beginning; file_bytes is what it keeps on disk then."""

    rounds: int
    cpu_s: float
    peak_bytes: int
    file_bytes: int


def in_pairs(tool: Tool, library: Path, workload: str, seconds: float) -> Ratio:
    """Measure inside one process with the tool on and off in turn. Raises RunError."""
    with Run(tool, library, "pairs", workload, str(seconds)) as run:
        ratios = run.answer()["ratios"]
    chance = random.Random(1)
    medians = sorted(median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    edge = RESAMPLES // 40
    return Ratio(median(ratios), medians[edge], medians[-1 - edge], len(ratios))


def whole(tool: Tool, library: Path, workload: str, seconds: float, rounds: int) -> Whole:
    """Run a workload once; with rounds 0 as many as take `seconds`. Raises RunError."""
    with Run(tool, library, "whole", workload, str(seconds), str(rounds)) as run:
        return Whole(**run.answer())


def of_runs(under: list[Whole], plain: list[Whole]) -> Ratio:
    """Compare runs that took turns."""
    ratios = [a.cpu_s / b.cpu_s for a, b in zip(under, plain, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios), len(ratios))
