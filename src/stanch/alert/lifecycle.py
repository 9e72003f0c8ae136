"""How an alarm goes on from one look to the next. Pure: the journal and the clock are outside.

An alarm is told when it fires, when it becomes worse, and when it is over: once each. It becomes
worse with a surer stage, or when it grows `worse_factor` times as fast as was told. As long as it
is quiet nothing is told; what still holds when the quiet ends is told then, once.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from stanch.alert.alarm import Alarm
from stanch.alert.condition import Condition
from stanch.detect import STAGES, Stage

News: TypeAlias = Literal["firing", "worse", "resolved", "marked"]
"""What a message is about; "marked": somebody has marked a told alarm as known or won't fix."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When alarms fire and end.

    fire_at: the stage from which on an alarm fires. hold_s: for so long that stage must have been
    reached. resolve_after_s: an alarm is over when looks have not shown it for so long.
    gone_after_s: and when nobody has looked at the service for so long. worse_factor,
    worse_after_s: growing so many times as fast as told is worse, but not sooner than this after
    the last message.
    """

    fire_at: Stage = "confirmed"
    hold_s: float = 0.0
    resolve_after_s: float = 600.0
    gone_after_s: float = 86_400.0
    worse_factor: float = 2.0
    worse_after_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Quiet:
    """Why an alarm is not told now. by_mark: a person has judged it, rather than a window."""

    reason: str
    by_mark: bool = False


def follow(
    alarm: Alarm | None,
    condition: Condition | None,
    quiet: Quiet | None,
    now_unix: float,
    policy: Policy,
    *,
    looked: bool = True,
) -> tuple[Alarm | None, News | None]:
    """Return the alarm after a look, and what there is to tell of it.

    alarm: None when there was none. condition: what the look shows, None when it does not show this
    cause. looked: whether the service was looked at at all. The alarm returned is None when
    there is nothing to remember.
    """
    if condition is not None:
        alarm = _seen(alarm, condition, now_unix)
    elif alarm is None or alarm.status == "resolved":
        return alarm, None
    else:
        alarm = _unseen(alarm, now_unix, policy, looked=looked)
        if alarm is None:
            return None, None
    if alarm.status == "pending" and _is_due(alarm, now_unix, policy):
        alarm = replace(alarm, status="firing", fired_unix=now_unix)
    alarm = replace(alarm, quiet=quiet.reason if quiet is not None else "")
    news = _news(alarm, quiet, now_unix, policy)
    return (alarm if news is None else _tell(alarm, news, now_unix)), news


def _seen(alarm: Alarm | None, condition: Condition, now_unix: float) -> Alarm:
    if alarm is None or alarm.status == "resolved":
        alarm = Alarm(
            fingerprint=condition.fingerprint,
            name=condition.name,
            service=condition.service,
            cause=condition.cause,
            kind=condition.kind,
            title=condition.title,
            text=condition.text,
            stage=condition.stage,
            status="pending",
            episode=alarm.episode + 1 if alarm is not None else 1,
            pending_unix=now_unix,
            stage_unix=now_unix,
            seen_unix=now_unix,
        )
    surer = STAGES.index(condition.stage) > STAGES.index(alarm.stage)
    return replace(
        alarm,
        # A leak that recedes to a lower stage keeps its title: it was that sure once.
        title=condition.title if surer or condition.stage == alarm.stage else alarm.title,
        text=condition.text,
        kind=condition.kind,
        stage=condition.stage if surer else alarm.stage,
        stage_unix=now_unix if surer else alarm.stage_unix,
        seen_unix=now_unix,
        unseen_unix=None,
        rate=condition.rate,
        death_unix=condition.death_unix,
        first_to_die=condition.first_to_die,
        instances=condition.instances,
    )


def _unseen(alarm: Alarm, now_unix: float, policy: Policy, *, looked: bool) -> Alarm | None:
    if looked:
        since = now_unix if alarm.unseen_unix is None else alarm.unseen_unix
        alarm = replace(alarm, unseen_unix=since)
        is_over = now_unix - since >= policy.resolve_after_s
    else:
        is_over = now_unix - alarm.seen_unix >= policy.gone_after_s
    if not is_over:
        return alarm
    if alarm.status == "pending" and alarm.episode == 1:
        return None
    return replace(alarm, status="resolved", resolved_unix=now_unix)


def _is_due(alarm: Alarm, now_unix: float, policy: Policy) -> bool:
    sure = STAGES.index(alarm.stage) >= STAGES.index(policy.fire_at)
    return sure and now_unix - alarm.stage_unix >= policy.hold_s


def _news(alarm: Alarm, quiet: Quiet | None, now_unix: float, policy: Policy) -> News | None:
    if alarm.status == "resolved":
        return "resolved" if alarm.told_stage else None
    if alarm.status != "firing":
        return None
    if quiet is not None:
        return "marked" if quiet.by_mark and alarm.told_stage else None
    if not alarm.told_stage:
        return "firing"
    if STAGES.index(alarm.stage) > STAGES.index(alarm.told_stage):
        return "worse"
    told_long_ago = now_unix - (alarm.told_unix or 0.0) >= policy.worse_after_s
    if told_long_ago and alarm.rate is not None and alarm.told_rate is not None:
        return "worse" if 0 < policy.worse_factor * alarm.told_rate <= alarm.rate else None
    return None


def _tell(alarm: Alarm, news: News, now_unix: float) -> Alarm:
    over = news in ("resolved", "marked")
    return replace(
        alarm,
        told=alarm.told + 1,
        told_stage="" if over else alarm.stage,
        told_rate=None if over else alarm.rate,
        told_unix=now_unix,
    )
