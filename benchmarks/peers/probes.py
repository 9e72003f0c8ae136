"""What a tool knows: tried out on processes whose memory is known."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.readings import C_FUNCTION, Sizes
from benchmarks.peers.runs import Run
from benchmarks.peers.sites import NATIVE_SITES, PYTHON_SITES, SITES
from benchmarks.peers.tools import HURRIED_PUSH_S, Tool

SETTLE_S = 0.5  # a push that arrives sooner may have been taken before
POLL_S = 0.05
LOOK_S = 1.0
SEEN = 0.5  # of a site's bytes, from which on it counts as seen


@dataclass(frozen=True, slots=True)
class Estimates:
    """Each round's estimate / truth by site, and the share of the C structs at their C function."""

    of_site: dict[str, list[float]]
    at_c_function: float

    def error(self, site: str) -> float:
        """Return the root of the mean squared relative error."""
        return math.sqrt(sum((share - 1) ** 2 for share in self.of_site[site]) / self.rounds)

    def bias(self, site: str) -> float:
        """Return the mean relative error."""
        return sum(self.of_site[site]) / self.rounds - 1

    def megabytes(self, site: str) -> float:
        """Return the mean estimate in MB of 2**20 bytes."""
        share = sum(self.of_site[site]) / self.rounds
        return share * SITES[site].live_bytes / (1 << 20)

    @property
    def rounds(self) -> int:
        """How many estimates there are of each site."""
        return len(self.of_site[PYTHON_SITES[0]])


@dataclass(frozen=True, slots=True)
class Reach:
    """When and how the live heap can be had.

    seen_after_s: time from the allocation until a reader outside saw it; None when it did not
    within waited_s. inside: a call inside the process gives it. after_kill: the share of the last
    50 MB before SIGKILL that could still be read; earlier: of the 50 MB before those.
    """

    seen_after_s: float | None
    waited_s: float
    inside: bool
    after_kill: float
    earlier: float


def estimates(tool: Tool, library: Path, rounds: int, seconds: float) -> Estimates:
    """Hold all sites again and again and read what the tool says of them.

    Ends with the first round that `seconds` are over in. Raises RunError.
    """
    sites = (*PYTHON_SITES, *NATIVE_SITES)
    found: list[Sizes] = []
    end = time.monotonic() + seconds

    def more() -> bool:
        return not found or (len(found) < rounds and time.monotonic() < end)

    while more():
        with Run(tool, library, "hold", hurried=True) as run:
            run.answer()
            while more():
                run.tell("hold", *sites)
                sizes = run.tell("inside") or _look(run)
                if sizes is None:  # it speaks only at the end, if at all
                    run.end()
                    found.append(run.look() or {})
                    break
                found.append(sizes)
                run.tell("drop")
    return Estimates(
        {
            site: [sizes.get(site, 0.0) / SITES[site].live_bytes for sizes in found]
            for site in sites
        },
        sum(sizes.get(C_FUNCTION, 0.0) for sizes in found)
        / (len(found) * SITES["c_structs"].live_bytes),
    )


def _look(run: Run) -> Sizes | None:
    """Look until there is something; an endpoint may ask to come again later."""
    since = time.monotonic() + SETTLE_S
    end = since + (5 * HURRIED_PUSH_S if run.tool.pushes else LOOK_S)
    sizes: Sizes | None = run.look(since)
    while sizes is None and time.monotonic() < end:
        time.sleep(POLL_S)
        sizes = run.look(since)
    return sizes


def reach(tool: Tool, library: Path, wait_s: float) -> Reach:
    """Look from outside at 50 MB in a running process, and at 50 MB more after SIGKILL.

    Raises RunError.
    """
    with Run(tool, library, "hold") as run:
        pid = run.answer()
        run.tell("hold", "before_look")
        begin = time.monotonic()
        seen_after_s: float | None = None
        while seen_after_s is None and time.monotonic() < begin + wait_s:
            if _share(run.look(), "before_look") >= SEEN:
                seen_after_s = time.monotonic() - begin
            else:
                time.sleep(POLL_S)
        inside = _share(run.tell("inside"), "before_look") >= SEEN
        run.tell("hold", "before_kill")
        run.kill(pid)
        left = run.look()
    return Reach(
        seen_after_s, wait_s, inside, _share(left, "before_kill"), _share(left, "before_look")
    )


def _share(sizes: Sizes | None, site: str) -> float:
    return (sizes or {}).get(site, 0.0) / SITES[site].live_bytes
