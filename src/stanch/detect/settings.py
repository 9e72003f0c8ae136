"""The numbers that detection decides by, each with its reason. docs/detection.md explains them."""

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Thresholds. Times are seconds, sizes bytes, the rest shares between 0 and 1.

    alpha: chance that noise alone makes any stack of one process life look grown, over all its
    stacks and all looks together.
    material: growth below this share of the limit is not judged.
    explained: growth that does not end in death is spoken of from this share of the limit on.
    steady: the newest third of the growth has at least this share of the rate of the third
    before; below, it is slowing down, as caches and warm-ups do.
    settled: the third before has at least this share of the rate of the newest; below, what is
    young is not kept (load), or the growth has only begun.
    survival: share of what once had settled that is still alive; a leak has all of it, a cache
    at its bound drops the old for the new.
    drop: where births are unknown, the largest fall of the level, as a share of its growth.
    recent, followed: over this newest share of the growth, memory itself has grown by at least
    this share of what the growth claims.
    watched: the looks cover at least this share of the growth: what is claimed has been seen.
    good_part: of all that memory has grown since, the cause makes up this share at least.
    main_part: likewise, to be confirmed at a smaller share of the room than without evidence.
    probable, confirmed: the growth has taken this share of the room that was there when it began.
    A cache that fills evenly looks like a leak until it is full: `confirmed` is the largest cache,
    as a share of that room, that is surely not accused, and the share of a life that passes
    before a leak is.
    jointly: causes of one request path, taken together, must have taken so many times that share.
    unseen: likewise, of native memory and counts, of which nobody can tell what holds them: an even
    filling of more than this, in the first life of a service, is rarer than what is allowed.
    straight: and whose newest third has at least this share of the pace of the middle one: what
    slows a little may be a pool. straight_held: likewise of what a container without a bound
    keeps, with more room for noise as the container speaks too.
    held: likewise, when a retention search found a container without a bound to keep it.
    emptied: likewise, when some code takes entries out of it, but has not begun to: more than most
    tables hold whose entries expire. never_emptied: likewise, when no code of the program takes
    anything out, or none that would has run; it may yet be a table that is loaded once. asked_for:
    likewise, when no code takes anything out, requests allocate all of it, and it will fill the
    room even if it slows on as it did, as seen at `many_looks`: what is loaded once is loaded by no
    request, and a memory of what was asked for slows as it is asked for again. held_for_good:
    likewise, when what keeps it never lets go: a cache that was made without a bound, or a
    reference that nobody has.
    changed: likewise, when it is new or steeper than in earlier lives.
    inspected: from this share of the room on a suspect is worth a retention search.
    overhead: bytes of memory per byte of sampled live heap, at most (allocator, rounding).
    overhead_go: likewise for Go, which collects when the heap has doubled.
    past_material: an earlier life died of growth that held this share of its limit.
    min_looks, min_count: fewer looks show nothing; fewer goroutines, threads or tasks are no leak.
    assumed_limit_bytes, assumed_limit_factor: where no limit is known, the room ends there or at
    so many times the first memory seen, whichever is more.
    horizon_s: a death later than this is not forecast.
    """

    alpha: float = 0.01
    material: float = 0.01
    explained: float = 0.05
    steady: float = 0.7
    settled: float = 0.45
    survival: float = 0.9
    drop: float = 0.25
    recent: float = 0.15
    followed: float = 0.4
    watched: float = 0.2
    good_part: float = 0.1
    main_part: float = 0.25
    min_looks: int = 5
    many_looks: int = 9
    probable: float = 0.25
    confirmed: float = 0.37
    jointly: float = 1.2
    unseen: float = 0.21
    straight: float = 0.93
    straight_held: float = 0.85
    held: float = 0.2
    emptied: float = 0.3
    never_emptied: float = 0.18
    asked_for: float = 0.09
    held_for_good: float = 0.08
    changed: float = 0.2
    inspected: float = 0.04
    past_material: float = 0.05
    overhead: float = 1.35
    overhead_go: float = 2.0
    min_count: float = 20.0
    horizon_s: float = 30 * 86400.0
    assumed_limit_bytes: float = 256 * _MIB
    assumed_limit_factor: float = 4.0
