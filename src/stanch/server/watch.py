"""The loop: scrape, store, detect.

A Watcher takes targets and gives, step by step, a WatchState: one row per target and the findings
with what became of them. A target's fault is an error in its row, never an exception. Its
memory is bounded by the store's bounds. It runs in the caller's thread; no other thread is used.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stanch.collect import (
    FetchError,
    FixedTargets,
    Scrape,
    Scraper,
    Target,
    TargetSource,
    observe,
)
from stanch.collect.running import run_for_result
from stanch.deaths import Death
from stanch.detect import (
    Finding,
    Fix,
    InstanceVerdict,
    ServiceVerdict,
    Settings,
    judge_service,
)
from stanch.server.follow import Follower
from stanch.server.inspect import Inspectors
from stanch.store import Look, MemoryStore, ServiceSeries


@dataclass(frozen=True, slots=True)
class TargetRow:
    """One target at one step; numbers are None as long as they are unknown.

    verdict: as InstanceVerdict says, or "down" while nothing is known of a target that fails.
    error: one sentence when its last scrape failed, wholly or in part. life: what tells its oldest
    process from an earlier one, "" when nothing does. Of a pod: release (its version label or its
    image's tag), owner (as "Deployment shop"), node, whether that is short of memory, restarts.
    slow: why requests have got slow, a sentence. strain: latency and what may explain it, see
    slowness.py.
    """

    service: str
    instance: str
    verdict: str
    memory_bytes: float | None = None
    limit_bytes: float | None = None
    growth_bytes_per_second: float | None = None
    seconds_to_death: tuple[float, float, float] | None = None
    error: str | None = None
    life: str = ""
    release: str = ""
    owner: str = ""
    node: str = ""
    node_pressed: bool = False
    restarts: int | None = None
    slow: str = ""
    strain: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WatchState:
    """What a step found. new, changed and resolved are those findings that are news.

    elapsed_s: since the watcher began, monotonic. source_error: why the list of targets is not
    up to date, or what else of the watch does not work. A finding changes when its kind, stage or
    line does. deaths: those that were noticed since the state before, where they are kept. notes:
    what else was done since then, in sentences. fixes: what became of leaks of earlier releases.
    """

    step: int
    unix_s: float
    elapsed_s: float
    rows: tuple[TargetRow, ...]
    findings: tuple[Finding, ...] = ()
    new: tuple[Finding, ...] = ()
    changed: tuple[Finding, ...] = ()
    resolved: tuple[Finding, ...] = ()
    fixes: tuple[Fix, ...] = ()
    source_error: str | None = None
    deaths: tuple[Death, ...] = ()
    notes: tuple[str, ...] = ()

    def troubled(self, trouble: str) -> "WatchState":
        """The state with one more sentence about what does not work."""
        return replace(self, source_error="; ".join(filter(None, (self.source_error, trouble))))

    @property
    def confirmed(self) -> tuple[Finding, ...]:
        """The accusations."""
        return tuple(finding for finding in self.findings if finding.is_confirmed_leak)


class Watcher:
    """Watches targets every `every_s` seconds. Close it, or use it in a `with` block.

    witness: is shown each scrape and what it says, None when it says nothing.
    monotonic, wall, sleep: the clocks and the pause between steps, for tests to replace.
    """

    def __init__(
        self,
        targets: TargetSource | Iterable[Target],
        every_s: float = 5.0,
        *,
        settings: Settings | None = None,
        store: MemoryStore | None = None,
        timeout_s: float | None = None,
        concurrency: int = 8,
        witness: Callable[[Scrape, Look | None], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = FixedTargets(tuple(targets)) if isinstance(targets, Iterable) else targets
        self._every_s = every_s
        self._settings = settings or Settings()
        self._store = store or MemoryStore()
        self._witness = witness
        self._monotonic = monotonic
        self._wall = wall
        self._sleep = sleep
        self._runner = asyncio.Runner()
        self._scraper = Scraper(
            monotonic=monotonic,
            wall=wall,
            timeout_s=timeout_s or min(10.0, max(1.0, 0.8 * every_s)),
            concurrency=concurrency,
            spread_s=min(1.0, 0.2 * every_s),
        )
        self._began_s = monotonic()
        self._step = 0
        self._names: dict[Target, tuple[str, str]] = {}
        self._lives: dict[Target, str] = {}
        self._follower = Follower(wall)
        self._answered = False
        self._inspectors = Inspectors()
        self._verdicts: list[ServiceVerdict] = []

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def answered(self) -> bool:
        """Whether any target has ever answered."""
        return self._answered

    def series(self, service: str) -> ServiceSeries:
        """All that the store knows of a service, for charts."""
        return self._store.series(service)

    def answer_to(self, finding: Finding) -> Mapping[str, Any] | None:
        """What the last retention search for a finding's memory answered, None without one."""
        return self._inspectors.answer_to(finding)

    def close(self) -> None:
        """Close all connections. The watcher cannot be used afterwards."""
        self._runner.run(self._scraper.close())
        self._runner.close()

    def run(self, for_s: float | None = None) -> Iterator[WatchState]:
        """Step after step, `every_s` apart from beginning to beginning, for so long or for ever.

        A step that takes longer than that is followed by the next one at once.
        """
        began_s = self._monotonic()
        due_s = began_s
        while True:
            yield self.step()
            due_s = max(due_s + self._every_s, self._monotonic())
            if for_s is not None and due_s - began_s >= for_s:
                return
            self._sleep(max(0.0, due_s - self._monotonic()))

    def step(self) -> WatchState:
        """One round: scrape all targets, store what they gave, judge every service."""
        targets = self._source.targets()
        self._forget_all_but(targets)
        scrapes = run_for_result(self._runner, self._round(targets))
        for scrape in scrapes:
            look = observe(scrape)
            if self._witness is not None:
                self._witness(scrape, look)
            if look is not None:
                self._answered = True
                self._names[scrape.target] = (look.service, look.instance)
                self._lives[scrape.target] = _life_of(look)
                self._store.add(look)
        verdicts = [
            judge_service(
                self._store.series(service), self._settings, self._inspectors.of(service).holders
            )
            for service in self._store.services()
        ]
        self._verdicts = verdicts
        instances = {
            (instance.service, instance.instance): instance
            for verdict in verdicts
            for instance in verdict.instances
        }
        found = [finding for verdict in verdicts for finding in verdict.findings]
        new, changed, resolved = self._follower.follow(found)
        self._step += 1
        return WatchState(
            step=self._step,
            unix_s=self._wall(),
            elapsed_s=self._monotonic() - self._began_s,
            rows=tuple(self._row(scrape, instances) for scrape in scrapes),
            findings=self._follower.findings,
            new=new,
            changed=changed,
            resolved=resolved,
            fixes=tuple(fix for verdict in verdicts for fix in verdict.fixes),
            source_error=self._source.error or self._crowded(),
        )

    async def _round(self, targets: Sequence[Target]) -> list[Scrape]:
        """Scrape all targets, and beside it make the retention search that was asked for."""
        scrapes, _ = await asyncio.gather(self._scraper.scrape(targets), self._inspect())
        return scrapes

    async def _inspect(self) -> None:
        """Make the retention searches that the last verdicts asked for."""
        targets = {name: target for target, name in self._names.items()}

        async def ask(service: str, instance: str, path: str) -> bytes:
            target = targets.get((service, instance))
            if target is None:
                raise FetchError(f"{instance} is no target any more")
            return await self._scraper.ask(target, path)

        await self._inspectors.look(self._verdicts, ask)

    def _crowded(self) -> str | None:
        refused = self._store.refused_instances
        if not refused:
            return None
        return f"there is no room for {refused:,} of the instances, which are not judged"

    def _forget_all_but(self, targets: Iterable[Target]) -> None:
        kept = set(targets)
        for target in [target for target in self._names if target not in kept]:
            self._store.forget(*self._names.pop(target))
            self._lives.pop(target, None)

    def _row(self, scrape: Scrape, instances: dict[tuple[str, str], InstanceVerdict]) -> TargetRow:
        target = scrape.target
        name = self._names.get(target)
        known = instances.get(name) if name is not None else None
        if known is None:
            verdict = "down" if scrape.error else "unknown"
            service = target.service or target.instance
            return TargetRow(service, target.instance, verdict, error=scrape.error)
        return TargetRow(
            service=known.service,
            instance=known.instance,
            verdict=known.verdict if scrape.answered else "down",
            memory_bytes=known.memory_bytes,
            limit_bytes=known.limit_bytes,
            growth_bytes_per_second=known.growth_bytes_per_second,
            seconds_to_death=known.seconds_to_death if scrape.answered else None,
            error=scrape.error,
            life=self._lives.get(target, ""),
        )


def _life_of(look: Look) -> str:
    oldest = next(iter(look.processes), None)
    if oldest is None or (oldest.pid is None and oldest.started is None):
        return ""
    return f"{oldest.pid}/{oldest.started}"
