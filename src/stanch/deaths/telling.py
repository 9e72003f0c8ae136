"""A death in one line and in a few sentences, as every output tells it."""

import time

from stanch.deaths.death import Death
from stanch.detect import size_text, time_text


def death_title(death: Death) -> str:
    """Who ended and how, such as "shop shop-1 (pid 42): killed by the kernel at its limit"."""
    name = death.instance
    if death.instance != death.service:
        name = f"{death.service} {death.instance}"
    pids = ", ".join(map(str, death.pids[:4]))
    return f"{name}{f' (pid {pids})' if pids else ''}: {death.how}"


def cause_text(death: Death) -> str:
    """The cause in a word, with a question mark where it is likely rather than sure."""
    return death.cause if death.sure or death.cause == "unknown" else f"{death.cause}?"


def death_facts(death: Death) -> str:
    """What was known of it: memory, age, requests, what it held; "" when nothing was."""
    parts = []
    if death.memory_bytes is not None:
        limit = f" of {size_text(death.limit_bytes)}" if death.limit_bytes else ""
        parts.append(f"memory {size_text(death.memory_bytes)}{limit}")
    if death.uptime_s is not None:
        parts.append(f"up for {time_text(death.uptime_s)}")
    if death.requests is not None:
        flying = f", {death.in_flight:,.0f} in flight" if death.in_flight else ""
        parts.append(f"{death.requests:,.0f} requests served{flying}")
    if death.place:
        parts.append(
            f"{size_text(death.place_bytes)} of {size_text(death.live_bytes)} live from "
            f"{death.place}"
        )
    return ", ".join(parts)


def forecast_text(death: Death) -> str:
    """What had been foretold and how far off it was; "" when nothing had."""
    told = death.forecast
    if told is None:
        return ""
    off_s = death.died_unix - told.likely_unix
    when = "on time"
    if abs(off_s) >= 1:
        when = f"{time_text(abs(off_s))} {'later' if off_s > 0 else 'sooner'}"
    within = told.soonest_unix <= death.died_unix <= told.latest_unix
    return (
        f"foretold {time_text(max(0.0, death.died_unix - told.said_unix))} before for "
        f"{_clock(told.likely_unix)} ({_clock(told.soonest_unix)} to {_clock(told.latest_unix)}): "
        f"{told.title}; it came {when}, {'within' if within else 'outside'} what was said"
    )


def _clock(unix_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix_s))
