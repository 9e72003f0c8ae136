"""Fits what detection takes from episodes: `python -m eval.calibrate [SEED]`; prints the numbers.

The weights of the confidence go to stanch/detect/confidence.py, the factor of the forecast's
interval to stanch/detect/forecast.py. It plays the tuning seed; reports are of other seeds.
"""

import math
import sys

import numpy as np

from stanch.detect import Settings
from stanch.detect.confidence import _WEIGHTS, features
from stanch.detect.finding import LEAKS
from stanch.detect.forecast import FACTOR
from stanch.detect.service import judgements_of
from stanch.evaluate.detectors import Accusation, Inspect, Opinion, Stanch
from stanch.evaluate.metrics import counted_forecasts
from stanch.evaluate.play import Result
from stanch.evaluate.run import play_all
from stanch.evaluate.spec import TUNING_SEED, Spec
from stanch.store.series import ServiceSeries

COVERAGE = 0.90


class Recorder(Stanch):
    """Stanch, whose probabilities are replaced by the features they come from."""

    name = "recorder"

    def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
        """As Stanch does; every cause that looks like a leak is suspected with its features."""
        opinion = super().judge(series, inspect)
        judgements, _, _ = judgements_of(series, Settings(), self.holders)
        seen = [
            Accusation(cause.place.function, probability=features(cause))  # type: ignore[arg-type]
            for judgement in judgements
            for cause in judgement.causes
            if cause.leaks and cause.kind in LEAKS
        ]
        accused = tuple(
            Accusation(one.where, one.rate, one.seconds_to_death) for one in opinion.accused
        )
        return Opinion(accused=accused, suspected=tuple(seen), classes=opinion.classes)


def fitted(trials: list[list[tuple[tuple[float, ...], bool]]]) -> list[float]:
    """Weights of a logistic regression with a small ridge; every episode counts once."""
    rows = np.array([each for one in trials for each, _ in one])
    truth = np.array([float(true) for one in trials for _, true in one])
    weight = np.array([1 / len(one) for one in trials for _ in one])
    weights = np.zeros(rows.shape[1])
    for _ in range(50):
        told = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (weight * (truth - told)) - 0.5 * weights
        curve = (rows * (weight * told * (1 - told))[:, None]).T @ rows + 0.5 * np.eye(len(weights))
        weights = weights + np.linalg.solve(curve, slope)
    return [float(one) for one in weights]


def main(seed: int = TUNING_SEED, jobs: int = 2, leaks: int = 3, healthy: int = 8) -> None:
    """Play and print."""
    spec = Spec(seed=seed, leaks=leaks, healthy=healthy)
    results = play_all(spec, detectors=(Recorder,), jobs=jobs)
    calibrate(results)


def calibrate(results: list[Result]) -> None:
    """Print the weights and the factor that fit these episodes."""
    said = [one.said["recorder"] for one in results]
    trials = [one.trials for one in said if one.trials]
    for (name, _), weight in zip(_WEIGHTS, fitted(trials), strict=True):
        print(f'    ("{name}", {weight:.2f}),')
    # Conformal: the factor by which the interval's spread must be multiplied so that it holds the
    # truth in nine of ten episodes.
    scores, weights = [], []
    for one in results:
        told = counted_forecasts(one, one.said["recorder"])
        for truth, low, mid, _ in told:
            if low <= 0 or truth <= 0:
                continue
            spread = max(math.log(mid / low), 1e-9) / FACTOR
            scores.append(abs(math.log(max(truth, 1e-3) / mid)) / spread)
            weights.append(1 / len(told))
    order = np.argsort(scores)
    reached = np.cumsum(np.array(weights)[order]) / sum(weights)
    factor = np.array(scores)[order][int(np.searchsorted(reached, COVERAGE))]
    print(f"FACTOR = {factor:.2f}  # {sum(weights):.0f} episodes")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
