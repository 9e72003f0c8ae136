"""Why requests got slow: each cause by its counters, and silence where none explains it."""

from dataclasses import replace

import pytest

from stanch.detect.slowness import LEAST_INTERVALS, Slowness, Strain, explain

MIB = 1024 * 1024
STEP_S = 5.0
RATE = 20.0


def series(
    latency: list[float],
    *,
    collector: list[float] | None = None,
    pause_s: float = 0.2,
    pressure: list[float] | None = None,
    throttling: list[float] | None = None,
    swap: list[float] | None = None,
) -> list[Strain]:
    """The counters of a service of RATE requests a second, from latency and shares by step."""
    points = [Strain(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 60.0 * MIB)]
    for number, seconds in enumerate(latency):
        last = points[-1]
        gc_s = (collector[number] if collector else 0.0) * STEP_S
        points.append(
            Strain(
                time_s=last.time_s + STEP_S,
                requests=last.requests + RATE * STEP_S,
                request_s=last.request_s + RATE * STEP_S * seconds,
                gc_s=(last.gc_s or 0) + gc_s,
                gc_pauses=(last.gc_pauses or 0) + gc_s / pause_s,
                gc_watched_s=(last.gc_watched_s or 0) + STEP_S,
                pressure_s=(last.pressure_s or 0)
                + (pressure[number] if pressure else 0.0) * STEP_S,
                throttled_s=(last.throttled_s or 0)
                + (throttling[number] if throttling else 0.0) * STEP_S,
                swap_bytes=swap[number] if swap else 0.0,
                memory_bytes=(60.0 + 10.0 * number) * MIB,
            )
        )
    return points


def rising(first: float, last: float, count: int = 24) -> list[float]:
    """A straight line."""
    return [first + (last - first) * number / (count - 1) for number in range(count)]


def slowed(share: list[float], alone_s: float, pause_s: float) -> list[float]:
    """The latency that shares of stand-still make of a latency without them."""
    return [alone_s + s * pause_s / 2 + alone_s * s / (1 - s) for s in share]


def found(points: list[Strain]) -> Slowness:
    outcome = explain(points)
    assert outcome is not None
    return outcome


def test_pauses_of_the_collector() -> None:
    """A heap that grows is traced longer: the sentence says how much of the time, and how long."""
    share = rising(0.02, 0.4)
    outcome = found(series(slowed(share, 0.02, 0.2), collector=share))
    assert outcome.cause == "collector"
    assert outcome.added_s == pytest.approx(outcome.after_s - outcome.before_s, rel=0.25)
    assert "pauses of the garbage collector, 34% of the time, 200 ms each" in outcome.text
    assert "while memory grew from 60.0 MiB to " in outcome.text


def test_waits_for_memory_and_swap() -> None:
    """PSI, and what of the memory is in swap."""
    share = rising(0.0, 0.7)
    swap = rising(0.0, 100.0 * MIB)
    outcome = found(series(slowed(share, 0.02, 0.0), pressure=share, swap=swap))
    assert outcome.cause == "pressure"
    assert "waits for memory (PSI)" in outcome.text
    assert "; 100 MiB of it are in swap" in outcome.text


def test_throttling() -> None:
    """A CPU quota that is used up."""
    share = rising(0.05, 0.8)
    latency = [0.02 + s * (s * 0.1) / 2 + 0.02 * s / (1 - s) for s in share]
    outcome = found(series(latency, throttling=share))
    assert outcome.cause == "throttling"
    assert "CPU throttling, " in outcome.text


def test_the_one_that_accounts_for_most() -> None:
    """Of two that rise with the latency it is the one that adds more."""
    share = rising(0.02, 0.4)
    points = series(
        slowed(share, 0.02, 0.2), collector=share, pressure=[each / 4 for each in share]
    )
    assert found(points).cause == "collector"


def test_slow_for_another_reason() -> None:
    """Steady pauses, or pauses that are far too short, explain nothing; nor do unknown ones."""
    latency = rising(0.02, 0.2)
    for points in (
        series(latency, collector=[0.1] * 24),
        series(latency, collector=rising(0.0, 0.01), pause_s=0.01),
        series(latency, pressure=rising(0.3, 0.0)),
        [replace(each, gc_s=None, pressure_s=None, throttled_s=None) for each in series(latency)],
    ):
        outcome = found(points)
        assert (outcome.cause, outcome.text) == (None, "")
        assert outcome.after_s > 3 * outcome.before_s


def test_a_share_that_does_not_go_along_with_the_latency() -> None:
    """It may be large in the end and yet have nothing to do with it."""
    latency = [0.02] * 8 + [0.02, 0.03] * 4 + [0.2, 0.05, 0.2, 0.05, 0.2, 0.05, 0.2, 0.05]
    share = [0.6, 0.0, 0.5, 0.0, 0.6, 0.0, 0.5, 0.0] * 2 + [0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9]
    assert found(series(latency, pressure=share)).cause is None


@pytest.mark.parametrize(
    "latency",
    [
        [0.02] * 24,
        rising(0.2, 0.02),
        rising(0.001, 0.004),  # slower, and nobody feels it
        rising(0.02, 0.2, LEAST_INTERVALS - 1),
    ],
)
def test_requests_that_are_not_slower(latency: list[float]) -> None:
    """Nothing is said, nor where too little is known."""
    assert explain(series(latency, collector=rising(0.0, 0.5, len(latency)))) is None


def test_few_requests_tell_nothing() -> None:
    """A handful of slow ones is no trend."""
    share = rising(0.02, 0.4)
    points = series(slowed(share, 0.02, 0.2), collector=share)
    few = [
        replace(each, requests=each.requests / 100, request_s=each.request_s / 100)
        for each in points
    ]
    assert explain(few) is None
    assert explain([]) is None
