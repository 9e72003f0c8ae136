"""The logbook: gathers what happens during a run and makes the Record that is judged."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stanch import deaths as written
from stanch.alert.message import Message
from stanch.detect import LEAKS, STAGES, Finding
from stanch.recycle.recycler import RecycleEvent

from .autopsies import autopsy
from .deploy import Deployment
from .host.node import Died
from .lives import Trace, life_of
from .record import Autopsy, Death, Holding, Place, Record, Recycled, Sighting, Told, Written
from .scenario import Scale


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was foretold of the node that dies first, in seconds of load."""

    said_at_s: float
    soonest_s: float
    likely_s: float
    latest_s: float


class Logbook:
    """Everything seen since the load began. One thread writes it."""

    def __init__(self, deployment: Deployment, scale: Scale) -> None:
        self._deployment = deployment
        self._sightings: dict[tuple[object, str, str], Sighting] = {}
        self._findings: dict[object, Finding] = {}
        self._told: set[object] = set()
        self._forecasts: dict[str, Forecast | None] = {}
        self._deaths: list[Death] = []
        self._autopsies: list[Autopsy] = []
        self._holdings: list[Holding] = []
        self._written: dict[str, Written] = {}
        self._told_people: list[Told] = []
        self._recycled: list[Recycled] = []
        self._traces = {
            node: Trace(service.name, scale.limits[service.name])
            for service in deployment.services
            for node in service.node_names()
        }

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The last word on each cause."""
        return tuple(self._findings.values())

    def note_findings(self, at_s: float, findings: Iterable[Finding]) -> list[Finding]:
        """Note what the watcher says now; return what is news.

        News is a leak that is at least probable, a stage that is surer than before, and a leak
        that was told of and no longer looks like one. Suspicions come and go: noted, not told.
        """
        news = []
        for finding in findings:
            self._findings[finding.key] = finding
            self._note_forecast(at_s, finding)
            is_first = self._note_sighting(at_s, finding)
            if finding.kind in LEAKS and finding.stage != STAGES[0] and is_first:
                self._told.add(finding.key)
                news.append(finding)
            elif finding.kind not in LEAKS and finding.key in self._told:
                self._told.remove(finding.key)
                news.append(finding)
        return news

    def note_memory(self, at_s: float, used_bytes: Mapping[str, int]) -> None:
        """Note the memory in use by node; first lives only, for a later one began elsewhere."""
        dead = {death.node for death in self._deaths}
        for node, used in used_bytes.items():
            if node not in dead:
                self._traces[node].readings.append((at_s, used))

    def note_death(self, at_s: float, died: Died, *, keep_tables: bool) -> Autopsy | None:
        """Note a node's end and read what its tables show; older ones go unless kept."""
        self._deaths.append(
            Death(at_s, died.service, died.node, died.life, died.at_limit, died.how)
        )
        tables = self._deployment.tables(died.node, died.life)
        found = autopsy(died.service, died.node, tables)
        if found is not None and died.at_limit:
            self._autopsies.append(found)
        if not keep_tables:
            # Stanch itself has yet to read them; those of the life before it has read.
            before = self._deployment.tables(died.node, died.life - 1)
            shutil.rmtree(before, ignore_errors=True)
        return found

    def note_holding(self, holding: Holding) -> None:
        """Note what keeps a leak alive."""
        self._holdings.append(holding)

    def note_written(self, at_s: float, death: written.Death) -> None:
        """Note a death as Stanch wrote it down; a later word about the same one replaces it."""
        place = Place(death.file, death.line, death.function)
        told = death.forecast is not None
        self._written[death.key] = Written(
            at_s, death.service, death.instance, death.cause, place, death.taken_by, told
        )

    def note_told(self, at_s: float, message: Message) -> bool:
        """Note what people would have been told; return whether it is an alarm, not its end."""
        if message.news not in ("firing", "worse"):
            return False
        alarm = message.alarm
        told = Told(at_s, alarm.service, alarm.cause, alarm.stage, message.news)
        self._told_people.append(told)
        return True

    def note_recycled(self, at_s: float, event: RecycleEvent) -> None:
        """Note what recycling did."""
        done = Recycled(at_s, event.service, event.instance, event.what, event.text)
        self._recycled.append(done)

    def take_forecast(self, service: str) -> Forecast | None:
        """Return what the first confirmed leak of a service foretold of its first death.

        None when nothing was foretold, or when that death was already asked about.
        """
        forecast, self._forecasts[service] = self._forecasts.get(service), None
        return forecast

    def record(self) -> Record:
        """Return all of it, for the verdict."""
        services = tuple(service.name for service in self._deployment.services)
        lives = {
            service: life
            for service in services
            if (life := life_of(service, self._traces.values(), self._deaths)) is not None
        }
        return Record(
            services=services,
            sightings=tuple(sorted(self._sightings.values(), key=lambda one: one.at_s)),
            lives=lives,
            deaths=tuple(self._deaths),
            autopsies=tuple(self._autopsies),
            holdings=tuple(self._holdings),
            written=tuple(self._written.values()),
            told=tuple(self._told_people),
            recycled=tuple(self._recycled),
        )

    def _note_sighting(self, at_s: float, finding: Finding) -> bool:
        """Note that this was said; return whether it was said for the first time."""
        key = (finding.key, finding.kind, finding.stage)
        if key in self._sightings:
            return False
        place = Place(finding.file, finding.line, finding.function)
        self._sightings[key] = Sighting(
            at_s, finding.service, finding.kind, finding.stage, place, finding.taken_by
        )
        return True

    def _note_forecast(self, at_s: float, finding: Finding) -> None:
        if finding.is_confirmed_leak and finding.seconds_to_death is not None:
            soonest, likely, latest = finding.seconds_to_death
            foretold = Forecast(at_s, at_s + soonest, at_s + likely, at_s + latest)
            self._forecasts.setdefault(finding.service, foretold)
