"""Ends of processes as a watch notices them: real kills, restarts, silence, flapping."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stanch.cli.main import main
from stanch.collect import Scrape, parse_target
from stanch.collect.exposition import parse_exposition
from stanch.deaths import Death, DeathWatch, Evidence
from stanch.deaths.book import JournalBook, deaths
from stanch.deaths.witness import _start_unix
from stanch.demo.host.cgroup import CgroupTree
from stanch.demo.host.ports import free_addresses
from stanch.journal import Journal
from stanch.profile import parse
from stanch.server.chronicle import Chronicle
from stanch.server.watch import Watcher, WatchState
from stanch.store import Look, ProcessLook
from tests.cli.test_watch_loop import EVERY_S, MIB, Service, service

__all__ = ["service"]  # a fixture

# Keeps what it is asked to, and serves until it is told to end.
APP = """
kept = []

def hoard(amount):
    for number in range(amount):
        kept.append(b"x" * 10_000 + str(number).encode())

def app(environ, start_response):
    hoard(int(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@dataclass
class Host:
    """gunicorn with two workers under `stanch run`, and a watch of it."""

    process: subprocess.Popen[bytes]
    address: str
    watcher: Watcher
    chronicle: Chronicle
    log: Path

    def step(self) -> WatchState:
        """Look once."""
        return self.chronicle.take(self.watcher.step())

    def ask(self, amount: int) -> bool:
        """Have a worker keep so many blocks of 10 kB; whether it answered."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request("GET", f"/?{amount}")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, two minutes at most."""
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def next_death(self) -> Death:
        """Look until a death is noticed."""
        deaths: list[Death] = []
        self.until(lambda: bool(deaths.extend(self.step().deaths) or deaths))
        assert len(deaths) == 1, deaths
        return deaths[0]

    def workers(self) -> list[int]:
        """The pids of the workers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


@contextmanager
def hosting(tmp_path: Path, wrap: Callable[[list[str]], list[str]]) -> Iterator[Host]:
    """Run the host; all that was started has ended after the block."""
    (tmp_path / "hoarder.py").write_text(APP)
    address, profiles = free_addresses(2)
    tables, log = tmp_path / "tables", tmp_path / "log"
    command = [sys.executable, "-m", "stanch.cli.main", "run", "--service", "shop"]
    command += ["--listen", profiles, "--table", str(tables), "--interval", "64KiB"]
    command += ["--", sys.executable, "-m", "gunicorn", "-w", "2", "-b", address]
    command += ["--worker-class", "gthread", "hoarder:app"]
    environ = os.environ | {"PYTHONPATH": str(tmp_path), "STANCH_DIR": str(tmp_path / "run")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            wrap(command),
            cwd=tmp_path,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        target = parse_target(f"http://{profiles} instance=shop-1")
        with (
            Chronicle(JournalBook(tmp_path / "data"), [tables]) as chronicle,
            Watcher([target], 2.5, witness=chronicle.witness) as watcher,
        ):
            host = Host(process, address, watcher, chronicle, log)
            host.until(lambda: host.ask(0) and len(host.workers()) == 2)
            host.until(lambda: _tables(tables) == 3)
            host.until(lambda: len(parse_heap_pids(host)) == 3)
            yield host
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def parse_heap_pids(host: Host) -> list[str]:
    """The processes that the watch sees."""
    host.step()
    host.step()
    watched = next(iter(host.chronicle._deaths._watched.values()), None)
    return [] if watched is None else [str(pid) for pid in watched.processes]


def _tables(directory: Path) -> int:
    return len(list(directory.glob("*.stanch")))


def test_a_worker_killed_by_the_kernel_is_an_oom_with_its_line(
    tmp_path: Path, cgroup_tree: CgroupTree
) -> None:
    """A real OOM kill in a real cgroup: one worker dies, its black box names what it kept."""
    group = cgroup_tree.create("host", 220 * int(MIB))
    if group.version == 2:
        (group.directory / "memory.oom.group").write_text("0")
    enter = ["/bin/sh", "-c", 'echo $$ > "$1" && shift && exec "$@"', "sh"]
    with hosting(tmp_path, lambda command: [*enter, str(group.procs_file), *command]) as host:
        assert host.ask(2000)
        host.step()
        assert not host.ask(60_000)
        death = host.next_death()
        # Who started the host ends what is left of it: that is no second death.
        os.killpg(host.process.pid, signal.SIGKILL)
        host.process.wait(30)
        watched = host.chronicle._deaths._watched
        host.until(lambda: host.step().deaths == () and not watched)
        with Journal(tmp_path / "data") as journal, journal.read() as transaction:
            ((_, kept),) = deaths(transaction)
    assert set(kept.pids) > set(death.pids)
    assert host.process.pid in kept.pids
    assert replace(kept, pids=death.pids) == death
    assert (death.cause, death.sure) == ("oom", True)
    assert (death.service, death.instance) == ("shop", "shop-1")
    assert len(death.pids) == 1
    assert death.place == f"{tmp_path.name}/hoarder.py:6 hoard"
    assert death.profile_from == "table"
    assert death.place_bytes > 40 * MIB
    assert death.limit_bytes == 220 * MIB
    assert death.requests is not None


def test_a_worker_that_is_killed_and_one_that_ends_in_good_order(tmp_path: Path) -> None:
    """SIGKILL leaves a table: a crash. SIGTERM does not: an exit. The master lives on."""
    with hosting(tmp_path, lambda command: command) as host:
        assert host.ask(500)
        first, second = host.workers()
        os.kill(first, signal.SIGKILL)
        death = host.next_death()
        assert (death.cause, death.sure, death.pids) == ("crash", False, (first,))
        assert death.profile_from == "table"
        host.until(lambda: second in host.workers() and len(parse_heap_pids(host)) == 3)
        os.kill(second, signal.SIGTERM)
        death = host.next_death()
        assert (death.cause, death.sure, death.pids) == ("exit", True, (second,))
        host.process.send_signal(signal.SIGTERM)
        host.process.wait(60)
        death = host.next_death()
        assert death.cause == "exit"
        assert host.process.pid in death.pids
        assert host.step().deaths == ()


def test_what_is_recycled_and_ends_bit_by_bit_is_one_end(tmp_path: Path) -> None:
    """A look between the end of a worker and that of the rest makes no second end of it."""
    with hosting(tmp_path, lambda command: command) as host:
        host.chronicle.expect("shop", "shop-1", Evidence(recycled="at 90% of its limit"))
        worker = host.workers()[0]
        os.kill(worker, signal.SIGTERM)
        death = host.next_death()
        assert (death.cause, death.pids) == ("recycle", (worker,))
        host.process.send_signal(signal.SIGTERM)
        host.process.wait(60)
        watched = host.chronicle._deaths._watched
        host.until(lambda: host.step().deaths == () and not watched)
        with Journal(tmp_path / "data") as journal, journal.read() as transaction:
            ((_, kept),) = deaths(transaction)
    assert kept.cause == "recycle" and {worker, host.process.pid} < set(kept.pids)


def test_a_server_that_answers_after_its_worker_did(tmp_path: Path) -> None:
    """The worker that was seen first has not died of that; when it has, it is one death."""
    worker = subprocess.Popen(["sleep", "600"])
    pids = (os.getpid(), worker.pid)
    now_unix = time.time()
    text = "".join(
        f'process_start_time_seconds{{pid="{pid}"}} {_start_unix(pid, Path("/"))}\n' for pid in pids
    )
    old, young = (
        ProcessLook(pid, None, age_s) for pid, age_s in zip(pids, (60.0, 1.0), strict=True)
    )
    scrape = Scrape(
        parse_target("http://127.0.0.1:1 instance=shop-1"),
        1.0,
        now_unix,
        metrics=parse_exposition(text.encode()),
    )

    def look(*processes: ProcessLook) -> Look:
        return Look("shop", "shop-1", 1.0, now_unix, "python", processes)

    try:
        with contextlib.closing(JournalBook(tmp_path)) as book:
            deaths = DeathWatch(book)
            for seen in (look(young), look(old, young), look(old), look(young), look(old)):
                deaths.witness(scrape, seen)
            assert deaths.take() == []
            worker.kill()
            worker.wait()
            deaths.witness(replace(scrape, metrics=None), look(old))
            (death,) = deaths.take()
            assert death.pids == (worker.pid,)
    finally:
        worker.kill()
        worker.wait()


def test_the_command_lists_shows_and_writes(
    tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restart at the limit is listed with what the last look saw, and its profile written."""
    watcher, chronicle = watching(service, tmp_path)
    with chronicle, watcher:
        for _ in range(40):
            look(service, watcher, chronicle)
        service.restart()
        (death,) = look(service, watcher, chronicle).deaths
    assert (death.cause, death.sure) == ("oom", False)
    assert death.place == "app/sessions.py:41 remember"
    assert death.forecast is not None
    assert death.profile_from == "scrape"
    data = str(tmp_path)
    assert main(["deaths", "--data", data]) == 0
    listed = capsys.readouterr().out
    assert " oom?     shop 127.0.0.1" in listed
    assert "live from app/sessions.py:41 remember" in listed
    assert "foretold " in listed
    assert main(["deaths", "--data", data, "--service", "cart"]) == 0
    assert capsys.readouterr().out == "no deaths\n"
    assert main(["deaths", "1", "--data", data]) == 0
    assert "Heap profile from the last look, 0.0 s before the end" in capsys.readouterr().out
    output = tmp_path / "heap.pb.gz"
    assert main(["deaths", "1", "--data", data, "-o", str(output)]) == 0
    assert len(parse(output.read_bytes()).samples) > 0
    assert main(["deaths", "--json", "--data", data]) == 0
    assert '"number": 1, "key": ' in capsys.readouterr().out
    assert main(["deaths", "7", "--data", data]) == 2
    assert main(["deaths", "--data", str(tmp_path / "none")]) == 2


def watching(service: Service, data: Path) -> tuple[Watcher, Chronicle]:
    """A watch of a service under its clock."""
    clock = service.clock
    chronicle = Chronicle(JournalBook(data), wall=lambda: 1.7e9 + clock.now_s)
    watcher = Watcher(
        [parse_target(service.served.url)],
        EVERY_S,
        witness=chronicle.witness,
        monotonic=lambda: clock.now_s,
        wall=lambda: 1.7e9 + clock.now_s,
        sleep=clock.sleep,
    )
    return watcher, chronicle


def look(service: Service, watcher: Watcher, chronicle: Chronicle) -> WatchState:
    """One look at the service, EVERY_S later."""
    service.tell()
    state = chronicle.take(watcher.step())
    service.clock.sleep(EVERY_S)
    return state


def test_a_service_that_does_not_answer_is_not_dead(service: Service, tmp_path: Path) -> None:
    """Silence for minutes and then the same process: no death. Silence for longer: ended unseen."""
    watcher, chronicle = watching(service, tmp_path)
    with chronicle, watcher:
        look(service, watcher, chronicle)
        answers, service.served.answers = service.served.answers, {}
        service.served.answers.clear()
        for _ in range(60):
            state = chronicle.take(watcher.step())
            service.clock.sleep(9.0)
            assert state.deaths == ()
        service.served.answers.update(answers)
        assert look(service, watcher, chronicle).deaths == ()
        service.served.answers.clear()
        service.clock.sleep(700.0)
        (death,) = chronicle.take(watcher.step()).deaths
        assert (death.cause, death.sure) == ("unknown", False)
        service.restart()
        assert look(service, watcher, chronicle).deaths == ()


def test_what_a_parent_tells_makes_a_likely_cause_sure(service: Service, tmp_path: Path) -> None:
    """Told before or after it was noticed, it is one death."""
    watcher, chronicle = watching(service, tmp_path)
    with chronicle, watcher:
        look(service, watcher, chronicle)
        (row,) = look(service, watcher, chronicle).rows
        told = chronicle.tell("shop", row.instance, Evidence(status=-signal.SIGSEGV))
        assert told is not None
        assert (told.cause, told.function) == ("crash", "remember")
        service.clock.sleep(2.0)
        service.restart()
        assert [each.key for each in look(service, watcher, chronicle).deaths] == [told.key]
        look(service, watcher, chronicle)
        service.clock.sleep(200.0)
        service.restart()
        (noticed,) = look(service, watcher, chronicle).deaths
        assert not noticed.sure
        died = noticed.died_unix + 1.0
        after = chronicle.tell("shop", row.instance, Evidence(recycled="grows"), died_unix=died)
        assert after is not None
        assert (after.key, after.cause, after.sure) == (noticed.key, "recycle", True)


def test_a_target_that_is_no_longer_wanted_has_not_died(service: Service, tmp_path: Path) -> None:
    """Taken from the list, it is forgotten."""
    watcher, chronicle = watching(service, tmp_path)
    with chronicle, watcher:
        state = look(service, watcher, chronicle)
        chronicle.take(WatchState(9, state.unix_s, 0.0, ()))
        service.restart()
        assert look(service, watcher, chronicle).deaths == ()


def test_a_journal_that_fails_is_trouble_and_no_end(service: Service, tmp_path: Path) -> None:
    """The watch goes on, and says what does not work."""
    watcher, chronicle = watching(service, tmp_path)
    with watcher, chronicle:
        look(service, watcher, chronicle)
        chronicle._book.close()
        service.restart()
        state = look(service, watcher, chronicle)
        assert state.source_error is not None
        assert state.source_error.startswith("deaths: the journal ")
        assert state.rows[0].verdict != "down"
