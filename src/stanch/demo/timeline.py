"""The timeline: what a human sees while the incident runs. One line per event, none too many.

Everything printed is plain text; colour is added where the console can show it. Names come from
profiles, which somebody else wrote: control characters in them are shown, not sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from stanch.alert.message import Message
from stanch.detect import LEAKS, Finding, size_text
from stanch.recycle.recycler import RecycleEvent

from .host.node import Died
from .load.report import LoadMeasure
from .logbook import Forecast
from .record import Autopsy, Holding, Place
from .scenario import MIB

_LABEL_WIDTH = 9
_STYLES = {
    "load": "dim",
    "FOUND": "bold yellow",
    "probable": "yellow",
    "KILLED": "bold red",
    "ended": "bold red",
    "autopsy": "cyan",
    "alarm": "magenta",
    "recycle": "green",
    "kept by": "yellow",
    "cleared": "green",
}


@dataclass(frozen=True, slots=True)
class MemoryGauge:
    """The memory of a service's nodes: the least and the most in use, and the limit of one."""

    service: str
    least_bytes: int
    most_bytes: int
    limit_bytes: int


class Timeline:
    """Writes lines to a console, each with the time since the load began."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Write a line that belongs to no moment: preparation, explanation, warning."""
        self._write(Text(_printable(text)))

    def load(self, at_s: float, load: LoadMeasure, gauges: list[MemoryGauge]) -> None:
        """Write how much is asked, how fast it is answered and how full the nodes are."""
        memory = ", ".join(_gauge_text(gauge) for gauge in gauges)
        self._event(
            at_s,
            "load",
            f"{load.per_minute:,.0f}/min, p50 {load.p50_ms:.0f} ms, p99 {load.p99_ms:.0f} ms, "
            f"{load.failed_count} failed; MiB: {memory}",
        )

    def finding(self, at_s: float, finding: Finding) -> None:
        """Write what the watcher has just said: that something leaks, or that it does not."""
        if finding.kind not in LEAKS:
            place = Place(finding.file, finding.line, finding.function)
            text = f"{finding.service}: {place} no longer looks like a leak but like {finding.kind}"
            self._event(at_s, "cleared", text)
        else:
            label = "FOUND" if finding.is_confirmed_leak else finding.stage
            self._event(at_s, label, said(finding))

    def holding(self, at_s: float, found: Holding) -> None:
        """Write what keeps a leak alive, from its root on."""
        grows = f"; {found.grows} grows without bound" if found.grows else ""
        self._event(at_s, "kept by", f"{found.node}: {' -> '.join(found.path)}{grows}")

    def alarm(self, at_s: float, message: Message) -> None:
        """Write what people would have been told."""
        self._event(at_s, "alarm", message.subject)

    def recycled(self, at_s: float, event: RecycleEvent) -> None:
        """Write what recycling does."""
        self._event(at_s, "recycle", f"{event.instance} {event.what}: {event.text}")

    def death(self, at_s: float, died: Died, under_load_s: float, told: Forecast | None) -> None:
        """Write a node's end, how long it had lived under load, and `told`, what was foretold."""
        text = f"{died.node}: {died.how}, {duration(under_load_s)} under load"
        if told is not None:
            text += (
                f"; at {duration(told.said_at_s)} Stanch had foretold the first death of "
                f"{died.service} for {duration(told.likely_s)} "
                f"({duration(told.soonest_s)} to {duration(told.latest_s)})"
            )
        self._event(at_s, "KILLED" if died.at_limit else "ended", text)

    def autopsy(self, at_s: float, found: Autopsy) -> None:
        """Write what a killed process held."""
        self._event(
            at_s,
            "autopsy",
            f"{found.node} (pid {found.pid}) died with {size_text(found.live_bytes)} of live "
            f"heap, {size_text(found.place_bytes)} from {found.place}",
        )

    def _event(self, at_s: float, label: str, text: str) -> None:
        line = Text(f"{duration(at_s):>6}  ")
        line.append(f"{label:<{_LABEL_WIDTH}}", style=_STYLES.get(label, ""))
        line.append(_printable(text))
        self._write(line)

    def _write(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)


def said(finding: Finding) -> str:
    """Return a finding in one line: what, where, how fast, and when it kills."""
    place = Place(finding.file, finding.line, finding.function)
    where = f"at {place}" if finding.file else "in native memory"
    if finding.taken_by:
        where += f", native memory of {finding.taken_by}"
    sure = f"{finding.stage}, confidence {finding.confidence:.2f}"
    parts = [
        f"{finding.service}: {finding.kind} {where} ({sure})",
        f"{size_text(finding.rate_bytes_per_second)}/s",
    ]
    if len(finding.instances) > 1:
        parts[-1] += f" in each of {len(finding.instances)}"
    if finding.rate_bytes_per_request is not None:
        parts.append(f"{size_text(finding.rate_bytes_per_request)} per request")
    if finding.rate_count_per_second is not None:
        parts.append(f"{finding.rate_count_per_second:.1f} more per second")
    if finding.seconds_to_death is not None:
        soonest, likely, latest = finding.seconds_to_death
        first = finding.first_to_die or finding.service
        parts.append(
            f"{first} dies in {duration(likely)} ({duration(soonest)} to {duration(latest)})"
        )
    return ", ".join(parts)


def gauges(
    nodes: Mapping[str, tuple[str, ...]], used: Mapping[str, int], limits: Mapping[str, int]
) -> list[MemoryGauge]:
    """Return the gauge of each service; `nodes` by service, `used` by node, `limits` by service."""
    return [
        MemoryGauge(
            service,
            min(used[name] for name in names),
            max(used[name] for name in names),
            limits[service],
        )
        for service, names in nodes.items()
    ]


def duration(seconds: float) -> str:
    """Return a duration as m:ss, or h:mm:ss from an hour on."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _gauge_text(gauge: MemoryGauge) -> str:
    least, most = gauge.least_bytes // MIB, gauge.most_bytes // MIB
    used = f"{most}" if least == most else f"{least}-{most}"
    return f"{gauge.service} {used}/{gauge.limit_bytes // MIB}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
