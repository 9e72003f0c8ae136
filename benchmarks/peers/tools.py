"""The profilers that are compared: how each is started, and how what it knows is read.

A Tool's `start`, `stop` and `inside` run in the measured process, `command`, `environment` and
`look` in the one that measures. Each tool is used as its documentation says, for memory only, with
its own defaults where the name of the column does not say otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import readings
from benchmarks.peers.readings import Sizes

if TYPE_CHECKING:
    from benchmarks.peers.sink import Sink

KIB = 1 << 10
HURRIED_PUSH_S = 2


class Tool:
    """A memory profiler; this one is none at all."""

    name = "control"
    note = "nothing is switched on: what differs from 1 and 0 is the noise of the measurement"
    package: str | None = None  # whose version the report says
    switchable = True  # can be started and stopped again and again in one process
    pushes = False  # what it knows comes to a server, some time

    def available(self) -> bool:
        """Return whether this tool exists here."""
        return True

    def command(self, folder: Path) -> list[str]:
        """Return the command that a Python script and its arguments are put behind."""
        return [sys.executable]

    def environment(self, url: str, hurried: bool) -> dict[str, str]:
        """Return the variables to set. hurried: push every two seconds, not as by default."""
        return {}

    def start(self, folder: Path) -> None:
        """Start to watch this process."""

    def stop(self) -> None:
        """Stop to watch this process."""

    def inside(self) -> Sizes | None:
        """Read the live heap from inside; None when there is no such way, or `look` does it."""
        return None

    def look(self, folder: Path, sink: Sink, since: float) -> Sizes | None:
        """Read what can be read from outside, of a live process or a dead one; None for nothing.

        since: what was pushed earlier than that, as of time.monotonic(), does not count.
        """
        return None


class Stanch(Tool):
    """The agent with endpoint and table file, as `stanch run` starts it."""

    package = "stanch"
    _NATIVE_VARIABLES = ("STANCH_NATIVE", "LD_PRELOAD")  # of what `stanch run --native` sets

    def __init__(self, native: bool = False) -> None:
        self.native = native
        self.name = "Stanch --native" if native else "Stanch"
        self.note = "the whole agent, at 512 KiB" + (
            ", malloc sampled too; its library is preloaded while it is off as well"
            if native
            else ""
        )

    def available(self) -> bool:
        from stanch.agent.settings import SETTINGS

        return not self.native or any(row.variable == "STANCH_NATIVE" for row in SETTINGS)

    def environment(self, url: str, hurried: bool) -> dict[str, str]:
        if not self.native:
            return {}
        from stanch.cli.run import environment

        prepared = environment({"native": "1"}, os.environ)
        return {name: prepared[name] for name in self._NATIVE_VARIABLES if name in prepared}

    def start(self, folder: Path) -> None:
        import stanch

        stanch.start(
            interval=512 * KIB,
            listen=f"unix:{folder / 'stanch.sock'}",
            table=folder / "heap.stanch",
            service="bench",
        )

    def stop(self) -> None:
        import stanch

        stanch.stop()

    def look(self, folder: Path, sink: Sink, since: float) -> Sizes | None:
        import socket

        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(str(folder / "stanch.sock"))
                client.sendall(b"GET /debug/pprof/heap HTTP/1.0\r\nHost: stanch\r\n\r\n")
                with client.makefile("rb") as answer:
                    head, _, body = answer.read().partition(b"\r\n\r\n")
        except OSError:  # nobody listens any more
            return self._autopsy(folder / "heap.stanch")
        return readings.pprof_sizes(body) if b" 200 " in head.partition(b"\r\n")[0] else None

    def _autopsy(self, table: Path) -> Sizes | None:
        from stanch.sampler import read_table, table_profile

        if not table.exists():
            return None
        return readings.profile_sizes(table_profile(read_table(table)), "inuse_space")


class Tracemalloc(Tool):
    """The standard library's tracemalloc."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.name = f"tracemalloc {frames} frame{'s' if frames > 1 else ''}"
        self.note = "follows every allocation"

    def start(self, folder: Path) -> None:
        import tracemalloc

        tracemalloc.start(self.frames)

    def stop(self) -> None:
        import tracemalloc

        tracemalloc.stop()

    def inside(self) -> Sizes | None:
        return readings.tracemalloc_sizes()


class Memray(Tool):
    """Memray, writing its file."""

    package = "memray"

    def __init__(self, python_allocators: bool = False) -> None:
        self.python_allocators = python_allocators
        self.name = "memray --trace-python-allocators" if python_allocators else "memray"
        which = "every allocation" if python_allocators else "malloc and mmap, not pymalloc"
        self.note = f"follows {which}; writes each to a file, to be read with its own reports"
        self._tracker: Any = None

    def start(self, folder: Path) -> None:
        import memray

        file = folder / "memray.bin"
        file.unlink(missing_ok=True)
        self._tracker = memray.Tracker(file, trace_python_allocators=self.python_allocators)
        self._tracker.__enter__()

    def stop(self) -> None:
        self._tracker.__exit__(None, None, None)

    def look(self, folder: Path, sink: Sink, since: float) -> Sizes | None:
        return readings.memray_sizes(folder / "memray.bin")


class Scalene(Tool):
    """Scalene, which can only be put around a whole process."""

    name = "Scalene"
    note = (
        "CPU and memory by line; CPU is of whole runs that take turns with plain ones. It gives"
        " what a line allocated, not what is still alive"
    )
    package = "scalene"
    switchable = False

    def command(self, folder: Path) -> list[str]:
        here = str(Path(__file__).parent.parent)
        out = str(folder / "scalene.json")
        return [sys.executable, "-m", "scalene", "run", "--program-path", here, "-o", out]

    def look(self, folder: Path, sink: Sink, since: float) -> Sizes | None:
        return readings.scalene_sizes(folder / "scalene.json")


class Ddtrace(Tool):
    """Datadog's profiler with all but memory switched off."""

    package = "ddtrace"
    pushes = True

    def __init__(self, interval_kib: int) -> None:
        self.interval_kib = interval_kib
        self.name = f"ddtrace memalloc {interval_kib} KiB"
        self.note = "ddtrace's Profiler, memory only" + (
            "; 1024 KiB is its default" if interval_kib == 1024 else ""
        )
        self._profiler: Any = None

    def environment(self, url: str, hurried: bool) -> dict[str, str]:
        off = ("STACK", "LOCK", "EXCEPTION", "PYTORCH")
        return {
            **{f"DD_PROFILING_{part}_ENABLED": "0" for part in off},
            "DD_PROFILING_HEAP_SAMPLE_SIZE": str(self.interval_kib * KIB),
            "DD_TRACE_AGENT_URL": url,
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "0",
            "DD_REMOTE_CONFIGURATION_ENABLED": "0",
            **({"DD_PROFILING_UPLOAD_INTERVAL": str(HURRIED_PUSH_S)} if hurried else {}),
        }

    def start(self, folder: Path) -> None:
        from ddtrace.profiling import Profiler

        self._profiler = Profiler()
        self._profiler.start()

    def stop(self) -> None:
        self._profiler.stop(flush=False)

    def look(self, folder: Path, sink: Sink, since: float) -> Sizes | None:
        read = (readings.ddtrace_sizes(body) for body in sink.bodies(since))
        return next((sizes for sizes in read if sizes is not None), None)


class Pyroscope(Tool):
    """Pyroscope's agent with CPU switched off."""

    name = "pyroscope-io heap"
    note = "at 512 KiB, its default"
    package = "pyroscope-io"
    pushes = True

    def environment(self, url: str, hurried: bool) -> dict[str, str]:
        return {"BENCH_SINK": url, **({"BENCH_PUSH_S": str(HURRIED_PUSH_S)} if hurried else {})}

    def start(self, folder: Path) -> None:
        import pyroscope

        every = os.environ.get("BENCH_PUSH_S")
        pyroscope.configure(
            application_name="bench",
            server_address=os.environ["BENCH_SINK"],
            cpu_enabled=False,
            mem_enabled=True,
            **({"upload_interval": int(every)} if every else {}),
        )

    def stop(self) -> None:
        import pyroscope

        pyroscope.shutdown()

    def look(self, folder: Path, sink: Sink, since: float) -> Sizes | None:
        read = (readings.pyroscope_sizes(body) for body in sink.bodies(since))
        return next((sizes for sizes in read if sizes is not None), None)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(),
        Stanch(),
        Stanch(native=True),
        Tracemalloc(1),
        Tracemalloc(25),
        Memray(),
        Memray(python_allocators=True),
        Scalene(),
        Ddtrace(1024),
        Ddtrace(512),
        Pyroscope(),
    )
}
CONTROL = "control"
