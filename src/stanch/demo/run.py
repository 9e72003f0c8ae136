"""The incident from beginning to end: deploy, start, load, watch, record, judge, clean up.

Everything that is started is registered for its end before it is used, so that a failure or
Ctrl-C at any moment leaves no process, no cgroup and no file behind.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from stanch.deaths import Evidence
from stanch.detect import Finding

from .deploy import Deployment, deploy, node_specs, require_servers, targets
from .errors import DemoError
from .holding import holding_of
from .host.limits import Limiter, choose_limiter
from .host.node import Died
from .host.supervisor import Supervisor
from .host.workplace import Workplace
from .load.meter import LoadError, LoadMeter
from .load.report import LoadMeasure
from .logbook import Logbook
from .nodebackend import POLICY, NodeBackend, answers
from .outcome import Outcome
from .record import Record
from .scenario import FULL, MIB, SMALL, SMALL_FIXED, Scale, load_plan
from .showing import Showing, missing_packages
from .timeline import Timeline, duration, gauges
from .truth import HEALTHY, SEEDED_LEAKS
from .verdict import Verdict, judge_incident, judge_recycled, judge_repaired
from .watching import Watching

READY_SECONDS = 90.0
SETTLE_SECONDS = 2.0
STEP_SECONDS = 0.5
LINES_PER_RUN = 14
MIN_LINE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user asked for.

    `window_s` overrides how long the load lasts, in seconds; `scale` overrides the scale, and
    `least_nodes` the nodes of services that have fewer. `recycle` has nodes recycled before they
    die, and the run is judged by that. `pages` is where what the server's pages show is kept; it
    goes with the rest when None.
    """

    fixed: bool = False
    full: bool = False
    window_s: float | None = None
    keep: bool = False
    scale: Scale | None = None
    least_nodes: int = 1
    recycle: bool = False
    pages: Path | None = None


def scale_of(options: DemoOptions) -> Scale:
    """Return the scale that the options ask for."""
    scale = FULL if options.full else SMALL_FIXED if options.fixed else SMALL
    scale = options.scale or scale
    return scale if options.window_s is None else replace(scale, window_s=options.window_s)


def run_demo(options: DemoOptions, timeline: Timeline) -> Outcome:
    """Run the incident and judge it. DemoError when it cannot be run at all."""
    require_servers()
    scale = scale_of(options)
    with _uninterrupted_ending() as ending:
        workplace = Workplace(keep=options.keep)
        ending.callback(workplace.close)
        timeline.note("Building pricing's C library and ledger's Go program ...")
        deployment = deploy(workplace, options.least_nodes)
        if deployment.left_out:
            timeline.note(f"Note: {deployment.left_out}.")
        showing = _showing(
            options.pages or workplace.directory("pages"), workplace, ending, timeline
        )
        limiter = choose_limiter()
        ending.callback(_remove_limits, limiter, timeline)
        specs = node_specs(deployment, scale, fixed=options.fixed)
        supervisor = Supervisor(specs, limiter)
        ending.callback(supervisor.stop)
        _introduce(timeline, deployment, scale, limiter, options)
        if showing is not None:
            url = showing.url()
            timeline.note(
                f"See it live while it runs: {url}"
                if url
                else "Note: the pages did not start; see pages.log with --keep."
            )
        supervisor.start()
        wait_until_ready(deployment, supervisor)
        baselines = supervisor.used_bytes()
        supervisor.events()
        try:
            plan = load_plan(deployment.services, deployment.addresses, baselines, scale)
            meter = LoadMeter(plan)
            ending.callback(meter.stop)
            watched = targets(deployment, scale, tell_limits=not limiter.by_kernel)
            tables = [workplace.directory("tables", node) for node in deployment.addresses]
            data = workplace.directory("data")
            backend = NodeBackend(supervisor, meter, deployment.addresses)
            recycled = [(POLICY, backend)] if options.recycle else []
            watching = ending.enter_context(Watching(watched, data, tables, recycled, showing))
            incident = Incident(deployment, scale, supervisor, meter, watching, timeline, options)
            incident.run()
            watching.stop()
            incident.note_what_was_written()
        except LoadError as problem:
            raise DemoError(str(problem)) from problem
        timeline.note(f"The load ends after {duration(scale.window_s)}; everything is stopped.")
        if options.keep:
            timeline.note(f"Kept: {workplace.root}")
        record = incident.logbook.record()
        return Outcome(
            fixed=options.fixed,
            limits=limiter.description,
            load=meter.total(),
            record=record,
            findings=incident.logbook.findings,
            verdict=_judge(options, record, meter.total()),
            recycle=options.recycle,
        )


def _judge(options: DemoOptions, record: Record, load: LoadMeasure) -> Verdict:
    if options.recycle:
        return judge_recycled(record, SEEDED_LEAKS, HEALTHY, load.failed_count)
    if options.fixed:
        return judge_repaired(record)
    return judge_incident(record, SEEDED_LEAKS, HEALTHY)


class Incident:
    """The time under load: notes what happens, tells the timeline."""

    def __init__(
        self,
        deployment: Deployment,
        scale: Scale,
        supervisor: Supervisor,
        meter: LoadMeter,
        watching: Watching,
        timeline: Timeline,
        options: DemoOptions,
    ) -> None:
        self.logbook = Logbook(deployment, scale)
        self._profiles = deployment.profiles
        self._languages = {one.name: one.server for one in deployment.services}
        self._to_explain: dict[str, Finding] = {}
        self._nodes = {one.name: one.node_names() for one in deployment.services}
        self._scale = scale
        self._supervisor = supervisor
        self._meter = meter
        self._watching = watching
        self._timeline = timeline
        self._keep = options.keep
        self._began = time.monotonic()

    def run(self) -> None:
        """Look, step by step, until the window is over. DemoError when a part of it fails."""
        line_every_s = max(MIN_LINE_SECONDS, self._scale.window_s / LINES_PER_RUN)
        next_line_s = line_every_s
        while (at_s := time.monotonic() - self._began) < self._scale.window_s:
            self._step(at_s)
            if at_s >= next_line_s:
                next_line_s += line_every_s
                self._tell_load(at_s)
            time.sleep(STEP_SECONDS)

    def _step(self, at_s: float) -> None:
        if self._supervisor.failure is not None:
            raise DemoError(f"the supervisor failed: {self._supervisor.failure}")
        if not self._meter.running:
            raise self._meter.failure()
        for event in self._supervisor.events():
            if isinstance(event, Died):
                self._tell_death(event)
        self.logbook.note_memory(at_s, self._supervisor.used_bytes())
        for finding in self.logbook.note_findings(at_s, self._watching.findings()):
            self._timeline.finding(at_s, finding)
            if finding.is_confirmed_leak and finding.function and self._is_python(finding):
                self._to_explain.setdefault(finding.service, finding)
        self._explain(at_s)
        self.note_what_was_written()

    def note_what_was_written(self) -> None:
        """Note the deaths that Stanch has written down, and whom it would have told what."""
        for death in self._watching.take_deaths():
            self.logbook.note_written(self._at_s(death.died_unix), death)
        for event in self._watching.take_recycles():
            at_s = self._at_s(event.at_unix)
            self.logbook.note_recycled(at_s, event)
            self._timeline.recycled(at_s, event)
        for message in self._watching.take_alarms():
            at_s = self._at_s(message.at_unix)
            if self.logbook.note_told(at_s, message):
                self._timeline.alarm(at_s, message)

    def _at_s(self, unix_s: float) -> float:
        return unix_s - time.time() + time.monotonic() - self._began

    def _is_python(self, finding: Finding) -> bool:
        return self._languages.get(finding.service) in ("gunicorn", "uvicorn")

    def _explain(self, at_s: float) -> None:
        """Ask a node of each service that was accused what keeps the leak alive, until it tells."""
        for service, finding in [*self._to_explain.items()]:
            node = finding.first_to_die or finding.instances[0]
            found = holding_of(at_s, service, node, self._profiles[node], finding.function)
            if found is not None:
                del self._to_explain[service]
                self.logbook.note_holding(found)
                self._timeline.holding(at_s, found)

    def _tell_load(self, at_s: float) -> None:
        memory = gauges(self._nodes, self._supervisor.used_bytes(), self._scale.limits)
        self._timeline.load(at_s, self._meter.recent(), memory)

    def _tell_death(self, died: Died) -> None:
        at_s = died.at - self._began
        if died.was_asked:
            return  # Recycling tells of it, and the watch writes it down.
        evidence = Evidence(oom_killed=True) if died.at_limit else Evidence(status=died.status)
        died_unix = time.time() - time.monotonic() + died.at
        self._watching.tell(
            lambda chronicle: chronicle.tell(
                died.service,
                died.node,
                evidence,
                died_unix=died_unix,
                memory_bytes=float(died.used_bytes),
            )
        )
        found = self.logbook.note_death(at_s, died, keep_tables=self._keep)
        under_load_s = min(at_s, died.lived_s)
        self._timeline.death(at_s, died, under_load_s, self.logbook.take_forecast(died.service))
        if found is not None:
            self._timeline.autopsy(at_s, found)


def _showing(
    data: Path, workplace: Workplace, ending: contextlib.ExitStack, timeline: Timeline
) -> Showing | None:
    """Start the pages, where what they need is installed."""
    if missing := missing_packages():
        timeline.note(f"Note: no pages without {', '.join(missing)}; pip install 'stanch[server]'.")
        return None
    showing = Showing(data, workplace.directory("logs") / "pages.log")
    ending.callback(showing.stop)
    return showing


def wait_until_ready(deployment: Deployment, supervisor: Supervisor) -> None:
    """Wait until every node answers, then until it has settled. DemoError when one does not."""
    deadline = time.monotonic() + READY_SECONDS
    waiting = dict(deployment.addresses)
    while waiting:
        for event in supervisor.events():
            if isinstance(event, Died):
                raise DemoError(_failed_start(deployment, event.node, event.how))
        if supervisor.failure is not None:
            raise DemoError(f"a node could not be started: {supervisor.failure}")
        waiting = {node: place for node, place in waiting.items() if not answers(place)}
        if waiting and time.monotonic() > deadline:
            node = next(iter(waiting))
            how = f"does not answer at {waiting[node]} within {READY_SECONDS:.0f} s"
            raise DemoError(_failed_start(deployment, node, how))
        time.sleep(STEP_SECONDS)
    time.sleep(SETTLE_SECONDS)


def _failed_start(deployment: Deployment, node: str, how: str) -> str:
    log = deployment.workplace.directory("logs") / f"{node}.log"
    said = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
    return f"{node} could not be started: {how}. The end of its log:\n{said or '(empty)'}"


def _introduce(
    timeline: Timeline,
    deployment: Deployment,
    scale: Scale,
    limiter: Limiter,
    options: DemoOptions,
) -> None:
    code = "the repaired code" if options.fixed else "the code as the incident found it"
    timeline.note(f"Starting {len(deployment.addresses)} nodes with {code}:")
    for service in deployment.services:
        under = "net/http/pprof" if service.server == "go" else f"{service.server} under stanch run"
        names = service.node_names()
        first = deployment.profiles[names[0]]
        timeline.note(
            f"  {service.name:<8} {len(names)} x {scale.limits[service.name] // MIB} MiB, "
            f"{service.per_minute:,} requests/min, {under}, profiles at http://{first}/debug/pprof/"
        )
    timeline.note(f"Limits: {limiter.description}.")


def _remove_limits(limiter: Limiter, timeline: Timeline) -> None:
    try:
        limiter.remove()
    except OSError as problem:
        timeline.note(f"A cgroup could not be removed; the next demo will try again: {problem}")


@contextlib.contextmanager
def _uninterrupted_ending() -> Iterator[contextlib.ExitStack]:
    """Give an exit stack that the first SIGINT or SIGTERM unwinds, and that no later one disturbs.

    For the main thread. The unwinding is bounded by the time-outs of what it stops.
    """
    stack = contextlib.ExitStack()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def ignore_more() -> None:
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(number: int, frame: FrameType | None) -> None:
        ignore_more()  # Here: a second one may come before any `finally` has begun.
        raise KeyboardInterrupt

    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield stack
    finally:
        try:
            ignore_more()
        finally:
            stack.close()
            for number in heeded:
                signal.signal(number, before[number])
