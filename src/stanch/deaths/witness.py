"""The witness: sees each look at each target, and notices which processes are no longer there.

It is given every scrape, and told by others what only they know (a parent's exit status, the
kubelet's reason, a recycler's intent). An end is believed when a process of this machine is gone
from /proc, when another process answers in its place, or when looks that got through do not show
it again and again. A target that does not answer is not dead: only after GONE_AFTER_S is it written
down as ended unseen.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeGuard

from stanch.collect import Scrape, Target
from stanch.collect.procfs import start_ticks
from stanch.deaths.autopsy import (
    Autopsy,
    autopsy_of,
    table_autopsy,
    table_of,
    table_paths,
    with_autopsy,
)
from stanch.deaths.book import DeathBook
from stanch.deaths.cause import Evidence, cause_of
from stanch.deaths.death import Death, Forecast
from stanch.sampler.cgroup import MemoryGroup, group_oom_kills, memory_group
from stanch.store import Look
from stanch.store.life import NEAR_LIMIT, is_same_life, memory_of

MISSING_LOOKS = 3
GONE_AFTER_S = 600.0
EXPECTED_S = 180.0
_SAME_START_S = 3.0
MOST_TARGETS = 1000
_OOM_KILLS = "stanch_memory_oom_kills_total"
_AFTERMATH_S = 30.0
"""Who ends a container after one of its processes was killed, crashed or was recycled does so
within this."""


LastProfile = Callable[[str, str, float], bytes | None]
"""Of a service, its instance and a time; Raises BookError."""


@dataclass(slots=True)
class _Process:
    """The last that is known of a process.

    is_here: it is surely one of this machine. has_table: it has been seen to keep a live table,
    which it removes when it ends in good order.
    """

    pid: int | None
    started: float | None
    is_here: bool
    has_table: bool = False
    profile: bytes | None = None
    build_id: str = ""
    profile_unix: float = 0.0
    live_bytes: float = 0.0
    missing: int = 0


@dataclass(slots=True)
class _Watched:
    """A target and its present life."""

    look: Look
    began_unix: float
    rise_bytes: float = 0.0
    processes: dict[int | None, _Process] = field(default_factory=dict)
    group: MemoryGroup | None = None
    oom_kills: int | None = None
    forecast: Forecast | None = None
    first_death: Death | None = None


class DeathWatch:
    """Writes deaths into a book. For one thread.

    tables: directories of live tables (`stanch run --table DIR`) on this machine. most_targets: so
    many are watched. last_profile: gives the last heap profile of an instance before a time, Unix
    seconds, as pprof; without it each process's last one is remembered here. root: "/" but for
    tests. Raises BookError where the book cannot be written.
    """

    def __init__(
        self,
        book: DeathBook,
        tables: Iterable[Path] = (),
        *,
        most_targets: int = MOST_TARGETS,
        last_profile: LastProfile | None = None,
        wall: Callable[[], float] = time.time,
        root: Path = Path("/"),
    ) -> None:
        self._book = book
        self._most_targets = most_targets
        self._last_profile = last_profile
        self._tables = tuple(tables)
        self._wall = wall
        self._root = root
        self._watched: dict[Target, _Watched] = {}
        self._noticed: list[Death] = []
        self._expected: dict[tuple[str, str], tuple[Evidence, float]] = {}

    def take(self) -> list[Death]:
        """Return the deaths written down since the last call, oldest first."""
        noticed, self._noticed = self._noticed, []
        return noticed

    def witness(self, scrape: Scrape, look: Look | None) -> None:
        """Take in one scrape of a target; look: what it says, None when it says nothing."""
        watched = self._watched.get(scrape.target)
        if look is None:
            if watched is not None and self._is_gone(watched):
                self._end(scrape.target, watched, list(watched.processes.values()), Evidence())
            return
        if watched is not None and not self._is_same(watched, look):
            changed = Evidence(deployed=_deployed(watched, scrape))
            self._end(scrape.target, watched, list(watched.processes.values()), changed)
            watched = None
        if watched is None:
            if len(self._watched) >= self._most_targets:
                return
            age_s = look.processes[0].age_s if look.processes else None
            watched = _Watched(look, look.unix_s - (age_s or 0.0))
            self._watched[scrape.target] = watched
        else:
            self._notice_missing(scrape, watched, look)
        self._update(scrape, watched, look)

    def foretell(self, instance: str, forecast: Forecast) -> None:
        """Note what was said of an instance; the first word of each life is kept."""
        for watched in self._watched.values():
            if watched.look.instance == instance and watched.forecast is None:
                watched.forecast = forecast

    def forget_all_but(self, instances: Collection[str]) -> None:
        """Stop to watch instances that are no longer targets; they have not died of that."""
        for target, watched in list(self._watched.items()):
            if watched.look.instance not in instances:
                del self._watched[target]

    def expect(self, service: str, instance: str, evidence: Evidence) -> None:
        """Hear why a process of an instance will end within EXPECTED_S. May be called from any
        thread: a look, in its own thread, notices the end."""
        self._expected[(service, instance)] = (evidence, self._wall() + EXPECTED_S)

    def tell(
        self,
        service: str,
        instance: str,
        evidence: Evidence,
        *,
        died_unix: float | None = None,
        pid: int | None = None,
        memory_bytes: float | None = None,
        limit_bytes: float | None = None,
        uptime_s: float | None = None,
        requests: float | None = None,
        in_flight: float | None = None,
        container: str = "",
    ) -> Death | None:
        """Write down an end that somebody else knows of, with all that was seen of the instance.

        container: its identity, which no other end has: what is written of it already is not
        written again, and None is returned.

        died_unix: None when it ended just now; after a while it must be told, lest the end be taken
        for that of the next life.
        pid: of the process that ended; None when all of the instance's did.
        """
        if container and self._book.has_container(service, instance, container):
            return None
        when = self._wall() if died_unix is None else died_unix
        for target, watched in self._watched.items():
            if (watched.look.service, watched.look.instance) != (service, instance):
                continue
            ended = [each for each in watched.processes.values() if pid in (None, each.pid)]
            if not ended or watched.began_unix > when:
                break
            return self._end(target, watched, ended, evidence, when, memory_bytes, container)
        cause, how, sure = cause_of(evidence)
        death = Death(
            key=f"{service}/{instance}/{container or pid or ''}/{when:.0f}",
            service=service,
            instance=instance,
            pids=() if pid is None else (pid,),
            cause=cause,
            how=how,
            sure=sure,
            died_unix=when,
            memory_bytes=memory_bytes,
            limit_bytes=limit_bytes,
            uptime_s=uptime_s,
            requests=requests,
            in_flight=in_flight,
            container=container,
        )
        autopsy = None
        if self._last_profile is not None:
            profile = self._last_profile(service, instance, when)
            autopsy = autopsy_of(profile) if profile is not None else None
        if autopsy is not None:
            death = with_autopsy(death, autopsy, "scrape", 0.0)
        return self._write(death, autopsy)

    def _update(self, scrape: Scrape, watched: _Watched, look: Look) -> None:
        before, now = memory_of(watched.look), memory_of(look)
        watched.rise_bytes = max(0.0, (now or 0.0) - (before or now or 0.0))
        watched.look = look
        heaps = {heap.pid: heap for heap in scrape.heaps}
        starts = _starts(scrape)
        for process in look.processes:
            known = watched.processes.get(process.pid)
            if known is None:
                started = starts.get(process.pid) if process.pid is not None else None
                is_here = self._is_here(scrape, process.pid, started)
                known = _Process(process.pid, process.started, is_here)
                watched.processes[process.pid] = known
                self._find_group(watched, known)
            if known.is_here and not known.has_table and process.pid is not None:
                known.has_table = bool(table_paths(self._tables, process.pid))
            heap = heaps.get(process.pid) or heaps.get(None)
            if heap is not None:
                known.profile_unix = look.unix_s
                known.profile = heap.raw if self._last_profile is None else None
                known.build_id = heap.reading.build_id
                known.live_bytes = heap.reading.live_bytes
        count = self._count_of_kills(watched, scrape)
        watched.oom_kills = count if count is not None else watched.oom_kills

    def _notice_missing(self, scrape: Scrape, watched: _Watched, look: Look) -> None:
        """Find processes of a target that answers which are no longer part of it."""
        seen: set[int | None] = {heap.pid for heap in scrape.heaps} | set(_starts(scrape))
        seen |= {process.pid for process in look.processes}
        ended = []
        for process in watched.processes.values():
            if process.pid in seen or process.pid is None:
                process.missing = 0
                continue
            process.missing += 1
            # A process of this machine that is still in /proc is only too busy to answer.
            gone = not self._exists(process.pid)
            if gone if process.is_here else process.missing >= MISSING_LOOKS:
                ended.append(process)
        if ended:
            killed = self._oom_killed(watched, scrape)
            self._end(scrape.target, watched, ended, Evidence(oom_killed=killed))

    def _end(
        self,
        target: Target,
        watched: _Watched,
        ended: list[_Process],
        evidence: Evidence,
        died_unix: float | None = None,
        memory_bytes: float | None = None,
        container: str = "",
    ) -> Death:
        look = watched.look
        when = died_unix if died_unix is not None else look.unix_s
        heaviest = sorted(ended, key=lambda process: -process.live_bytes)
        autopsy, source, taken_unix, clean = self._autopsy(look, heaviest, watched.began_unix)
        memory = memory_bytes if memory_bytes is not None else memory_of(look)
        seen = Evidence(
            oom_killed=self._oom_killed(watched),
            clean=clean,
            near_limit=_near_limit(memory, watched.rise_bytes, look.limit_bytes),
        )
        expected, until_unix = self._expected.get((look.service, look.instance), (Evidence(), 0.0))
        if self._wall() <= until_unix:
            del self._expected[(look.service, look.instance)]
            evidence |= expected
        cause, how, sure = cause_of(evidence | seen)
        pids = tuple(process.pid for process in heaviest if process.pid is not None)
        is_whole = len(ended) == len(watched.processes)
        of = set(pids)
        counted = [each for each in look.processes if each.pid in of or each.pid is None]
        death = Death(
            key=f"{look.service}/{look.instance}/{'+'.join(map(str, sorted(pids)))}"
            f"/{watched.began_unix:.0f}",
            service=look.service,
            instance=look.instance,
            pids=pids,
            cause=cause,
            how=how,
            sure=sure,
            died_unix=when,
            uptime_s=max(0.0, when - watched.began_unix),
            memory_bytes=memory,
            limit_bytes=look.limit_bytes,
            requests=_total(each.requests for each in counted),
            in_flight=_total(each.in_flight for each in counted),
            forecast=watched.forecast,
            container=container,
        )
        if is_whole and _is_aftermath(watched.first_death, death, clean=bool(clean)):
            # A look came between the end of one process and that of the others: by whoever
            # started them, after a kill. That is one death, of which the first one tells.
            self._watched.pop(target, None)
            return self._add_to(watched.first_death, death)
        if autopsy is not None:
            death = with_autopsy(death, autopsy, source, when - taken_unix)
        if is_whole:
            self._watched.pop(target, None)
        else:
            watched.forecast = None
            for process in ended:
                watched.processes.pop(process.pid, None)
            watched.first_death = death if death.cause in ("oom", "crash", "recycle") else None
        return self._write(death, autopsy)

    def _add_to(self, known: Death, rest: Death) -> Death:
        return self._book.record(replace(rest, key=known.key))

    def _write(self, death: Death, autopsy: Autopsy | None) -> Death:
        profile = autopsy.profile if autopsy is not None else None
        written = self._book.record(death, profile)
        self._noticed.append(written)
        return written

    def _autopsy(
        self, look: Look, heaviest: list[_Process], began_unix: float
    ) -> tuple[Autopsy | None, str, float, bool | None]:
        """Return the autopsy, where it is from, of when, and whether the end was a clean one."""
        best: tuple[Autopsy | None, str, float] = (None, "", 0.0)
        clean: bool | None = None
        for process in heaviest:
            if process.pid is None or not process.is_here:
                continue
            image = table_of(self._tables, process.pid, began_unix)
            if image is not None or process.has_table:
                was_clean = image is None or image.stopped
                clean = was_clean if clean is None else clean and was_clean
            if image is None:
                continue
            found = table_autopsy(image)
            if found is not None and (best[0] is None or found.live_bytes > best[0].live_bytes):
                taken_unix = (image.start_unix_ns + image.uptime_ns) / 1e9
                best = (found, "table", taken_unix)
        if best[0] is None:
            for process in heaviest:
                profile = self._profile_of(look, process)
                found = autopsy_of(profile) if profile is not None else None
                if found is not None:
                    best = (found, "scrape", process.profile_unix)
                    break
        return (*best, clean)

    def _profile_of(self, look: Look, process: _Process) -> bytes | None:
        """The last heap profile of a process, or of its instance where a store has it."""
        if self._last_profile is None or not process.profile_unix:
            return process.profile
        return self._last_profile(look.service, look.instance, process.profile_unix)

    def _is_same(self, watched: _Watched, look: Look) -> bool:
        """Whether a look is of the life that was watched.

        It is where a process of it lives on, also when the look tells of an older one, such as a
        server that answers only after its worker did.
        """
        if is_same_life(watched.look, look):
            return True
        starts = {process.pid: process.started for process in look.processes}
        return any(
            self._runs(each.pid)
            if each.is_here
            else each.started is not None and each.started == starts.get(each.pid)
            for each in watched.processes.values()
            if each.pid is not None
        )

    def _is_gone(self, watched: _Watched) -> bool:
        """Whether a target that does not answer has surely ended, or was away for too long."""
        known = [process for process in watched.processes.values() if process.pid is not None]
        if known and all(each.is_here and not self._exists(each.pid) for each in known):
            return True
        return self._wall() - watched.look.unix_s >= GONE_AFTER_S

    def _exists(self, pid: int | None) -> bool:
        return (self._root / "proc" / str(pid)).exists()

    def _runs(self, pid: int | None) -> bool:
        """Whether a process of this machine is there and has not ended."""
        try:
            stat = (self._root / "proc" / str(pid) / "stat").read_text(errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[:1] not in (["Z"], ["X"], [])

    def _is_here(self, scrape: Scrape, pid: int | None, started_unix: float | None) -> bool:
        """Whether a pid that a target tells is one of this machine, and not of a container's."""
        if pid is None or not scrape.target.is_local:
            return False
        if scrape.local is not None:
            return scrape.local.pid == pid
        here = _start_unix(pid, self._root)
        if here is None or started_unix is None:
            return False
        return abs(here - started_unix) < _SAME_START_S

    def _find_group(self, watched: _Watched, process: _Process) -> None:
        if watched.group is None and process.is_here and process.pid is not None:
            watched.group = memory_group(process.pid, self._root)
            if watched.group is not None:
                watched.oom_kills = group_oom_kills(watched.group)

    def _oom_killed(self, watched: _Watched, scrape: Scrape | None = None) -> bool | None:
        """Whether the kernel has counted a kill in the group since the last look; None unknown.

        scrape: what the target tells now, where it answers.
        """
        count = self._count_of_kills(watched, scrape)
        if count is None or watched.oom_kills is None:
            return None
        return True if count > watched.oom_kills else None

    def _count_of_kills(self, watched: _Watched, scrape: Scrape | None) -> int | None:
        if watched.group is not None:
            return group_oom_kills(watched.group)
        if scrape is None or scrape.metrics is None:
            return None
        told = scrape.metrics.largest(_OOM_KILLS)
        return None if told is None else int(told)


def _starts(scrape: Scrape) -> dict[int, float]:
    """The start of each process that the metrics speak of, Unix time."""
    if scrape.metrics is None:
        return {}
    return {
        int(metric.labels["pid"]): metric.value
        for metric in scrape.metrics.metrics.get("process_start_time_seconds", ())
        if metric.labels.get("pid", "").isdigit()
    }


def _start_unix(pid: int, root: Path) -> float | None:
    ticks = start_ticks(pid, root)
    try:
        up_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return None
    return None if ticks is None else time.time() - up_s + ticks / os.sysconf("SC_CLK_TCK")


def _is_aftermath(first: Death | None, rest: Death, *, clean: bool) -> TypeGuard[Death]:
    """Whether the rest of a container ended as part of a death: killed, or recycled with it."""
    if first is None or abs(rest.died_unix - first.died_unix) > _AFTERMATH_S:
        return False
    return rest.cause == "exit" if first.cause == "recycle" else not clean


def _near_limit(memory: float | None, rise: float, limit: float | None) -> bool | None:
    """Whether memory was at its limit, or would have been by the next look."""
    if memory is None or not limit:
        return None
    return memory + 1.5 * rise >= NEAR_LIMIT * limit


def _total(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _deployed(watched: _Watched, scrape: Scrape) -> str:
    """Say from which build to which, where the executables tell; "" when they are the same."""
    old = next((each.build_id for each in watched.processes.values() if each.build_id), "")
    new = scrape.heaps[0].reading.build_id if scrape.heaps else ""
    return f"build {old[:12]} to {new[:12]}" if old and new and old != new else ""
