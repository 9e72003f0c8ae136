"""The numbers of the benchmark against episodes and tables of which they are known."""

import math

import pytest

from stanch.evaluate.metrics import poisson_upper, summary
from stanch.evaluate.play import Result, Said
from stanch.evaluate.services import Truth

LEAK = Truth("plain", "0.1-1 %/min", causes=frozenset({"remember"}), onset_s=100.0, rate=10.0)
HEALTHY = Truth("batch")
DAY_S = 86400.0


def leaking(right_s: float, **said: object) -> Result:
    """A leak that begins at 100 s and kills at 1,100 s."""
    return Result(LEAK, 1100.0, 1100.0, 10, {"one": Said(right_s=right_s, **said)})  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "upper"), [(0, 2.996), (1, 4.744), (3, 7.754), (10, 16.962)])
def test_upper_bounds_are_those_of_the_tables(count: int, upper: float) -> None:
    """The one-sided 95 % bounds of a Poisson mean agree with Garwood's table."""
    assert poisson_upper(count) == pytest.approx(upper, abs=0.001)


def test_recall_counts_from_the_onset_to_death() -> None:
    """Accusations at 10 % and 50 % of the time from onset to death, and one that never came."""
    results = [leaking(200.0), leaking(600.0), leaking(math.inf)]
    recall = summary(results, "one")["recall"]
    third = pytest.approx(1 / 3)
    assert recall == {
        "5%": 0.0,
        "10%": third,
        "25%": third,
        "50%": 2 * third.expected,
        "100%": 2 * third.expected,
    }


def test_false_alarms_are_told_per_day_with_their_bound() -> None:
    """Two functions accused in four healthy days are half an alarm a day, at most 6.296 / 4."""
    wrong = {"run_job": 5.0, "": 9.0}
    days = [Result(HEALTHY, None, DAY_S, 10, {"one": Said()}) for _ in range(3)]
    days.append(Result(HEALTHY, None, DAY_S, 10, {"one": Said(wrong=wrong)}))
    numbers = summary(days, "one")
    assert numbers["false_alarms_per_day"] == 0.5
    assert numbers["false_alarms_per_day_upper95"] == pytest.approx(6.296 / 4, abs=0.001)
    assert numbers["false_alarms_by_kind"] == {"batch": 2}


def test_lines_rates_and_forecasts_are_averaged_over_episodes() -> None:
    """A cause counts 1, what only allocates 0.5; of two forecasts one holds the truth."""
    told = [(300.0, 700.0, 800.0, 900.0), (600.0, 600.0, 700.0, 800.0)]
    results = [
        leaking(200.0, credit=1.0, rate=12.0, forecasts=told),
        leaking(200.0, credit=0.5, rate=8.0),
    ]
    numbers = summary(results, "one")
    assert numbers["line_credit"] == 0.75
    assert numbers["rate_error"] == pytest.approx(0.2)
    assert numbers["forecast"]["coverage"] == 0.5
    assert numbers["forecast"]["episodes"] == 1


def test_the_brier_score_is_the_mean_squared_error() -> None:
    """0.8 told of a truth and 0.2 of an untruth make 0.04."""
    results = [leaking(200.0, trials=[(0.8, True), (0.2, False)])]
    assert summary(results, "one")["brier"]["score"] == pytest.approx(0.04)
