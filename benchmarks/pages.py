"""How long the pages of the server take, over a day of history at the scale of the demo.

A store of chDB is filled with a day of ten instances of three services, a profile of each in 10
seconds: one service of six leaks and is killed at its limit each 40 minutes, the others are well.
The detector judges it once, so that there are findings. Then a server process (uvicorn) is asked
for every page several times over HTTP, one request at a time.

    python -m benchmarks.pages [--hours 24] [--times 7] [--data DIR]

Prints for each page the first, the median and the worst time, and the CPU time of the server, in
ms. The first request of a page finds nothing of it remembered.
With --data the history is kept, and taken from there the next time.
"""

import argparse
import contextlib
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn

from benchmarks.ingest import cpu_s
from stanch.collect import FixedTargets
from stanch.collect.received import Receiver
from stanch.deaths.storebook import StoreBook, take_up_lives
from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode
from stanch.server.configuration import ServerConfiguration
from stanch.server.fleet import Fleet
from stanch.server.pages.application import make_application
from stanch.server.serve import listen_on
from stanch.store import Look, ProcessLook
from stanch.store.blocks import blocks
from stanch.store.life import memory_of
from stanch.store.record import Numbers, Payload, Record
from stanch.store.rows import Decoding, Rows, band_width_s, open_profile, rows_of
from stanch.store.sqlstore import SqlStore, open_store
from stanch.store.track import Tracker

EVERY_S, BODY_S = 10, 120
STACKS, DEPTH = 300, 24
LIMIT_BYTES = 1 << 30
LIFE_S = 40 * 60
TYPES = tuple(
    ValueType(name, "count" if "objects" in name else "bytes")
    for name in ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")
)
ROUTES = ((), (("route", "/cart"),), (("route", "/search"),), (("route", "/checkout"),))


@dataclass(frozen=True)
class Service:
    """One service: how many instances it has, and whether it leaks."""

    name: str
    instances: int
    leaks: bool


SERVICES = (Service("shop", 6, True), Service("search", 2, False), Service("mail", 2, False))


def stacks_of(service: Service) -> list[tuple[Location, ...]]:
    """The stacks of a service; the first one is the leak's."""
    chance = random.Random(service.name)
    places = [
        Location(0, None, (Line(Function(f"call{i}", "", f"/srv/app/part{i % 40}.py", i), i + 3),))
        for i in range(900)
    ]
    paths = [tuple(chance.choices(places, k=DEPTH - 6)) for _ in range(30)]
    remember = Location(0, None, (Line(Function("remember", "", "/srv/app/kept.py", 1), 40),))
    stacks = [(*chance.choices(places, k=6), *chance.choice(paths)) for _ in range(STACKS)]
    return [(remember, *stacks[0][1:]), *stacks[1:]]


def body_of(service: Service, stacks: Sequence[tuple[Location, ...]], age_s: int) -> bytes:
    """The heap of an instance of an age, in the agent's shape."""
    chance = random.Random(f"{service.name} {age_s}")
    samples = []
    rate = LIMIT_BYTES * 0.85 / LIFE_S if service.leaks else 0.0
    for number, stack in enumerate(stacks):
        allocated = (number + 1) * 2_000 * (age_s + 60)
        samples.append(Sample(stack, (allocated // 300, allocated, 0, 0)))
        held = {5 * chance.randrange(4): 100_000 + 9_000 * (number % 50)}
        held[max(0, age_s - age_s % 5 - 5 * chance.randrange(3))] = chance.randrange(10**5)
        if number == 0:
            width_s = max(5, age_s // 90)
            held |= {born: int(rate * width_s) for born in range(0, age_s, width_s)}
        for born, size in held.items():
            labels = ROUTES[(number + born) % len(ROUTES)]
            birth = (("birth", born, "seconds"),)
            samples.append(Sample(stack, (0, 0, size // 120, size), labels, birth))
    return encode(
        Profile(TYPES, tuple(samples), "inuse_space", ValueType("space", "bytes"), 524_288)
    )


@dataclass(frozen=True)
class Instance:
    """One instance of a service."""

    service: Service
    number: int

    def look(self, at_s: int, began_s: float) -> Look:
        """The look at it so many seconds after the history began."""
        life, age_s = 0, at_s
        if self.service.leaks:  # Its instances die one after the other.
            life, age_s = divmod(at_s + self.number * LIFE_S // self.service.instances, LIFE_S)
        name, unix_s = self.service.name, began_s + at_s
        held = LIMIT_BYTES * 0.86 * age_s / LIFE_S if self.service.leaks else 0.0
        process = ProcessLook(100 + life, None, age_s + 5.0, 130e6 + held, requests=28.0 * age_s)
        look = Look(name, f"{name}-{self.number}", unix_s, unix_s, "python", (process,))
        return replace(look, limit_bytes=LIMIT_BYTES, release=f"v{1 + life // 9}")


class Filling:
    """Makes what the intake would make of looks, without the log: the history is made quickly."""

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._stacks = {service.name: stacks_of(service) for service in SERVICES}
        self._known: set[bytes] = set()
        self._day = 0
        self._bodies: dict[tuple[str, int, int], tuple[bytes, Rows]] = {}

    def decoding(self, service: Service, look: Look) -> Decoding:
        """A look with its heap, as it goes into a batch."""
        moment = self._tracker.place(look, memory_of(look), ["heap"])
        data, rows = self._body(service, int(moment.age_s), int(look.unix_s // 86_400))
        numbers = Numbers(
            rss_bytes=memory_of(look),
            memory_bytes=memory_of(look),
            limit_bytes=look.limit_bytes,
            heap_bytes=float(rows.total_live_bytes),
            requests=28.0 * moment.age_s,
            in_flight=3.0,
            latency_s=0.02 + 1e-5 * moment.age_s,
            breakdown={"heap": rows.total_live_bytes, "rest": 40_000_000},
        )
        record = Record(
            look.service,
            look.instance,
            moment.life,
            round(look.unix_s * 1000),
            moment.age_s,
            numbers,
            (Payload(f"{random.getrandbits(128):032x}", "heap", data),),
            moment.lives,
            moment.rolled,
        )
        return Decoding(record, (rows,))

    def _body(self, service: Service, age_s: int, day: int) -> tuple[bytes, Rows]:
        """A heap of about this age; frames are told once a day, as the intake does."""
        if day != self._day:
            self._day = day
            self._known.clear()
        key = (service.name, age_s // BODY_S, day)
        if key not in self._bodies:
            if len(self._bodies) > 300:
                self._bodies.clear()
            rounded_s = age_s // BODY_S * BODY_S + 5
            data = body_of(service, self._stacks[service.name], rounded_s)
            rows = rows_of(open_profile(data), self._known, 0.0, band_width_s(age_s))
            self._known.update(rows.new_stacks)
            self._bodies[key] = data, rows
        return self._bodies[key]


def fill(directory: Path, hours: float) -> float:
    """Make the history; gives its end in Unix seconds."""
    end_s = float(int(time.time()) // 60 * 60)
    began_s = end_s - hours * 3600
    instances = [
        Instance(service, number) for service in SERVICES for number in range(service.instances)
    ]
    filling = Filling()
    with open_store("chdb", directory, wall=lambda: end_s) as store:
        batch: list[Decoding] = []
        for at_s in range(0, int(hours * 3600), EVERY_S):
            batch += [filling.decoding(one.service, one.look(at_s, began_s)) for one in instances]
            if len(batch) >= 600:
                insert(store, batch)
                batch = []
        insert(store, batch)
        used_s = time.process_time()
        Fleet(store, FixedTargets(()), wall=lambda: end_s).detect_once()
        print(f"detection: {(time.process_time() - used_s) * 1e3:.0f} ms of CPU", flush=True)
    return end_s


def insert(store: SqlStore, batch: Sequence[Decoding]) -> None:
    """Put a batch into the tables."""
    for table, block in blocks(batch, keep_raw=False):
        store.engine.insert(table, block, f"{random.getrandbits(64):x}")


def serve(directory: Path, end_s: float) -> None:
    """Be the server, at the end of the history: prints its port."""
    shift_s = time.time() - end_s

    def wall() -> float:
        return time.time() - shift_s

    with open_store("chdb", directory, wall=wall) as store:
        take_up_lives(store, StoreBook(store))
        configuration = ServerConfiguration(directory)
        application = make_application(store, Receiver(store, wall), configuration, None, wall=wall)
        server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
        with listen_on("127.0.0.1", 0) as listener:
            print(listener.getsockname()[1], flush=True)
            server.run(sockets=[listener])


@contextlib.contextmanager
def server(directory: Path, end_s: float) -> Iterator[tuple[int, int]]:
    """The server's port and pid; it is told to end at the end of the block."""
    command = [sys.executable, "-m", "benchmarks.pages", "--data", str(directory)]
    command += ["--serve", str(end_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()
            process.wait(60)


def ask(port: int, path: str) -> str:
    """A page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, (path, answer.status, text[:500])
        return text


def paths_of(port: int, end_s: float) -> dict[str, str]:
    """What is asked for, by what it is called in the table."""
    overview, service = ask(port, "/"), ask(port, "/services/shop?range=24h")
    (finding, *_) = re.findall(r"/findings/[0-9a-f]+", overview)
    (death, *_) = re.findall(r"/deaths/[0-9a-f]+", service)
    at, hour_ago = int(end_s), int(end_s - 3600)
    return {
        "overview": "/",
        "service, an hour": "/services/shop?range=1h",
        "service, a day": "/services/shop?range=24h",
        "finding": finding,
        "profile": "/profiles/shop",
        "profile, compared": f"/profiles/shop?at={at}&base_at={hour_ago}",
        "profile, callers": "/profiles/shop?function=remember&view=callers",
        "death": death,
        "targets": "/targets",
        "settings": "/settings",
    }


def main() -> None:
    """Fill where there is nothing, ask, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--serve", type=float)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.data, arguments.serve)
        return
    with contextlib.ExitStack() as ending:
        directory = arguments.data or Path(
            ending.enter_context(tempfile.TemporaryDirectory(prefix="stanch-pages-"))
        )
        directory.mkdir(exist_ok=True)
        ready = directory / "history.json"
        if not ready.exists():
            ready.write_text(json.dumps(fill(directory, arguments.hours)))
        end_s = json.loads(ready.read_text())
        port, pid = ending.enter_context(server(directory, end_s))
        names = ("first", "median", "worst", "CPU")
        print(f"{'page':20}", *(f"{name:>7}" for name in names), f" ms; {'bytes':>9}")
        for name, path in paths_of(port, end_s).items():
            took_ms, size, before_s = [], 0, cpu_s(pid)
            for _ in range(arguments.times):
                began_s = time.perf_counter()
                size = len(ask(port, path))
                took_ms.append((time.perf_counter() - began_s) * 1e3)
            used_ms = (cpu_s(pid) - before_s) / arguments.times * 1e3
            print(
                f"{name:20} {took_ms[0]:7.0f} {statistics.median(took_ms):7.0f}"
                f" {max(took_ms):7.0f}"
                f" {used_ms:7.0f}      {size:9,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
