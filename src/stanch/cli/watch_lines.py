"""A watch without a terminal: plain lines, one per event, or JSON lines."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TextIO

from stanch.deaths.telling import death_facts, death_title, forecast_text
from stanch.detect import (
    LEAKS,
    Finding,
    Fix,
    finding_facts,
    finding_title,
    finding_to_dict,
    size_text,
    time_text,
)
from stanch.server.watch import TargetRow, WatchState

_SUMMARY_EVERY_S = 60.0


class PlainLines:
    """One line per event with its time; every minute one on each target.

    Growth that is no leak is told only when it was taken for one before.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._errors: dict[str, str | None] = {}
        self._verdicts: dict[str, str] = {}
        self._summary_s = 0.0
        self._source_error: str | None = None
        self._suspected: set[tuple[str, str, str]] = set()
        self._fixes: set[tuple[str, ...]] = set()

    def start(self, targets: int, every_s: float) -> None:
        """Say what is watched."""
        self._say(time.time(), f"watching {_number(targets, 'target')} every {every_s:g} s")

    def show(self, state: WatchState) -> None:
        """Say what is news."""
        self._say(state.unix_s, *self._news(state))

    def end(self, state: WatchState | None, confirmed: int) -> None:
        """Say the result."""
        steps = state.step if state else 0
        result = _number(confirmed, "finding") if confirmed else "nothing"
        self._say(time.time(), f"ended after {_number(steps, 'step')}: {result} confirmed")

    def _news(self, state: WatchState) -> Iterator[str]:
        if state.source_error != self._source_error:
            self._source_error = state.source_error
            yield state.source_error or "the list of targets is up to date again"
        is_due = state.elapsed_s >= self._summary_s
        if is_due:
            self._summary_s = state.elapsed_s + _SUMMARY_EVERY_S
        for row in state.rows:
            if row.error != self._errors.get(row.instance):
                self._errors[row.instance] = row.error
                yield f"{row.instance}: {row.error or 'answers again'}"
            news = row.verdict != self._verdicts.get(row.instance)
            if row.memory_bytes is not None and (news or is_due):
                self._verdicts[row.instance] = row.verdict
                yield row_text(row)
        yield from state.notes
        for death in state.deaths:
            yield f"ended: {death_title(death)}"
            yield from (f"  {text}" for text in (death_facts(death), forecast_text(death)) if text)
        for fix in _new_fixes(state, self._fixes):
            yield from (f"{fix.state}: {sentence}" for sentence in fix.evidence)
        for event, findings in _events(state):
            for finding in findings:
                place = (finding.service, finding.file, finding.function)
                if finding.kind in LEAKS:
                    self._suspected.add(place)
                elif place not in self._suspected:
                    continue  # caches and warm-up are news only to whom they were called a leak
                yield f"{event}: {finding_title(finding)}"
                if event == "resolved":
                    continue
                yield f"  {finding_facts(finding)}"
                if finding.stage != "suspect":
                    yield from (f"  {sentence}" for sentence in finding.evidence)
                    yield from (f"    at {frame}" for frame in finding.stack[:8])

    def _say(self, unix_s: float, *lines: str) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(unix_s))
        _write(self._stream, [f"{clock} {line}" for line in lines])


class JsonLines:
    """One JSON object per line; docs/detection.md describes them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fixes: set[tuple[str, ...]] = set()

    def start(self, targets: int, every_s: float) -> None:
        """The event `start`."""
        about = {"targets": targets, "every_s": every_s}
        _write(self._stream, [_event("start", time.time(), about)])

    def show(self, state: WatchState) -> None:
        """An event `state`, then one `fix` or `finding` for each that is news."""
        rows = [asdict(row) for row in state.rows]
        about: dict[str, Any] = {"step": state.step, "elapsed_s": round(state.elapsed_s, 3)}
        about |= {"targets": rows, "source_error": state.source_error}
        lines = [_event("state", state.unix_s, about)]
        lines += [
            _event("fix", state.unix_s, {"step": state.step, "fix": asdict(fix)})
            for fix in _new_fixes(state, self._fixes)
        ]
        for change, findings in _events(state):
            for finding in findings:
                about = {"step": state.step, "change": change}
                about["finding"] = finding_to_dict(finding)
                lines.append(_event("finding", state.unix_s, about))
        about = {"step": state.step}
        lines += [_event("note", state.unix_s, about | {"text": text}) for text in state.notes]
        for death in state.deaths:
            about = {"step": state.step, "death": asdict(death)}
            lines.append(_event("death", state.unix_s, about))
        _write(self._stream, lines)

    def end(self, state: WatchState | None, confirmed: int) -> None:
        """The event `end`."""
        findings = [finding_to_dict(finding) for finding in state.findings] if state else []
        about = {"steps": state.step if state else 0, "confirmed": confirmed}
        _write(self._stream, [_event("end", time.time(), about | {"findings": findings})])


def _event(event: str, unix_s: float, about: dict[str, Any]) -> str:
    return json.dumps({"event": event, "unix_s": round(unix_s, 3)} | about, allow_nan=False)


def _write(stream: TextIO, lines: list[str]) -> None:
    """Write lines at once, so that an interrupt does not leave half of what belongs together."""
    stream.write("".join(f"{line}\n" for line in lines))
    stream.flush()


def row_text(row: TargetRow) -> str:
    """One target in one line."""
    parts = [f"{row.instance}: {row.verdict}"]
    if row.instance != row.service:
        parts[0] = f"{row.service} {parts[0]}"
    if row.memory_bytes is not None:
        limit = f" of {size_text(row.limit_bytes)}" if row.limit_bytes else ", limit unknown"
        parts.append(f"memory {size_text(row.memory_bytes)}{limit}")
    if row.growth_bytes_per_second is not None:
        parts.append(f"{size_text(row.growth_bytes_per_second)}/s")
    if row.seconds_to_death is not None:
        soonest, likely, latest = (time_text(seconds) for seconds in row.seconds_to_death)
        parts.append(f"at its limit in {likely} ({soonest} to {latest})")
    return ", ".join(parts)


def _new_fixes(state: WatchState, told: set[tuple[str, ...]]) -> list[Fix]:
    """What became of leaks of earlier releases and has not been told; it is now."""
    new = []
    for fix in state.fixes:
        key = (fix.service, fix.kind, fix.file, fix.function, fix.release, fix.state)
        if key not in told:
            told.add(key)
            new.append(fix)
    return new


def _events(state: WatchState) -> Iterator[tuple[str, tuple[Finding, ...]]]:
    yield "new", state.new
    yield "changed", state.changed
    yield "resolved", state.resolved


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
