"""Findings over the steps of a watch: none flickers."""

from dataclasses import dataclass, field, replace

from stanch.detect import Finding
from stanch.server.follow import Follower
from tests.cli.watch_states import LEAK

STEP_S = 2.5
CACHE = replace(LEAK, kind="filling cache", stage="suspect")


@dataclass
class Steps:
    """A follower, STEP_S further at each step, and all that it told."""

    now: float = 1.7e9
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.follower = Follower(lambda: self.now)

    def show(self, *findings: Finding, times: int = 1) -> None:
        for _ in range(times):
            self.now += STEP_S
            for word, those in zip(
                ("new", "changed", "resolved"), self.follower.follow(findings), strict=True
            ):
                self.told += [f"{word} {finding.kind} {finding.stage}" for finding in those]


def test_a_confirmed_leak_that_hides_for_a_minute_goes_on() -> None:
    """Neither steps without it nor some that take it for a cache end it; a minute of them does."""
    steps = Steps()
    steps.show(LEAK)
    steps.show(times=11)
    steps.show(CACHE, times=11)
    assert [one.stage for one in steps.follower.findings] == ["confirmed"]
    steps.show(LEAK)
    assert steps.told == ["new leak confirmed"]
    steps.show(times=24)
    assert steps.told == ["new leak confirmed", "resolved leak confirmed"]


def test_what_is_only_suspected_goes_after_a_few_steps() -> None:
    """It may come back as new."""
    steps = Steps()
    suspect = replace(LEAK, stage="suspect")
    steps.show(suspect)
    steps.show(times=5)
    assert steps.told == ["new leak suspect"]
    steps.show()
    steps.show(suspect)
    assert steps.told == ["new leak suspect", "resolved leak suspect", "new leak suspect"]


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    """Time that went by counts, in whichever direction the clock has jumped."""
    steps = Steps()
    steps.show(LEAK)
    steps.now -= 3600.0
    steps.show(times=6)
    assert steps.told == ["new leak confirmed", "resolved leak confirmed"]


def test_what_turns_out_to_be_of_another_leak_goes_without_a_word() -> None:
    """A finding that was told alone and is then joined is neither resolved nor told again."""
    tasks = replace(LEAK, kind="task leak", function="follow", rate_count_per_second=2.0)
    joined = replace(tasks, with_it=((False, LEAK.file, LEAK.function),))
    steps = Steps()
    steps.show(LEAK, tasks)
    assert steps.told == ["new leak confirmed", "new task leak confirmed"]
    steps.show(joined, times=30)
    assert [one.kind for one in steps.follower.findings] == ["task leak"]
    assert steps.told == ["new leak confirmed", "new task leak confirmed"]
    # Of another service, the same names are another leak.
    steps.show(joined, replace(LEAK, service="other"), times=30)
    assert steps.told[2:] == ["new leak confirmed"]


def test_what_was_said_with_a_leak_that_goes_on_is_not_told_alone() -> None:
    """A look that fails to see that they are one adds none; a graver stage or its end does."""
    tasks = replace(LEAK, kind="task leak", function="follow", rate_count_per_second=2.0)
    joined = replace(tasks, with_it=((False, LEAK.file, LEAK.function),))
    steps = Steps()
    steps.show(joined)
    steps.show(tasks, LEAK, times=30)
    assert steps.told == ["new task leak confirmed"]
    steps.show(LEAK, times=24)
    assert steps.told[1:] == ["resolved task leak confirmed"]
    steps.show(LEAK)
    assert steps.told[2:] == ["new leak confirmed"]
    # The other one may take the name of both.
    heap = replace(LEAK, with_it=((True, tasks.file, tasks.function),))
    steps.show(joined)
    steps.show(heap)
    assert [one.kind for one in steps.follower.findings] == ["leak"]
    probable = replace(joined, stage="probable")
    again = Steps()
    again.show(probable)
    again.show(probable, LEAK)
    assert again.told == ["new task leak probable", "new leak confirmed"]


def test_what_an_earlier_server_said_with_a_leak_stays_with_it() -> None:
    """After a restart as before it."""
    tasks = replace(LEAK, kind="task leak", function="follow", rate_count_per_second=2.0)
    joined = replace(tasks, with_it=((False, LEAK.file, LEAK.function),))
    follower = Follower(lambda: 1.7e9, [joined])
    assert follower.follow([tasks, LEAK]) == ((), (), ())
