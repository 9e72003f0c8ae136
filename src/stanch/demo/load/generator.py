"""The load generator: `python -m stanch.demo.load.generator`.

Takes a load plan as one line of JSON on standard input, sends requests at the planned pace
(open loop: a slow node does not slow the users down) and writes one JSON report per line to
standard output. Each further line of input is {"drain": NODE} or {"restore": NODE}, as the commands
to a load balancer. Ends when standard input is closed, so it never outlives who started it.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter

from .balancer import Ring, ShareWheel
from .connection import AnswerError, Connection, StaleConnectionError, encode_request
from .plan import PLACEHOLDER, LoadPlan, LoadPlanError, Traffic, from_json
from .report import Report, to_line

REQUEST_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 1.0
# Users who wait at one service at most; beyond, a request fails at once, as at a full balancer.
MAX_WAITING_PER_SERVICE = 200
MAX_TRIES = 3


class NodeRefusedError(Exception):
    """Nobody listens at a node."""


class Generator:
    """Sends the plan's requests until it is cancelled; `take_report` hands out the counts."""

    def __init__(self, plan: LoadPlan, seed: int) -> None:
        self._plan = plan
        self._random = random.Random(seed)
        self._wheel = ShareWheel(plan.traffic)
        self._rings = {one.service: Ring(one.nodes) for one in plan.traffic}
        self._idle: dict[str, list[Connection]] = {}
        self._waiting: Counter[str] = Counter()
        self._report = Report()
        self._tasks: set[asyncio.Task[None]] = set()

    def command(self, line: str) -> None:
        """Drain or restore a node. What cannot be read is said on standard error, and left out."""
        try:
            ((verb, node),) = json.loads(line).items()
            for ring in self._rings.values():
                {"drain": ring.drain, "restore": ring.restore}[verb](node)
        except (ValueError, KeyError, AttributeError) as problem:
            print(f"stanch.demo.load: {line!r} is no command: {problem!r}", file=sys.stderr)

    async def run(self) -> None:
        """Send for ever, at the planned pace. A pause of the machine is made up for afterwards."""
        gap_s = 60.0 / self._plan.per_minute
        due = time.monotonic()
        while True:
            now = time.monotonic()
            while due <= now:
                due += gap_s
                self._start(self._wheel.next())
            await asyncio.sleep(due - now)

    def take_report(self, elapsed_s: float) -> Report:
        """Return what happened since the last call, as of `elapsed_s` since the beginning."""
        report, self._report = self._report, Report()
        report.elapsed_s = round(elapsed_s, 3)
        return report

    def _start(self, traffic: Traffic) -> None:
        if self._waiting[traffic.service] >= MAX_WAITING_PER_SERVICE:
            self._report.failed[traffic.service] += 1
            return
        task = asyncio.get_running_loop().create_task(self._serve_user(traffic))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_user(self, traffic: Traffic) -> None:
        self._waiting[traffic.service] += 1
        started = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                status = await self._send(traffic)
        except (AnswerError, NodeRefusedError, OSError):  # OSError: TimeoutError too.
            status = 0
        finally:
            self._waiting[traffic.service] -= 1
        if 200 <= status < 300:
            self._report.answered[traffic.service] += 1
            latency_ms = (time.monotonic() - started) * 1000
            self._report.latencies_ms.append(round(latency_ms, 2))
        else:
            self._report.failed[traffic.service] += 1

    async def _send(self, traffic: Traffic) -> int:
        """Try the nodes in turn; only a node that never took the request is passed over."""
        number = str(self._random.randrange(traffic.numbers))
        path = traffic.path.replace(PLACEHOLDER, number)
        body = traffic.body.replace(PLACEHOLDER, number)
        ring = self._rings[traffic.service]
        for node in ring.candidates(time.monotonic())[:MAX_TRIES]:
            try:
                return await self._ask(node, encode_request(node, traffic.method, path, body))
            except NodeRefusedError:
                ring.eject(node, time.monotonic())
        raise NodeRefusedError(f"no node of {traffic.service} takes requests")

    async def _ask(self, node: str, request: bytes) -> int:
        idle = self._idle.setdefault(node, [])
        while True:
            connection = idle.pop() if idle else await _connect(node)
            try:
                return await connection.request(request)
            except StaleConnectionError:
                continue
            finally:
                if connection.reusable:
                    idle.append(connection)
                else:
                    connection.close()


async def _connect(node: str) -> Connection:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            return await Connection.open(node)
    except OSError as problem:
        raise NodeRefusedError(f"{node}: {problem}") from problem


async def generate(plan: LoadPlan, generator: Generator, input_closed: asyncio.Event) -> None:
    """Run the plan and report until `input_closed` is set. See the module for the format."""
    sending = asyncio.create_task(generator.run())
    started = time.monotonic()
    try:
        while not input_closed.is_set() and not sending.done():
            try:
                async with asyncio.timeout(plan.report_every_s):
                    await input_closed.wait()
            except TimeoutError:
                report = generator.take_report(time.monotonic() - started)
                print(to_line(report), flush=True)
        if sending.done():
            sending.result()
    finally:
        sending.cancel()


async def _main() -> int:
    loop = asyncio.get_running_loop()
    try:
        plan = from_json(sys.stdin.readline())
    except LoadPlanError as problem:
        print(f"stanch.demo.load: {problem}", file=sys.stderr)
        return 2
    input_closed = asyncio.Event()

    generator = Generator(plan, seed=time.time_ns())
    unread = b""

    def on_input() -> None:
        nonlocal unread
        part = os.read(sys.stdin.fileno(), 4096)
        if not part:
            input_closed.set()
        *lines, unread = (unread + part).split(b"\n")
        for line in lines:
            generator.command(line.decode(errors="replace"))

    loop.add_reader(sys.stdin.fileno(), on_input)
    await generate(plan, generator, input_closed)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(_main()))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
