"""The profiles of this process alone, and of a whole run from those of its processes.

Heap profiles carry births relative to the start of their own process. In the whole they count from
the start of the oldest, so that "duration less birth" stays the age of what is alive.
"""

import gc
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from stanch import sampler
from stanch.agent.cpu import cpu_profile
from stanch.agent.threads import threads_profile
from stanch.profile import Profile, Sample, diff, merge
from stanch.version import __version__

_SUMMED = ("requests", "dropped")
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process says it is."""

    service: str
    instance: str


def heap(identity: Identity, *, collect_first: bool = False) -> Profile:
    """Return the heap profile; after a full collection when asked. Raises SamplerError."""
    if collect_first:
        gc.collect()
    image = sampler.snapshot()
    return sampler.table_profile(image, time_ns=time.time_ns(), instance=identity.instance)


def allocs(identity: Identity, *, collect_first: bool = False) -> Profile:
    """Return the heap profile, showing at first what was ever allocated. Raises SamplerError."""
    profile = heap(identity, collect_first=collect_first)
    return replace(profile, default_sample_type="alloc_space")


def threads(identity: Identity) -> Profile:
    """Return the stacks of threads and tasks."""
    return threads_profile(_comments(identity))


def cpu(identity: Identity, seconds: float, wanted: Callable[[], bool]) -> Profile:
    """Return where CPU time went during `seconds`. Raises OSError where there are no clocks."""
    return cpu_profile(seconds, wanted=wanted, comments=_comments(identity))


def change(take: Callable[[], Profile], wait: Callable[[], None]) -> Profile:
    """Return what a profile gains while `wait` runs; what is freed meanwhile is negative."""
    before = take()
    wait()
    return diff(before, take())


def whole(own: Profile, others: Iterable[Profile], missing: Sequence[int]) -> Profile:
    """Return the sum over the processes of a run, in the name of the listener's process.

    missing: pids that live and did not answer. Raises ProfileError when the kinds differ.
    """
    profiles = (own, *others)
    longest_ns = max(profile.duration_nanos for profile in profiles)
    aligned = [_born_later(profile, longest_ns - profile.duration_nanos) for profile in profiles]
    comments = [_facts(profile) for profile in profiles]
    facts = dict(comments[0])
    for name in _SUMMED:
        if name in facts:
            facts[name] = str(sum(_number(each.get(name, "")) for each in comments))
    if "start_unix_ns" in facts:
        facts["start_unix_ns"] = str(min(_number(each["start_unix_ns"]) for each in comments))
    facts["processes"] = str(len(profiles))
    if missing:
        facts["missing"] = ",".join(map(str, missing))
    return replace(
        merge(aligned),
        time_nanos=own.time_nanos,
        duration_nanos=longest_ns,
        comments=tuple(f"{name}={text}" for name, text in facts.items()),
    )


def _born_later(profile: Profile, late_ns: int) -> Profile:
    """Count the births of a younger process from the start of the oldest, in whole bands."""
    bands = round(late_ns / (sampler.BIRTH_BAND_S * _NS))
    if not bands:
        return profile
    shift = bands * sampler.BIRTH_BAND_S
    return replace(profile, samples=tuple(_shifted(sample, shift) for sample in profile.samples))


def _shifted(sample: Sample, shift_s: int) -> Sample:
    if not sample.num_labels:
        return sample
    labels = tuple(
        (key, value + shift_s if key == sampler.BIRTH_LABEL else value, unit)
        for key, value, unit in sample.num_labels
    )
    return replace(sample, num_labels=labels)


def _facts(profile: Profile) -> dict[str, str]:
    pairs = (comment.partition("=") for comment in profile.comments)
    return {name: text for name, separator, text in pairs if separator}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _comments(identity: Identity) -> tuple[str, ...]:
    facts = {
        "stanch": __version__,
        "service": identity.service,
        "instance": identity.instance,
        "pid": os.getpid(),
    }
    return tuple(f"{name}={value}" for name, value in facts.items())
