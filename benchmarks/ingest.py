"""How many profiles a second the server takes, end to end and durable, and what that costs.

A server process (uvicorn over the ingest routes and a store of chDB) is sent profiles by a load
generator: of many processes of many services, each with STACKS stacks of 30 frames, of which the
processes of one service share most. What counts is acknowledged after its sync. Afterwards the
tables are asked whether all is there, once.

    python -m benchmarks.ingest --rate 300 --seconds 60
    python -m benchmarks.ingest --table 100,300,1000,3000,10000 --seconds 30

Prints rate, latency of acknowledgements, CPU time of the server and of the load generator, peak
RSS, and bytes a row. With --table a row for each number of processes, at a profile each 30 s. With
--whole it is `stanch server` itself: with its gate, and with the detector at its usual pace.
"""

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode

SERVICES, BODIES = 12, 12
STACKS, DEPTH, SHARED = 1_500, 30, 20
CONNECTIONS = 24
EVERY_S = 30
"""So often a process sends its profile."""
SETTLES_S = 8
"""After so long the last segment is inserted."""
ROLLED_SHARE = EVERY_S / 300
"""Of so many of the profiles the samples are kept twice, of each process the first in five minutes;
a short run has it so too when it is of so many processes, whatever number of them it stands for."""
TYPES = ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")


def bodies_of(service: int) -> list[bytes]:
    """Some heaps of one service in the agent's shape: the same stacks, other values and births."""
    chance = random.Random(service)
    functions = [
        Function(f"Class{i}.method{i}", "", f"/srv/app{service}/package{i % 50}/module{i}.py", i)
        for i in range(2_000)
    ]
    locations = [
        Location(0, None, (Line(chance.choice(functions), chance.randrange(2000)),))
        for _ in range(3_000)
    ]
    paths = [tuple(chance.choices(locations, k=SHARED)) for _ in range(100)]
    stacks = [
        (*chance.choices(locations, k=DEPTH - SHARED), *chance.choice(paths)) for _ in range(STACKS)
    ]
    types = tuple(ValueType(name, "count" if "objects" in name else "bytes") for name in TYPES)
    made = []
    for number in range(BODIES):
        samples = []
        for stack in stacks:
            allocated = chance.randrange(10**9)
            samples.append(Sample(stack, (allocated // 300, allocated, 0, 0)))
            # A third of the stacks hold memory at a time, born here and there.
            for _ in range(chance.choice((0, 0, 1, 2))):
                live = (0, 0, chance.randrange(1, 1000), chance.randrange(1, 10**7))
                band = (("birth", chance.randrange(60) * 5, "seconds"),)
                samples.append(Sample(stack, live, (), band))
        profile = Profile(
            types,
            tuple(samples),
            "inuse_space",
            ValueType("space", "bytes"),
            524_288,
            duration_nanos=300_000_000_000 + number,
            comments=("stanch=0", "pid=1"),
        )
        made.append(encode(profile))
    return made


Bodies = list[list[bytes]]


@dataclass
class Load:
    """What the load generator saw."""

    sent: int = 0
    refused: int = 0
    late: int = 0
    latency_s: list[float] = field(default_factory=list)

    def latency_ms(self, share: float) -> float:
        """The latency that this share of the answers did not exceed."""
        return sorted(self.latency_s)[int(len(self.latency_s) * share)] * 1e3


@dataclass(frozen=True)
class Outcome:
    """One run. used_s, own_s: CPU of the server and of the load generator."""

    load: Load
    took_s: float
    used_s: float
    own_s: float
    peak_bytes: int
    profiles: int
    rows: int
    row_bytes: float


class Sender:
    """A connection that pushes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> "Sender":
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def push(self, service: int, instance: str, body: bytes) -> bool:
        """Send a profile; whether it was taken."""
        head = (
            "POST /api/v1/push HTTP/1.1\r\nHost: localhost\r\n"
            f"X-Stanch-Service: service-{service}\r\n"
            f"X-Stanch-Instance: {instance}\r\nX-Stanch-Pid: 1\r\n"
            "X-Stanch-Memory: rss=100000000 limit=268435456\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        status = await self._reader.readline()
        length = 0
        while (line := await self._reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        await self._reader.readexactly(length)
        return status.split()[1] == b"200"

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


async def introduce(port: int, bodies: Bodies) -> None:
    """Send one profile of each service: the frames of stacks are told once a day, and that is not
    what a profile costs."""
    sender = await Sender.to(port)
    for service, (body, *_) in enumerate(bodies):
        assert await sender.push(service, f"first-{service}", body)
    sender.close()


async def send(port: int, bodies: Bodies, rate: float, seconds: float) -> Load:
    """Send at a rate, each connection in its turn; what cannot keep up is counted as late."""
    load = Load()
    began_s = time.monotonic()
    count = int(rate * seconds)
    numbers, processes = iter(range(count)), max(1, int(count * ROLLED_SHARE))

    async def connection() -> None:
        sender = await Sender.to(port)
        for number in numbers:
            due_s = began_s + number / rate
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            elif wait_s < -1.0:
                load.late += 1
            process, turn = number % processes, number // processes
            service = process % SERVICES
            body = bodies[service][(process // SERVICES + turn) % BODIES]
            sent_s = time.monotonic()
            taken = await sender.push(service, f"host-{process}", body)
            load.latency_s.append(time.monotonic() - sent_s)
            load.sent += taken
            load.refused += not taken
        sender.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return load


def serve(directory: Path) -> None:
    """Be the server: prints its port, and at SIGTERM ends with everything inserted."""
    import uvicorn
    from starlette.applications import Starlette

    from stanch.collect.received import Receiver
    from stanch.server.head import BoundedHead
    from stanch.server.ingest import ingest_routes
    from stanch.store.sqlstore import open_store

    with open_store("chdb", directory) as store:
        app = Starlette(routes=[*ingest_routes(Receiver(store, time.time))])
        config = uvicorn.Config(app, port=0, http=BoundedHead, log_level="error", lifespan="off")
        server = uvicorn.Server(config)

        async def run() -> None:
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            print(server.servers[0].sockets[0].getsockname()[1], flush=True)
            await task

        asyncio.run(run())


@contextlib.contextmanager
def server(directory: Path, whole: bool) -> Iterator[tuple[int, int]]:
    """The server's port and pid; it is told to end at the end of the block."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--serve", str(directory)]
    if whole:
        command = [sys.executable, "-m", "stanch.cli.main", "server", "--data", str(directory)]
        command += ["--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(re.findall(r"\d+", process.stdout.readline())[-1]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(300)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """The largest RSS of a process so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmHWM")


def check(directory: Path) -> tuple[int, int, int]:
    """Profiles, rows and bytes of rows in the tables that the server has left, after merges."""
    from stanch.store.sqlstore import open_store

    with open_store("chdb", directory) as store:
        store.flush()
        ((profiles, names),) = store.engine.query(
            "SELECT count(), uniqExact(profile) FROM profiles"
        )
        assert profiles == names
        store.engine.command("OPTIMIZE TABLE stanch.samples FINAL")
        ((rows, size),) = store.engine.query(
            "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active"
            " AND database = 'stanch' AND table = 'samples'"
        )
    return profiles, rows, size


def run(bodies: Bodies, rate: float, seconds: float, whole: bool) -> Outcome:
    """Send to a server of its own, and look at what it has left."""
    with tempfile.TemporaryDirectory(prefix="stanch-ingest-") as name:
        directory = Path(name)
        with server(directory, whole) as (port, pid):
            asyncio.run(introduce(port, bodies))
            time.sleep(SETTLES_S)
            before_s, began_s, own_s = cpu_s(pid), time.monotonic(), time.process_time()
            load = asyncio.run(send(port, bodies, rate, seconds))
            took_s, own_s = time.monotonic() - began_s, time.process_time() - own_s
            time.sleep(SETTLES_S)
            used_s, peak = cpu_s(pid) - before_s, peak_bytes(pid)
        profiles, rows, size = check(directory)
    return Outcome(load, took_s, used_s, own_s, peak, profiles, rows, size / rows)


def show(one: Outcome) -> None:
    """Print what one run has told."""
    load, each_ms = one.load, one.used_s / one.load.sent * 1e3
    print(f"acknowledged {load.sent:,} of {load.sent + load.refused:,} in {one.took_s:.1f} s,")
    print(f"  {load.sent / one.took_s:.0f} a second; {load.late:,} more than a second late")
    print(f"  latency ms: median {load.latency_ms(0.5):.0f}, 99 % {load.latency_ms(0.99):.0f}")
    print(f"stored {one.profiles:,} profiles, {one.rows:,} rows of {one.row_bytes:.2f} bytes")
    print(f"server: {each_ms:.2f} ms of CPU a profile, peak {one.peak_bytes / 1e6:.0f} MB;")
    print(f"  two cores of its own would carry {2000 / each_ms:.0f} a second")
    print(f"load generator: {one.own_s / load.sent * 1e3:.2f} ms of CPU a profile")


def show_row(processes: int, one: Outcome) -> None:
    """Print a row of the table. Of a day's samples a tenth is rolled up besides."""
    day_bytes = processes * 86_400 / EVERY_S * one.rows / one.profiles * one.row_bytes
    print(
        f"| {processes:,} | {one.load.sent / one.took_s:.1f} | {one.used_s / one.took_s:.2f} |"
        f" {one.used_s / one.load.sent * 1e3:.1f} | {one.peak_bytes / 1e6:.0f} |"
        f" {one.load.latency_ms(0.5):.0f}, {one.load.latency_ms(0.99):.0f} |"
        f" {day_bytes * (1 + ROLLED_SHARE) / 1e9:.1f} | {one.load.late} |",
        flush=True,
    )


def main() -> None:
    """Run once and print what it told, or for several numbers of processes and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--table", default="")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--serve", type=Path)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    bodies = [bodies_of(service) for service in range(SERVICES)]
    if not arguments.table:
        show(run(bodies, arguments.rate, arguments.seconds, arguments.whole))
        return
    print("| processes | profiles/s | cores | ms each | MB | ack ms p50, p99 | GB a day | late |")
    print("|---|---|---|---|---|---|---|---|")
    for processes in map(int, arguments.table.split(",")):
        one = run(bodies, processes / EVERY_S, arguments.seconds, arguments.whole)
        show_row(processes, one)


if __name__ == "__main__":
    main()
