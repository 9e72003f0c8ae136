"""One episode: a simulated service from its earlier lives to its death or the end of the day."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from stanch.evaluate.detectors import PROCESS, Accusation, Detector, Opinion
from stanch.evaluate.process import Process
from stanch.evaluate.services import Service, Truth, healthy_service, leaking_service
from stanch.evaluate.spec import BANDS, HEALTHY, LEAKS, Spec
from stanch.store import MemoryStore

_HISTORY_LOOKS = 40
_REST_S = 5.0
"""Between the end of a life and the start of the next."""

_FORECASTS_FROM = 0.1
"""Forecasts count from this share of the time to death on; before, nothing is known of a leak."""


@dataclass(slots=True)
class Said:
    """What one detector said in an episode; ages are seconds of the watched process.

    right_s: the first right accusation, infinite without one. credit: of the line, the best in the
    first right opinion: 1 for a cause, 0.5 for what only allocates, 0 for the process as a whole.
    rate: told then, of the true one. wrong: functions accused that do not leak. forecasts: age,
    soonest, likely, latest seconds to death. trials: probability told, and whether it was true.
    kind: given last to what leaks, or to the healthy service.
    """

    right_s: float = math.inf
    credit: float = 0.0
    rate: float | None = None
    wrong: dict[str, float] = field(default_factory=dict)
    forecasts: list[tuple[float, float, float, float]] = field(default_factory=list)
    trials: list[tuple[float, bool]] = field(default_factory=list)
    kind: str = "nothing"


@dataclass(frozen=True, slots=True)
class Result:
    """An episode: the truth, when it died (age, None if it did not), how long it was watched."""

    truth: Truth
    died_s: float | None
    watched_s: float
    looks: int
    said: dict[str, Said]

    def share(self, at_s: float) -> float:
        """A time as a share of the time from the onset of the leak to death."""
        if self.died_s is None or not math.isfinite(at_s):
            return math.inf
        return (at_s - self.truth.onset_s) / (self.died_s - self.truth.onset_s)


@dataclass(frozen=True, slots=True)
class Task:
    """An episode to be played: of a leak in a band of rates, or of a healthy kind ("" for band)."""

    kind: str
    band: str
    number: int


def tasks_of(spec: Spec) -> list[Task]:
    """All episodes of a spec."""
    leaks = [
        Task(kind, band, number) for kind in LEAKS for band in BANDS for number in range(spec.leaks)
    ]
    return leaks + [Task(kind, "", number) for kind in HEALTHY for number in range(spec.healthy)]


def play_task(task: Task, spec: Spec, detectors: Sequence[Callable[[], Detector]]) -> Result:
    """Play one episode. The same spec and task give the same result."""
    which = ([str(kind) for kind in LEAKS] if task.band else [str(kind) for kind in HEALTHY]).index(
        task.kind
    ) + (0 if task.band else 100)
    band = list(BANDS).index(task.band) if task.band else 0
    rng = np.random.default_rng([spec.seed, which, band, task.number])
    for kind in LEAKS:
        if task.band and kind == task.kind:
            service = leaking_service(kind, task.band, BANDS[task.band], rng, spec)
    for healthy in HEALTHY:
        if not task.band and healthy == task.kind:
            service = healthy_service(healthy, rng, spec)
    return play(service, rng, [make() for make in detectors])


def play(service: Service, rng: np.random.Generator, detectors: Sequence[Detector]) -> Result:
    """Play a service; every detector judges the same series at every look of the watched life."""
    truth, store, now_s, pid = service.truth, MemoryStore(), 1000.0, 100
    for length_s in service.history:
        died = math.isinf(length_s)
        process = _life(service, rng, now_s, pid, is_last=died)
        until_s = service.until_s if died else length_s
        every_s = service.every_s if died else max(length_s / _HISTORY_LOOKS, service.every_s)
        for look in process.looks(until_s, every_s):
            store.add(look)
        now_s, pid = now_s + process.now_s + _REST_S, pid + 1
    said = {detector.name: Said() for detector in detectors}
    ages = [service.until_s]
    if service.deploy_s is not None:
        ages = [service.deploy_s, service.until_s - service.deploy_s]
    looks, watched_s = 0, 0.0
    for until_s in ages:
        process = _life(service, rng, now_s, pid, is_last=True)
        for look in process.looks(until_s, service.every_s):
            looks += 1
            store.add(look)
            series = store.series(process.service)
            for detector in detectors:
                opinion = detector.judge(series, partial(process.inspect, opaque=truth.opaque))
                _note(said[detector.name], opinion, truth, process.now_s)
        now_s, pid, watched_s = now_s + process.now_s + _REST_S, pid + 1, watched_s + process.now_s
    return Result(truth, process.now_s if process.dead else None, watched_s, looks, said)


def _life(
    service: Service, rng: np.random.Generator, born_s: float, pid: int, *, is_last: bool
) -> Process:
    process = service.build(rng, is_last)
    process.born_s, process.pid = born_s, pid
    process.release = "2.0" if is_last else "1.0"
    return process


def _note(said: Said, opinion: Opinion, truth: Truth, now_s: float) -> None:
    begun = truth.leaks and now_s > truth.onset_s
    right = [one for one in opinion.accused if begun and _credit(one, truth) is not None]
    for one in opinion.accused:
        if one not in right:
            said.wrong.setdefault(one.where, now_s)
    if right and math.isinf(said.right_s):
        best = max(right, key=lambda one: _credit(one, truth) or 0.0)
        said.right_s, said.credit, said.rate = now_s, _credit(best, truth) or 0.0, best.rate
    for one in right[:1]:
        if one.seconds_to_death is not None:
            said.forecasts.append((now_s, *one.seconds_to_death))
    for one in (*opinion.accused, *opinion.suspected):
        if one.probability is not None:
            said.trials.append((one.probability, begun and _credit(one, truth) is not None))
    meant = truth.causes | truth.allocating
    kinds = [kind for where, kind in opinion.classes if not truth.leaks or where in meant]
    said.kind = kinds[0] if kinds else "nothing"


def _credit(one: Accusation, truth: Truth) -> float | None:
    """What an accusation is worth; None when it is false."""
    if one.where in truth.causes:
        return 1.0
    if one.where in truth.allocating:
        return 0.5
    return 0.0 if one.where == PROCESS else None


def counted_forecasts(result: Result, said: Said) -> list[tuple[float, float, float, float]]:
    """Of each forecast that counts: the truth, soonest, likely and latest, in seconds."""
    if result.died_s is None:
        return []
    return [
        (result.died_s - at_s, soonest, likely, latest)
        for at_s, soonest, likely, latest in said.forecasts
        if result.share(at_s) >= _FORECASTS_FROM
    ]
