"""A run of several processes: one listener answers for all, dead and silent ones left out."""

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from stanch.agent.profiles import whole
from stanch.agent.relatives import Relatives
from stanch.profile import Profile, Sample, ValueType, parse

from .serving import get, host, loopback, on_socket, serving

_MEMBER = """
    import os
    directory = Path(sys.argv[1])
    sampler.start(interval_bytes=1024, service="shop")
    kept = [bytes(1000) for _ in range(2000)]
    for _ in range(int(sys.argv[2])):
        sampler.count_request()
    endpoint, _ = serve(f"unix:{directory}/{os.getpid()}.sock", token="secret")
    ready(endpoint.address)
"""
_LISTENER = """
    directory = Path(sys.argv[1])
    sampler.start(interval_bytes=1024, service="shop")
    endpoint, _ = serve("127.0.0.1:0", directory, token="secret", service="shop")
    ready(endpoint.address)
"""
HEADER = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[int]]]:
    """The address of a listener with two relatives, and the pids, the listener's first."""
    directory = tmp_path_factory.mktemp("run")
    with ExitStack() as hosts:
        listener, address = hosts.enter_context(host(_LISTENER, str(directory)))
        members = [
            hosts.enter_context(host(_MEMBER, str(directory), requests))[0]
            for requests in ("3", "4")
        ]
        yield address, [listener, *members]


def facts(profile: Profile) -> dict[str, str]:
    """The key=value comments."""
    return dict(comment.split("=", 1) for comment in profile.comments)


def inuse_bytes(profile: Profile) -> int:
    """The live bytes of a heap profile."""
    return sum(sample.values[3] for sample in profile.samples)


def test_heaps_add_up(run: tuple[str, list[int]]) -> None:
    """The heap of a run is the sum of its processes', with the requests of all."""
    address, pids = run
    alone = [parse(get(address, f"/debug/pprof/heap?pid={pid}", HEADER).body) for pid in pids]
    together = parse(get(address, "/debug/pprof/heap", HEADER).body)
    told = facts(together)
    assert (told["processes"], told["requests"], told["pid"]) == ("3", "7", str(pids[0]))
    assert [facts(each)["pid"] for each in alone] == [str(pid) for pid in pids]
    kept = sum(map(inuse_bytes, alone[1:]))
    assert kept > 3e6
    assert inuse_bytes(together) >= 0.9 * kept
    assert together.duration_nanos >= max(each.duration_nanos for each in alone[1:])


def test_threads_of_all_are_counted(run: tuple[str, list[int]]) -> None:
    """The goroutine profile counts the threads of every process, and debug=2 lists each."""
    address, pids = run
    profile = parse(get(address, "/debug/pprof/goroutine", HEADER).body)
    assert sum(sample.values[0] for sample in profile.samples) == len(pids)
    text = get(address, "/debug/pprof/threads?debug=2", HEADER).text
    assert all(f"process {pid}\n" in text for pid in pids)
    assert text.count("[MainThread]") == len(pids)


def test_the_cpu_profile_covers_all(run: tuple[str, list[int]]) -> None:
    """A CPU profile is taken in all processes at the same time."""
    address, _ = run
    profile = parse(get(address, "/debug/pprof/profile?seconds=0.2", HEADER).body)
    assert facts(profile)["processes"] == "3" and "missing" not in facts(profile)


def test_metrics_name_each_process_once(run: tuple[str, list[int]]) -> None:
    """Per-process series carry the pid; help and type stand once, the container's series too."""
    address, pids = run
    text = get(address, "/metrics", HEADER).text
    found = re.findall(r'^process_resident_memory_bytes\{pid="(\d+)"\}', text, re.MULTILINE)
    assert sorted(map(int, found)) == sorted(pids)
    typed = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(typed) == len(set(typed))
    assert len(re.findall(r"^stanch_memory_working_set_bytes ", text, re.MULTILINE)) <= 1


def test_processes_are_listed(run: tuple[str, list[int]]) -> None:
    """The list of processes has every one, as JSON."""
    address, pids = run
    listed = json.loads(get(address, "/debug/stanch/processes", HEADER).body)
    assert [each["pid"] for each in listed] == sorted(pids)
    assert all(each["answered"] and each["sampling"] for each in listed)


@pytest.mark.parametrize("pid", ["1", "0", "-1", "x", "99999999999999999999", "../../etc"])
def test_a_pid_that_is_not_of_the_run_is_refused(run: tuple[str, list[int]], pid: str) -> None:
    """Only processes of the run can be asked for; the answer names them."""
    address, pids = run
    reply = get(address, f"/debug/pprof/heap?pid={pid}", HEADER)
    assert reply.status == 404 and all(str(known) in reply.text for known in pids)


def test_the_dead_are_forgotten_and_the_silent_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead process's socket is removed; a live one that does not answer is named as missing."""
    monkeypatch.setattr("stanch.agent.relatives.ANSWER_S", 0.2)
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(tmp_path / f"{ended.pid}.sock"))
    with (
        closing(socket.socket(socket.AF_UNIX)) as silent,
        serving(loopback(socket_directory=tmp_path)) as endpoint,
    ):
        silent.bind(str(tmp_path / "1.sock"))
        silent.listen()
        profile = parse(get(endpoint.address, "/debug/pprof/threads").body)
        listed = json.loads(get(endpoint.address, "/debug/stanch/processes").body)
    assert facts(profile)["missing"] == "1" and facts(profile)["processes"] == "1"
    assert listed[0] == {"pid": 1, "answered": False}
    assert not (tmp_path / f"{ended.pid}.sock").exists()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"nonsense",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 x y\r\n\r\n",
    ],
)
def test_a_relative_that_answers_nonsense_is_left_out(tmp_path: Path, sent: bytes) -> None:
    """What is no whole HTTP answer is not taken for one."""
    with closing(socket.socket(socket.AF_UNIX)) as liar:
        liar.bind(str(tmp_path / "1.sock"))
        liar.listen()

        def lie() -> None:
            connection, _ = liar.accept()
            with connection:
                connection.recv(8192)
                connection.sendall(sent)

        thread = threading.Thread(target=lie)
        thread.start()
        assert Relatives(tmp_path).ask(1, "/metrics") is None
        thread.join()


def test_names_that_are_no_pids_are_passed_over(tmp_path: Path) -> None:
    """Only PID.sock counts, and a directory that is gone is one without relatives."""
    for name in ("7.sock", "x.sock", "8.txt", ".sock", "-9.sock"):
        (tmp_path / name).touch()
    assert Relatives(tmp_path).pids() == [7]
    assert Relatives(tmp_path / "gone").pids() == [] and Relatives(None).pids() == []


def test_births_count_from_the_oldest_process() -> None:
    """Merging keeps the age of what is alive: a younger process's births move by its lateness."""

    def born(duration_s: int, birth_s: int) -> Profile:
        return Profile(
            sample_types=(ValueType("inuse_space", "bytes"),),
            samples=(Sample((), (10,), num_labels=(("birth", birth_s, "seconds"),)),),
            duration_nanos=duration_s * 1_000_000_000,
            comments=("requests=2", f"start_unix_ns={1000 - duration_s}"),
        )

    together = whole(born(62, 5), [born(102, 50), born(62, 10)], [4])
    births = {sample.num_labels[0][1]: sample.values[0] for sample in together.samples}
    assert births == {45: 10, 50: 20}
    assert together.duration_nanos == 102_000_000_000
    assert facts(together) == {
        "requests": "6",
        "start_unix_ns": "898",
        "processes": "3",
        "missing": "4",
    }


def test_an_endpoint_asked_alone_asks_nobody(tmp_path: Path) -> None:
    """A question that says alone=1 is not passed on, so processes never ask in circles."""
    with serving(on_socket(tmp_path, socket_directory=tmp_path)) as endpoint:
        (tmp_path / "1.sock").touch()
        profile = parse(get(endpoint.address, "/debug/pprof/threads?alone=1").body)
    assert "missing" not in facts(profile) and "processes" not in facts(profile)
