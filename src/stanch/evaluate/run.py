"""Plays a spec on several processes and sums it up."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

from stanch.evaluate.detectors import Detector, Stanch
from stanch.evaluate.metrics import summary
from stanch.evaluate.play import Result, play_task, tasks_of
from stanch.evaluate.rivals import RIVALS
from stanch.evaluate.spec import Spec

DETECTORS: tuple[Callable[[], Detector], ...] = (Stanch, *RIVALS)


def play_all(
    spec: Spec,
    *,
    detectors: Sequence[Callable[[], Detector]] = DETECTORS,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Result]:
    """Play every episode of a spec. progress: told how many are done, of how many."""
    tasks = tasks_of(spec)
    one = partial(play_task, spec=spec, detectors=detectors)
    results: list[Result] = []
    if jobs <= 1:
        for task in tasks:
            results.append(one(task))
            progress(len(results), len(tasks))
        return results
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for result in pool.map(one, tasks, chunksize=2):
            results.append(result)
            progress(len(results), len(tasks))
    return results


def evaluate(
    spec: Spec,
    *,
    detectors: Sequence[Callable[[], Detector]] = DETECTORS,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Play a spec and give the metrics of every detector, as JSON-able values."""
    began_s = time.monotonic()
    results = play_all(spec, detectors=detectors, jobs=jobs, progress=progress)
    names = list(results[0].said) if results else []
    return {
        "spec": spec.to_dict(),
        "episodes": len(results),
        "looks": sum(one.looks for one in results),
        "elapsed_s": round(time.monotonic() - began_s, 1),
        "detectors": {name: summary(results, name) for name in names},
    }
