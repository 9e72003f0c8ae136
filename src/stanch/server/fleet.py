"""The loops behind the server: scrape, store, detect, and write down what was found.

Each target is asked once in `every_s` seconds, at a moment of its own that follows from its name,
so that thousands are spread evenly and none moves when others come and go. What it gave goes into
the store, with the profiles as they came. At another pace every service is judged by what the store
knows of it, pushed or scraped; findings and the health of targets are written back. Where several
servers share the store, `division.py` says which services and targets are this one's.

A fault of a target, of the store or of a judgement is a sentence in the state; the loops go on.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from stanch.collect import FetchError, Scrape, Scraper, Target, TargetSource, observe
from stanch.collect.fetch import Connection
from stanch.collect.observe import breakdown_of
from stanch.collect.received import Received
from stanch.detect import (
    InstanceVerdict,
    ServiceVerdict,
    Settings,
    judge_service,
)
from stanch.profile import ProfileError
from stanch.server.division import Division, Share
from stanch.server.follow import Follower
from stanch.server.inspect import Inspectors
from stanch.server.ledger import Ledger
from stanch.server.slowness import Latencies
from stanch.server.watch import TargetRow, WatchState
from stanch.store import Look
from stanch.store.errors import StoreError
from stanch.store.history import HEAP
from stanch.store.history import TargetRow as TargetHealth
from stanch.store.rows import COUNTED_TOGETHER
from stanch.store.sqlshared import read_services_on_record
from stanch.store.sqlstore import Extra, SqlStore, Taken

_log = logging.getLogger("stanch.server")
_TARGETS_READ_EVERY_S = 5.0
_MOST_PUSHERS = 100_000
_PUSHER_SILENT_S = 600.0
_SEARCH_TIMEOUT_S = 30.0
_MOST_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """every_s: between scrapes of a target. detect_every_s: between judgements of a service."""

    every_s: float = 15.0
    detect_every_s: float = 15.0
    concurrency: int = 32
    settings: Settings = field(default_factory=Settings)


class Fleet:
    """Scrapes and judges until it is told to stop; `run` belongs to one event loop.

    told: given each state of the detection, from its thread: for alarms. breakdown: what the memory
    of a target is made of, bytes by name. witness: shown each scrape and what it says, from several
    threads.
    """

    def __init__(
        self,
        store: SqlStore,
        targets: TargetSource,
        options: FleetOptions | None = None,
        *,
        division: Division | None = None,
        told: Callable[[WatchState], None] = lambda state: None,
        breakdown: Callable[[Scrape], Mapping[str, int]] = breakdown_of,
        witness: Callable[[Scrape, Look | None], None] = lambda scrape, look: None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take up the findings that fired when the store was last used. Raises StoreError.

        division: what of all this is this server's; None for everything.
        """
        self._store = store
        self._division = division or Division(store)
        self._source = targets
        self._options = options or FleetOptions()
        self._told = told
        self._breakdown = breakdown
        self._witness = witness
        self._monotonic = monotonic
        self._wall = wall
        self._began_s = monotonic()
        every_s = self._options.every_s
        self._scraper = Scraper(
            monotonic=monotonic,
            wall=wall,
            timeout_s=min(10.0, max(1.0, 0.8 * every_s)),
            concurrency=self._options.concurrency,
        )
        self._health: dict[Target, TargetHealth] = {}
        self._pushers: dict[tuple[str, str], TargetHealth] = {}
        self._ledger = Ledger(store, wall)
        # Of what is divided each service is taken up when it becomes this server's.
        known = () if self._division.is_shared else self._ledger.take_up()
        self._follower = Follower(wall, known)
        self._latencies = Latencies()
        self._inspectors = Inspectors()
        self._verdicts: list[ServiceVerdict] = []
        self._step = 0
        self.trouble: str | None = None

    def heard(self, received: Received) -> None:
        """A push came: its sender is a target too. From any thread."""
        key = (received.service, received.instance)
        if key in self._pushers or len(self._pushers) < _MOST_PUSHERS:
            now_s = self._wall()
            self._pushers[key] = TargetHealth(*key, "", "push", "", "", None, now_s, now_s)

    def is_pushed(self, service: str, instance: str) -> bool:
        """Whether an instance sends its profiles by itself, so that nobody looks at it."""
        return (service, instance) in self._pushers

    async def run(self, stop: asyncio.Event) -> None:
        """Scrape and detect until `stop` is set."""
        following: dict[Target, asyncio.Task[None]] = {}
        detection = asyncio.create_task(self._detect_forever())
        try:
            while not stop.is_set():
                wanted = await asyncio.to_thread(self._wanted)
                for target in following.keys() - wanted:
                    following.pop(target).cancel()
                    self._health.pop(target, None)
                    self._latencies.forget(target)
                    await self._scraper.forget(target)
                for target in wanted - following.keys():
                    following[target] = asyncio.create_task(self._follow(target))
                for task in [detection, *following.values()]:
                    if task.done():
                        task.result()
                try:
                    await asyncio.wait_for(stop.wait(), _TARGETS_READ_EVERY_S)
                except TimeoutError:
                    continue
        finally:
            tasks = [detection, *following.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._scraper.close()

    async def scrape_once(self, target: Target) -> None:
        """Ask a target and store what it gave."""
        began_s = self._monotonic()
        scrape = await self._scraper.scrape_target(target)
        took_s = self._monotonic() - began_s
        service, error = await asyncio.to_thread(self._keep, scrape)
        before = self._health.get(target)
        good_s = scrape.unix_s if not error else before.last_good_unix_s if before else None
        self._health[target] = TargetHealth(
            service=service or (before.service if before else target.service or target.instance),
            instance=target.instance,
            address=target.base_url if target.unix_path is None else f"unix:{target.unix_path}",
            origin="scrape",
            verdict=before.verdict if before and not error else "down" if error else "unknown",
            error=error,
            duration_s=took_s,
            last_unix_s=scrape.unix_s,
            last_good_unix_s=good_s,
        )

    def detect_once(self) -> WatchState:
        """Judge every service of this server by what the store knows, and write down what was
        found. Raises StoreError."""
        services = self._store.services()
        names = set(services)
        if self._division.is_shared:
            names |= read_services_on_record(self._store.engine)
        owned = self._division.share(names, self._begin).owned
        verdicts = [
            judge_service(
                self._store.series(service),
                self._options.settings,
                self._inspectors.of(service).holders,
            )
            for service in services
            if service in owned
        ]
        self._verdicts = verdicts
        found = [finding for verdict in verdicts for finding in verdict.findings]
        fixes = tuple(fix for verdict in verdicts for fix in verdict.fixes)
        instances = {
            (one.service, one.instance): one for verdict in verdicts for one in verdict.instances
        }
        new, changed, resolved = self._follower.follow(found)
        self._step += 1
        now_s = self._wall()
        self._ledger.write(self._follower.findings, resolved, fixes, self._inspectors.answer_to)
        health = self._judged_health(instances)
        if self._division.is_shared:
            health = self._with_others(health, instances)
        self._store.write_targets(health)
        return WatchState(
            step=self._step,
            unix_s=now_s,
            elapsed_s=self._monotonic() - self._began_s,
            rows=tuple(_row(one, instances.get((one.service, one.instance))) for one in health),
            findings=self._follower.findings,
            new=new,
            changed=changed,
            resolved=resolved,
            fixes=fixes,
            source_error=self._source.error,
        )

    def _begin(self, share: Share) -> None:
        """Go on with the findings of services that have come, and let go of those that went."""
        self._ledger.leave(share.lost)
        self._follower.leave(share.lost)
        self._follower.take_up(self._ledger.take_up(share.gained))

    def _wanted(self) -> frozenset[Target]:
        """The targets to scrape."""

        def service_of(target: Target) -> str:
            known = self._health.get(target)
            return known.service if known is not None and known.last_good_unix_s else ""

        return self._division.scraped(self._source.targets(), service_of)

    async def _follow(self, target: Target) -> None:
        """Scrape a target at its own moment of each round."""
        every_s = self._options.every_s
        offset_s = zlib.crc32(target.instance.encode()) % 1000 / 1000 * every_s
        while True:
            now_s = self._monotonic()
            await asyncio.sleep((offset_s - now_s) % every_s or every_s)
            await self.scrape_once(target)

    def _keep(self, scrape: Scrape) -> tuple[str, str]:
        """The service of a scrape, and what went wrong with it in a sentence, or ""."""
        look = observe(scrape)
        self._witness(scrape, look)
        if look is None:
            return "", scrape.error or "gave nothing to look at"
        try:
            extra = Extra(self._latencies.latency_s(scrape), self._breakdown(scrape))
            self._store.take(look, taken_of(scrape), extra)
        except (StoreError, ProfileError) as error:
            return look.service, str(error)
        return look.service, scrape.error or ""

    async def _inspect(self) -> None:
        """Make the retention searches that the last verdicts asked for."""
        targets = {(one.service, one.instance): target for target, one in self._health.items()}

        async def ask(service: str, instance: str, path: str) -> bytes:
            target = targets.get((service, instance))
            if target is None:
                raise FetchError(f"{instance} is not scraped, so it cannot be asked")
            # A connection of its own: the search may take longer than a scrape, which goes on.
            async with Connection(target, _SEARCH_TIMEOUT_S) as connection:
                return await connection.get(path, _MOST_ANSWER_BYTES)

        await self._inspectors.look(self._verdicts, ask)

    async def _detect_forever(self) -> None:
        while True:
            await asyncio.sleep(self._options.detect_every_s)
            try:
                state = await asyncio.to_thread(self.detect_once)
                await asyncio.to_thread(self._told, state)
                await self._inspect()
            except StoreError as error:
                self.trouble = str(error)
            except Exception as error:
                # A judgement that fails must not end the watch over everything else.
                _log.exception("detection failed")
                self.trouble = f"detection failed: {error}"
            else:
                self.trouble = None

    def _judged_health(
        self, instances: dict[tuple[str, str], InstanceVerdict]
    ) -> list[TargetHealth]:
        silent_s = self._wall() - _PUSHER_SILENT_S
        for key in [key for key, one in self._pushers.items() if one.last_unix_s < silent_s]:
            del self._pushers[key]
        judged = []
        for one in [*self._health.values(), *self._pushers.values()]:
            verdict = instances.get((one.service, one.instance))
            if verdict is not None and not (one.origin == "scrape" and one.error):
                one = replace(one, verdict=verdict.verdict)
            judged.append(one)
        return judged

    def _with_others(
        self, mine: list[TargetHealth], instances: dict[tuple[str, str], InstanceVerdict]
    ) -> list[TargetHealth]:
        """With what other servers scrape, and are sent, of services that this one judges."""
        written = self._store.history.targets()
        mine = self._division.of_this_server(mine, written)
        known = {(one.service, one.instance, one.address) for one in mine}
        recent_s = self._wall() - _PUSHER_SILENT_S
        theirs = [
            one
            if one.error or (verdict := instances.get((one.service, one.instance))) is None
            else replace(one, verdict=verdict.verdict)
            for one in written
            if one.service in self._division.owned
            and one.last_unix_s >= recent_s
            and (one.service, one.instance, one.address) not in known
        ]
        return mine + theirs


def taken_of(scrape: Scrape) -> list[Taken]:
    """The profiles of a scrape as they came; a heap that was seen before is left out."""
    profiles = [
        Taken(HEAP, heap.raw, number)
        for number, heap in enumerate(scrape.heaps)
        if heap.fresh and heap.raw
    ]
    if scrape.counts_raw:
        profiles.append(Taken(COUNTED_TOGETHER, scrape.counts_raw))
    return profiles


def _row(health: TargetHealth, verdict: InstanceVerdict | None) -> TargetRow:
    return TargetRow(
        service=health.service,
        instance=health.instance,
        verdict=health.verdict,
        memory_bytes=verdict.memory_bytes if verdict else None,
        limit_bytes=verdict.limit_bytes if verdict else None,
        growth_bytes_per_second=verdict.growth_bytes_per_second if verdict else None,
        seconds_to_death=verdict.seconds_to_death if verdict and not health.error else None,
        error=health.error or None,
    )
