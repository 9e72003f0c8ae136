"""How detection fares on simulated fleets: `python -m tests.detect.fleet_report [SEEDS [FIRST]]`.

Prints, per kind of leak, the share confirmed in the first half of a life, and per kind of healthy
process how many were accused. The tests play a few of the same episodes. Detection was tuned on
seeds below 1,000; a report is of seeds from 1,000 on unless FIRST says otherwise.
"""

import sys

import numpy as np

from tests.detect.episodes import HEALTHY, LEAKS, Outcome, healthy_episode, leaky_episode

UNTUNED = 1000


def leak_line(kind: str, outcomes: list[Outcome]) -> str:
    """One kind of leak."""
    shares = np.array([outcome.share_of_life for outcome in outcomes])
    accused = sum(bool(outcome.accused) for outcome in outcomes)
    return (
        f"{kind:18} confirmed in the first half {np.mean(shares <= 0.5):4.0%}, before death"
        f" {np.mean(np.isfinite(shares)):4.0%}, median at {np.median(shares):.0%} of the life;"
        f" others accused in {accused}"
    )


def healthy_line(kind: str, outcomes: list[Outcome]) -> str:
    """One kind of healthy process."""
    accused = sum(bool(outcome.accused) for outcome in outcomes)
    died = sum(outcome.died_s is not None for outcome in outcomes)
    return f"{kind:18} accused {accused} of {len(outcomes)}, {died} died"


def main(seeds: int = 20, first: int = UNTUNED, life_s: float = 90.0, looks: int = 35) -> None:
    """Print the report."""
    chosen = range(first, first + seeds)
    print(f"{seeds} episodes of each kind, a leak takes {life_s:g} s, {looks} looks in that time")
    for kind in LEAKS:
        print(leak_line(kind, [leaky_episode(kind, seed, life_s, looks) for seed in chosen]))
    for kind in HEALTHY:
        print(healthy_line(kind, [healthy_episode(kind, seed, life_s, looks) for seed in chosen]))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
