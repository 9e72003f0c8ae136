"""What becomes of an alarm from look to look, and when it is told."""

from dataclasses import dataclass, field, replace

import pytest

from stanch.alert.alarm import Alarm, alarm_from_json, alarm_to_json
from stanch.alert.condition import Condition, condition_of, without_doubles
from stanch.alert.lifecycle import News, Policy, Quiet, follow
from stanch.detect import Stage
from tests.alert.samples import leak
from tests.cli.watch_states import CACHE, LEAK

BEGIN = 1.7e9


@dataclass
class Story:
    """An alarm that is followed look by look."""

    policy: Policy = field(default_factory=Policy)
    now: float = BEGIN
    alarm: Alarm | None = None
    told: list[tuple[float, News]] = field(default_factory=list)

    def look(
        self,
        condition: Condition | None,
        *,
        after: float = 5.0,
        quiet: Quiet | None = None,
        looked: bool = True,
    ) -> "Story":
        """Go on by one look, `after` seconds later."""
        self.now += after
        self.alarm, news = follow(
            self.alarm, condition, quiet, self.now, self.policy, looked=looked
        )
        if news is not None:
            self.told.append((self.now - BEGIN, news))
        return self

    @property
    def status(self) -> str:
        return self.alarm.status if self.alarm is not None else "none"


def at(stage: Stage) -> Condition:
    return leak(stage=stage)


def test_a_leak_is_pending_until_it_is_sure_and_then_told_once() -> None:
    """Suspect and probable are pending; confirmed fires; looking again tells nothing more."""
    story = Story().look(at("suspect")).look(at("probable"))
    assert story.status == "pending"
    assert story.told == []
    for _ in range(50):
        story.look(at("confirmed"))
    assert story.status == "firing"
    assert story.told == [(15.0, "firing")]


def test_each_stage_is_told_once() -> None:
    """Where probable fires, confirmed is an update of the same alarm, and receding is nothing."""
    story = Story(Policy(fire_at="probable"))
    story.look(at("suspect")).look(at("probable")).look(at("probable")).look(at("confirmed"))
    story.look(at("probable")).look(at("confirmed")).look(at("suspect"))
    assert story.told == [(10.0, "firing"), (20.0, "worse")]
    assert story.alarm is not None
    assert story.alarm.stage == "confirmed"
    assert story.alarm.title.startswith("leak (confirmed)")


def test_a_stage_must_hold_for_as_long_as_asked() -> None:
    """With hold_s an alarm fires when the stage has been there so long."""
    story = Story(Policy(hold_s=12.0))
    story.look(at("confirmed")).look(at("confirmed")).look(at("confirmed"))
    assert story.status == "pending"
    story.look(at("confirmed"))
    assert story.told == [(20.0, "firing")]


def test_twice_the_rate_is_worse_but_not_at_once() -> None:
    """Growing twice as fast is told, not sooner than worse_after_s after the last message."""
    faster = replace(at("confirmed"), rate=2.2 * 1024 * 1024)
    story = Story(Policy(worse_after_s=100.0)).look(at("confirmed"))
    for _ in range(19):
        story.look(faster)
    assert story.told == [(5.0, "firing")]
    story.look(faster).look(faster)
    assert story.told == [(5.0, "firing"), (105.0, "worse")]


def test_it_is_over_when_looks_have_not_shown_it_for_a_while() -> None:
    """A gap shorter than resolve_after_s is nothing; a longer one resolves, told once."""
    story = Story(Policy(resolve_after_s=30.0)).look(at("confirmed"))
    story.look(None).look(None, after=20.0).look(at("confirmed"))
    assert story.status == "firing"
    story.look(None).look(None, after=29.0)
    assert story.status == "firing"
    story.look(None, after=1.0).look(None)
    assert story.status == "resolved"
    assert [news for _, news in story.told] == ["firing", "resolved"]


def test_without_looks_nothing_is_over() -> None:
    """A service that does not answer keeps its alarms for a day, then they end."""
    story = Story(Policy(resolve_after_s=30.0)).look(at("confirmed"))
    for _ in range(23):
        story.look(None, after=3600.0, looked=False)
    assert story.status == "firing"
    story.look(None, after=3600.0, looked=False)
    assert [news for _, news in story.told] == ["firing", "resolved"]


def test_a_leak_that_comes_back_is_a_new_episode() -> None:
    """After its end the same cause is told anew, under another number."""
    story = Story(Policy(resolve_after_s=10.0)).look(at("confirmed"))
    story.look(None).look(None, after=10.0).look(at("confirmed"))
    assert [news for _, news in story.told] == ["firing", "resolved", "firing"]
    assert story.alarm is not None
    assert story.alarm.episode == 2
    assert story.alarm.resolved_unix is None


def test_a_suspicion_that_goes_leaves_nothing() -> None:
    """What never fired is neither told nor remembered."""
    story = Story(Policy(resolve_after_s=10.0)).look(at("suspect"))
    story.look(None).look(None, after=10.0)
    assert story.status == "none"
    assert story.told == []


def test_quiet_holds_back_and_then_tells_what_still_holds() -> None:
    """An alarm that fires in a window is told after it, if it is still there."""
    window = Quiet("maintenance window 1")
    story = Story().look(at("confirmed"), quiet=window).look(at("confirmed"), quiet=window)
    assert story.status == "firing"
    assert story.told == []
    assert story.alarm is not None
    assert story.alarm.quiet == "maintenance window 1"
    story.look(at("confirmed"))
    assert story.told == [(15.0, "firing")]


def test_an_alarm_that_came_and_went_in_quiet_is_never_told() -> None:
    """No "resolved" without a "firing"."""
    window = Quiet("maintenance window 1")
    story = Story(Policy(resolve_after_s=10.0)).look(at("confirmed"), quiet=window)
    story.look(None, quiet=window).look(None, after=10.0)
    assert story.status == "resolved"
    assert story.told == []


def test_a_mark_ends_what_was_told_and_its_removal_tells_again() -> None:
    """Marking a told alarm is told once; without the mark the alarm is told as firing."""
    mark = Quiet("marked known", by_mark=True)
    story = Story().look(at("confirmed")).look(at("confirmed"), quiet=mark)
    story.look(at("confirmed"), quiet=mark).look(at("confirmed"))
    assert [news for _, news in story.told] == ["firing", "marked", "firing"]
    assert story.alarm is not None
    assert story.alarm.told == 3


def test_a_window_does_not_take_back_what_was_told() -> None:
    """A window that opens over a told alarm says nothing, and its end neither."""
    window = Quiet("maintenance window 1")
    story = Story().look(at("confirmed")).look(at("confirmed"), quiet=window).look(at("confirmed"))
    assert [news for _, news in story.told] == ["firing"]


def test_an_alarm_is_the_same_after_json() -> None:
    """What goes through the journal comes back equal, and unknown fields are left out."""
    alarm = Story().look(at("confirmed")).alarm
    assert alarm is not None
    text = alarm_to_json(alarm)
    assert alarm_from_json(text) == alarm
    assert alarm_from_json('{"later": 1, ' + text[1:]) == alarm
    with pytest.raises(KeyError):
        alarm_from_json("{}")


def test_a_finding_becomes_a_condition_by_its_cause() -> None:
    """Stage, line, rate and replicas do not change the fingerprint; function and service do."""
    first = condition_of(LEAK, BEGIN)
    assert first is not None
    later = condition_of(
        replace(LEAK, stage="probable", line=99, rate_bytes_per_second=9.0, instances=("x",)), 0.0
    )
    assert later is not None
    assert later.fingerprint == first.fingerprint
    other = condition_of(replace(LEAK, function="forget"), BEGIN)
    elsewhere = condition_of(replace(LEAK, service="till"), BEGIN)
    assert other is not None
    assert elsewhere is not None
    assert len({first.fingerprint, other.fingerprint, elsewhere.fingerprint}) == 3
    assert first.death_unix == BEGIN + 47.0
    assert "at its limit in 47 s" in first.text
    assert condition_of(CACHE, BEGIN) is None


def test_tasks_and_what_they_hold_are_one_alarm() -> None:
    """The count goes first, or whichever was told; other services and kinds stay apart."""
    tasks = replace(leak(cause="a.py follow"), file="a.py", is_count=True)
    held = replace(leak(cause="b.py compose"), file="b.py", title="leak (confirmed) at compose")
    (one,) = without_doubles([held, tasks])
    assert one.fingerprint == tasks.fingerprint
    assert "With it: leak (confirmed) at compose" in one.text
    (one,) = without_doubles([tasks, held], {held.fingerprint})
    assert one.fingerprint == held.fingerprint
    apart = [tasks, replace(held, service="cart")]
    assert without_doubles(apart) == apart
    apart = [held, replace(leak(cause="c.py keep"), file="c.py")]
    assert without_doubles(apart) == apart
    native = [replace(leak(cause="native memory"), file=""), replace(tasks, file="")]
    assert without_doubles(native) == native


def test_what_one_request_keeps_is_one_alarm() -> None:
    """A leak whose function is on the stack of another is one with it and its twins."""
    tasks = replace(leak(cause="a.py follow"), file="a.py", is_count=True)
    stack = frozenset({"a.py compose", "app.py send", "http.py run"})
    held = replace(leak(cause="a.py compose"), file="a.py", stack=stack)
    sent = replace(leak(cause="app.py send"), file="app.py", stack=frozenset({"app.py send"}))
    for order in ([tasks, held, sent], [sent, tasks, held], [held, sent, tasks]):
        (one,) = without_doubles(order)
        assert one.fingerprint == tasks.fingerprint
    (one,) = without_doubles([sent, held])
    assert one.fingerprint == sent.fingerprint


def test_a_condition_knows_its_stack_without_lines() -> None:
    """As the causes of other findings name functions."""
    condition = condition_of(LEAK, BEGIN)
    assert condition is not None
    assert condition.cause in condition.stack
    assert "shop/checkout.py check_out" in condition.stack


def test_a_leak_that_is_said_with_another_goes_on_as_it_was_told() -> None:
    """When two turn out to be one leak, people are not told of it a second time."""
    alone = condition_of(LEAK, BEGIN)
    other = replace(LEAK, function="price", line=9)
    joined = replace(other, with_it=((False, LEAK.file, LEAK.function),))
    now = condition_of(joined, BEGIN)
    assert alone is not None and now is not None
    (told,) = without_doubles([now], {alone.fingerprint})
    assert told.fingerprint == alone.fingerprint
    (new,) = without_doubles([now])
    assert new.fingerprint == now.fingerprint != alone.fingerprint
