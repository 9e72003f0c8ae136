"""Real servers that share a cluster, each a process of its own, and what they say of themselves."""

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen

import httpx

from stanch.server.members import owner_of
from stanch.store import Look
from stanch.store.history import FindingRow
from stanch.store.sqlstore import SqlStore
from tests.cli.watched import PATIENCE_S, STANCH, lines_until, running
from tests.store.looks import PROCESS, heap, look

LIFETIME = "9s"
_STEP_S, _PAST_S, _PAST_STEP_S = 5, 600, 15


@dataclass
class Sharer:
    """One server: its name, its address and its process."""

    name: str
    url: str
    data: Path
    process: "Popen[str]"

    def page(self, path: str) -> str:
        """The text of a page."""
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE_S).text

    def metric(self, name: str) -> float:
        """A metric of the sharing."""
        found = re.search(rf"^stanch_server_sharing_{name} (\S+)$", self.page("metrics"), re.M)
        return float(found[1]) if found else -1.0

    def has(self) -> dict[str, tuple[str, str]]:
        """By whom a service is scraped, or heard of, and judged, as the page of targets says."""
        rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", self.page("targets"), re.S)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]
        return {re.sub("<.*?>", "", row[0]): (row[3], row[4]) for row in cells}

    def shows(self, services: list[str], members: tuple[str, ...]) -> bool:
        """Whether these services are scraped and judged by those they belong to."""
        has = self.has()
        return all(has.get(name) == 2 * (owner_of(members, name),) for name in services)


@contextmanager
def sharer(
    stack: ExitStack, name: str, directory: Path, urls: str, hook: str, targets: list[str]
) -> Iterator[Sharer]:
    """A server that asks its targets, and judges, once a second."""
    home = directory / name
    home.mkdir(exist_ok=True)
    (home / "alarms.toml").write_text(f"[[receiver]]\ntype='webhook'\nurl='{hook}'\n")
    (home / "server.toml").write_text(
        f"name = '{name}'\nlifetime = '{LIFETIME}'\nevery = '1s'\nwatch_self = false\n"
        f"alarms = '{home}/alarms.toml'\n"
    )
    command = [*STANCH, "server", *targets, "--store", urls, "--data", home]
    command += ["--config", home / "server.toml", "--listen", "127.0.0.1:0"]
    process = stack.enter_context(running(*map(str, command), stderr=sys.stderr))
    (line,) = lines_until(process, lambda line: "http://" in line)
    yield Sharer(name, line.split()[-1], home, process)


def start(
    stack: ExitStack, name: str, directory: Path, urls: str, hook: str, targets: list[str]
) -> Sharer:
    """Start a server that is killed with the stack's end, at the latest."""
    return stack.enter_context(sharer(stack, name, directory, urls, hook, targets))


def kill(one: Sharer) -> None:
    """Kill a server as the kernel would."""
    one.process.send_signal(signal.SIGKILL)
    one.process.wait(PATIENCE_S)


def until(is_so: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait until something is so; fails with what is the case instead."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


def services_of(members: tuple[str, ...], each: int, prefix: str) -> list[str]:
    """So many names of services of each member."""
    found: dict[str, list[str]] = {member: [] for member in members}
    for number in range(1000):
        name = f"{prefix}-{number}"
        mine = found[owner_of(members, name)]
        if len(mine) < each:
            mine.append(name)
    assert all(len(names) == each for names in found.values())
    return sorted(name for names in found.values() for name in names)


class Leaks:
    """Services that leak, as they are seen: some minutes back at once, and on from there."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._begun: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def begin(self, services: Iterable[str]) -> None:
        """Let services leak from a while ago."""
        now_s = time.time()
        for service in services:
            for ago_s in range(_PAST_S, 0, -_PAST_STEP_S):
                self._store.add(leaking(service, now_s - _PAST_S, now_s - ago_s))
            self._begun[service] = now_s - _PAST_S
        self._store.flush()

    def close(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_STEP_S):
            for service, begun_s in list(self._begun.items()):
                self._store.add(leaking(service, begun_s, time.time()))


def leaking(service: str, begun_s: float, unix_s: float) -> Look:
    """A process whose native memory grows by 400 kB in each second."""
    age_s = unix_s - begun_s
    births = tuple(2e5 for _ in range(1 + int(age_s / 5)))
    process = replace(
        PROCESS,
        age_s=age_s + 1,
        rss_bytes=40e6 + 4e5 * age_s,
        requests=20 * age_s,
        heap=(heap("remember", sum(births), births=births), heap("start", 3e6, births=(3e6,))),
    )
    return look(age_s, process, service=service, instance=service, unix_s=unix_s, limit_bytes=500e6)


def firing(store: SqlStore, services: list[str]) -> list[FindingRow]:
    """The confirmed findings of services that fire."""
    return [
        row
        for row in store.history.findings(status="firing", most=1000)
        if row.service in services and row.stage == "confirmed"
    ]
