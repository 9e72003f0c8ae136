"""Episodes: what is simulated is what the truth says, and the same seed is the same episode."""

import json
import math

import numpy as np
import pytest

from stanch.evaluate.detectors import PROCESS, Accusation, Inspect, Opinion, Stanch
from stanch.evaluate.play import Task, play, play_task
from stanch.evaluate.process import Process
from stanch.evaluate.rivals import RIVALS
from stanch.evaluate.run import evaluate
from stanch.evaluate.services import healthy_service, leaking_service
from stanch.evaluate.sites import KIB, MIB, Cache, Churn, Expiring, Leak, Site, Step
from stanch.evaluate.spec import BANDS, HEALTHY, LEAKS, Spec
from stanch.store.series import ServiceSeries

SPEC = Spec(leaks=1, healthy=1, looks_per_life=30, day_every_s=3600.0)


class Alarmist:
    """Accuses the process at every look."""

    name = "alarmist"

    def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
        """Accuse."""
        return Opinion(accused=(Accusation(PROCESS),))


class Silent:
    """Never says anything."""

    name = "silent"

    def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
        """Say nothing."""
        return Opinion()


def run(site: Site, seconds: int, rate: float = 50.0) -> Site:
    """A site after so many steps of a second."""
    rng = np.random.default_rng(7)
    for second in range(1, seconds + 1):
        site.step(Step(rng, float(second), 1.0, rate, 16.0 * KIB))
    return site


@pytest.mark.parametrize(
    ("site", "held"),
    [
        (Leak("leak", per_request=KIB), 50 * 400 * KIB),
        (Churn("churn", per_request=KIB, lives_s=40.0), 50 * 40 * KIB),
        (Cache("cache", capacity=300, entry_bytes=60 * KIB), 300 * 60 * KIB),
        (Expiring("expiring", per_request=KIB, lives_s=100.0), 50 * 100 * KIB),
    ],
    ids=lambda value: value.name if isinstance(value, Site) else "",
)
def test_samples_stand_for_what_is_held(site: Site, held: float) -> None:
    """After 400 s the true bytes of a site are its truth, and the samples estimate it."""
    run(site, 400)
    assert site.true_bytes == pytest.approx(held, rel=0.05)
    # 18 MiB at one sample per 16 KiB: the estimate is within 15 % but in one run of a million.
    assert float(site.samples.weight.sum()) == pytest.approx(held, rel=0.15)


@pytest.mark.parametrize("kind", LEAKS)
def test_leaks_kill_when_their_rate_says(kind: str) -> None:
    """The time to death is what the rate of the band makes of the room, give or take the load."""
    low, high = BANDS["0.1-1 %/min"]
    for number in range(3):
        result = play_task(Task(kind, "0.1-1 %/min", number), SPEC, (Silent,))
        assert result.died_s is not None
        minutes = (result.died_s - result.truth.onset_s) / 60.0
        assert 0.3 / high < minutes < 1.1 / low


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_services_live_through_their_day(kind: str) -> None:
    """Nothing that is called healthy reaches its limit."""
    result = play_task(Task(kind, "", 0), SPEC, (Silent,))
    assert result.died_s is None
    assert result.watched_s == pytest.approx(86400.0, rel=0.05)


def test_accusations_are_counted_by_the_truth() -> None:
    """An alarm at every look is right at once on a leak, and one false alarm on a healthy day."""
    leak = play_task(Task("plain", "1-10 %/min", 0), SPEC, (Alarmist, Silent))
    assert leak.share(leak.said["alarmist"].right_s) < 0.05
    assert leak.said["alarmist"].wrong == {}
    assert math.isinf(leak.said["silent"].right_s)
    day = play_task(Task("batch", "", 0), SPEC, (Alarmist,))
    assert list(day.said["alarmist"].wrong) == [PROCESS]


def test_an_accusation_before_the_leak_begins_is_false() -> None:
    """A late leak does not excuse an alarm before its onset."""
    late = play_task(Task("late", "1-10 %/min", 0), SPEC, (Alarmist,))
    assert late.said["alarmist"].right_s > late.truth.onset_s
    assert list(late.said["alarmist"].wrong) == [PROCESS]


def test_histories_are_what_the_truth_says() -> None:
    """The series hold earlier lives: of death where the truth says died, else of another end."""
    seen: dict[str, list[bool]] = {}

    class Reader(Silent):
        def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
            self.past = [life.ended_near_limit for life in series.past]
            return Opinion()

    for number in range(12):
        rng = np.random.default_rng(number)
        service = leaking_service("plain", "1-10 %/min", (0.01, 0.1), rng, SPEC)
        reader = Reader()
        play(service, rng, [reader])
        seen.setdefault(service.truth.history, []).extend(reader.past)
    assert seen == {
        "none": [],
        "clean": [False] * len(seen["clean"]),
        "died": [True] * len(seen["died"]),
    }
    assert seen["clean"] and seen["died"]


def test_the_same_seed_gives_the_same_numbers() -> None:
    """Played twice, once on two processes, a spec gives the same report, which is JSON."""
    spec = Spec(leaks=0, healthy=1, day_s=3600.0, day_every_s=600.0)
    first, second = (evaluate(spec, jobs=jobs) for jobs in (1, 2))
    first["elapsed_s"] = second["elapsed_s"] = 0
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(second))
    assert set(first["detectors"]) == {"stanch", *(rival.name for rival in RIVALS)}


def test_rivals_fire_on_a_plain_leak_and_not_on_a_flat_line() -> None:
    """Every rule accuses an even leak that kills within hours; none a process that holds still."""
    for rival in RIVALS:
        leak = play_task(Task("plain", "0.1-1 %/min", 1), SPEC, (rival,))
        assert math.isfinite(leak.said[rival.name].right_s), rival.name
    rng = np.random.default_rng(3)
    service = healthy_service("batch", rng, SPEC)
    still = [Leak("idle", per_request=0.0)]

    def build(life_rng: np.random.Generator, leaks: bool) -> Process:
        return Process(life_rng, list(still), lambda _: 10.0, limit_bytes=256 * MIB)

    calm = play(
        type(service)(service.truth, build, (), 40_000.0, 600.0), rng, [rival() for rival in RIVALS]
    )
    assert [one.wrong for one in calm.said.values()] == [{}] * len(RIVALS)


def test_stanch_is_judged_by_its_confirmed_findings() -> None:
    """What is only suspected is no accusation, but its confidence is weighed."""
    day = play_task(Task("lru sequential", "", 1), SPEC, (Stanch,))
    assert day.said["stanch"].wrong == {}
