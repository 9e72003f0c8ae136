"""The parent's side of the load: starts the generator's process and sums what it reports."""

import contextlib
import json
import subprocess
import sys
import threading

from .plan import LoadPlan, to_json
from .report import LoadMeasure, Tally, from_line

STOP_SECONDS = 3.0


class LoadError(RuntimeError):
    """The generator could not run; the text carries what it said."""


class LoadMeter:
    """A running generator. Starts it when made; `stop` must be called in the end."""

    def __init__(self, plan: LoadPlan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stanch.demo.load.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._command_lock = threading.Lock()  # one line at a time
        self._lock = threading.Lock()  # guards the four that follow
        self._recent = Tally()
        self._total = Tally()
        self._elapsed_s = 0.0
        self._recent_from_s = 0.0
        self._reader = threading.Thread(target=self._read, name="load-meter", daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(to_json(plan) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as problem:
            error = self.failure()
            self.stop()
            raise error from problem

    @property
    def running(self) -> bool:
        """Whether the generator's process lives."""
        return self._process.poll() is None

    def recent(self) -> LoadMeasure:
        """Return what was reported since the last call."""
        with self._lock:
            tally, self._recent = self._recent, Tally()
            seconds = self._elapsed_s - self._recent_from_s
            self._recent_from_s = self._elapsed_s
        return tally.measure(seconds)

    def total(self) -> LoadMeasure:
        """Return all that was reported."""
        with self._lock:
            return self._total.measure(self._elapsed_s)

    def failure(self) -> LoadError:
        """Return the error of a generator that ended by itself; waits for its end."""
        assert self._process.stderr is not None
        status = self._process.wait(STOP_SECONDS)
        said = self._process.stderr.read(4000).strip() or "nothing"
        return LoadError(f"the load generator ended with status {status} and said: {said}")

    def drain(self, node: str) -> None:
        """Have no more requests sent to "HOST:PORT"."""
        self._command({"drain": node})

    def restore(self, node: str) -> None:
        """Have requests sent there again."""
        self._command({"restore": node})

    def _command(self, command: dict[str, str]) -> None:
        assert self._process.stdin is not None
        # A generator that has ended is noticed by `running`, one that was stopped needs nothing.
        with self._command_lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """End the generator and wait for it; kill it when it does not end in time."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It may have ended before it read its plan.
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = from_line(line)
            with self._lock:
                self._elapsed_s = report.elapsed_s
                self._recent.add(report)
                self._total.add(report)
