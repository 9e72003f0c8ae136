"""Numbers in plain English: sizes, rates, times, and the evidence of a cause in sentences."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from stanch.detect.cause import NATIVE, Cause
from stanch.detect.judge import Judgement
from stanch.store import Frame

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size_bytes: float) -> str:
    """A size in powers of 1024 with about three digits, such as "31.4 MiB"."""
    size, unit = abs(size_bytes), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    digits = 0 if unit == 0 or size >= 99.5 else 1 if size >= 9.95 else 2
    return f"{'-' if size_bytes < 0 else ''}{size:.{digits}f} {_UNITS[unit]}"


def time_text(seconds: float) -> str:
    """A time with the one or two units that matter, such as "48 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def evidence_of(cause: Cause, judgement: Judgement) -> tuple[str, ...]:
    """Why a cause is judged as it is, with the numbers of the instance that shows it most."""
    sentences = [_growth_sentence(cause), *_pace_sentences(cause), *_kept_sentences(cause)]
    sentences += _room_sentences(cause, judgement)
    if cause.bound > 0 and cause.leaks:
        times = cause.growth.grown / cause.bound
        sentences.append(
            f"The growth is {times:.1f} times what noise could amount to over the whole life."
        )
    sentences += _holder_sentences(cause)
    sentences += _earlier_sentences(cause)
    if cause.repeats:
        sentences.append("An earlier life of the service died at its limit of the same growth.")
    return tuple(sentences)


def kin_sentences(cause: Cause, kin: Sequence[Cause]) -> list[str]:
    """What else is of the same leak."""
    if not kin:
        return []
    parts = []
    for one in kin:
        amount = amount_text(one, one.growth.grown_until_now)
        what = f"{amount} {one.counted}s in" if one.is_count else f"{amount} from"
        parts.append(f"{what} {one.place.function}")
    by = f"{cause.counted}s" if cause.is_count else "container"
    return [f"The same {by} keep{'' if cause.is_count else 's'} {_listed(parts)}: one leak."]


def _holder_sentences(cause: Cause) -> list[str]:
    holder = cause.holder
    if holder is None or holder.behaviour in ("unknown", "passing"):
        return []
    size = f"{holder.kind}, {holder.length:,} entries" if holder.length is not None else holder.kind
    match holder.behaviour:
        case "lost":
            return [f"Nothing that Python can reach holds it: {holder.name}."]
        case "uncollected":
            return ["Reference cycles hold it, and the collector that would free them is off."]
        case "bounded":
            return [f"{holder.name} ({size}) holds it, and takes {holder.bound:,} at most."]
        case "endless":
            return [f"{holder.name} ({size}) holds it, which never drops anything."]
    if holder.behaviour in ("emptied", "maybe bounded"):
        return [f"{holder.name} ({size}) holds it; what it keeps may yet be taken out or expire."]
    pace = f" and gains {holder.per_second:.3g} per s" if holder.per_second else ""
    held = f"{holder.name} ({size}) holds it{pace}"
    if holder.behaviour == "never emptied":
        asked = ", and requests put it in" if cause.in_requests else ""
        return [f"{held}; no code takes anything out of it{asked}."]
    if holder.behaviour == "not emptied":
        return [f"{held}; the code that would take anything out of it has not run."]
    return [f"{held}; no bound of it is known."]


def _earlier_sentences(cause: Cause) -> list[str]:
    earlier = cause.earlier
    lives = "one earlier life" if earlier.lives == 1 else f"{earlier.lives} earlier lives"
    since = f" since release {earlier.release}" if earlier.release else " since then"
    level = amount_text(cause, earlier.level)
    match earlier.relation:
        case "known":
            return [f"In {lives} it levelled off at {level}."]
        case "new":
            return [f"In {lives} there was next to nothing of it: it is new{since}."]
        case "steeper":
            return [f"In {lives} it came to {level} by this age: it is steeper{since}."]
    return []


def amount_text(cause: Cause, amount: float) -> str:
    """A size, or a number of goroutines, threads or tasks."""
    return f"{amount:,.0f}" if cause.is_count else size_text(amount)


def _growth_sentence(cause: Cause) -> str:
    growth = cause.growth
    amount, level = amount_text(cause, growth.grown_until_now), amount_text(cause, growth.level)
    since = f"for {time_text(growth.duration_s)}"
    pace = f"{_paces(cause, [growth.rate])} per s"
    place = cause.place.function
    if cause.shape == "ended":
        holds = f"{level} {cause.counted}s stand in" if cause.is_count else f"{level} are held by"
        return f"{holds} {place}, next to nothing of it new in the last third of {since[4:]}."
    if cause.place == NATIVE:
        return (
            f"Memory the heap does not explain has grown by {amount} {since}, {pace};"
            " no line of the program's own language allocates it."
        )
    if cause.is_count:
        return f"{level} {cause.counted}s stand in {place}, {amount} more {since}, {pace}."
    if cause.taken_by is not None:
        return (
            f"The native memory that {native_text(cause.taken_by)} took for {place} has grown by"
            f" {amount} {since}, {pace}; it holds {level}."
        )
    return f"What {place} allocated has grown by {amount} {since}, {pace}; it holds {level}."


def native_text(frame: Frame) -> str:
    """A native function and its library, such as "parse in libxml2.so.2"."""
    return f"{frame.function} in {PurePosixPath(frame.file).name}"


def _pace_sentences(cause: Cause) -> list[str]:
    growth = cause.growth
    thirds = f"{_paces(cause, growth.rates)} per s in the three thirds of that time"
    sentences = []
    if cause.shape == "steady":
        sentences.append(f"It does not slow down: {thirds}.")
    elif cause.shape == "slowing":
        sentences.append(f"It slows down: {thirds}.")
    loads = growth.requests_per_s
    if cause.shape == "steady" and loads is not None and 0 < 1.2 * min(loads) < max(loads):
        each = [rate / load for rate, load in zip(growth.rates, loads, strict=True)]
        load = _listed([f"{load:.3g}" for load in loads])
        sentences.append(f"Per request that is {_paces(cause, each)}, at {load} requests per s.")
    return sentences


def _paces(cause: Cause, rates: Sequence[float]) -> str:
    """Rates or sizes, with their unit once when they share it."""
    if cause.is_count:
        return _listed([f"{rate:.2g}" for rate in rates])
    texts = [size_text(rate) for rate in rates]
    units = {text.split()[1] for text in texts}
    if len(units) == 1:
        texts = [text.split()[0] for text in texts[:-1]] + texts[-1:]
    return _listed(texts)


def _kept_sentences(cause: Cause) -> list[str]:
    growth = cause.growth
    if not growth.by_birth:
        return []
    kept = f"{growth.kept:.0%} of what had settled is still alive"
    match cause.shape:
        case "steady":
            return [f"{kept}, also the oldest."]
        case "young" | "replaced":
            return [f"Only {kept}: the old goes as the new comes."]
    return []


def _room_sentences(cause: Cause, judgement: Judgement) -> list[str]:
    room = judgement.room
    if room is None or cause.share <= 0:
        return []
    of = f"the room that was left below the limit of {size_text(room.limit_bytes)}"
    if not room.is_known:
        of = f"the room up to {size_text(room.limit_bytes)} (no limit is known, this is assumed)"
    sentences = [f"It has taken {cause.share:.0%} of {of} when it began."]
    if cause.joint_share > 1.1 * cause.share:
        sentences.append(
            f"With what the same requests keep elsewhere it is {cause.joint_share:.0%}."
        )
    return sentences


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
