"""The sidecar beside the Go example: profiles over a unix socket, a real OOM kill, its autopsy."""

import contextlib
import http.client
import json
import shutil
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stanch.collect import parse_target
from stanch.demo.host.cgroup import CgroupTree
from stanch.demo.host.ports import free_addresses
from stanch.profile import Profile, ValueType, encode, parse
from stanch.sidecar import Sidecar, SidecarError, SidecarOptions
from tests.cli.command import stanch
from tests.cli.watched import short_directory
from tests.collect.answers import Answer, serving

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/go-unix-pprof"
MIB = 1024 * 1024


@dataclass
class Ingest:
    """A local TLS server that takes pushes: reason, cause of death and token of each."""

    url: str
    ca: Path
    pushed: list[tuple[str, str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def ingest(directory: Path) -> Iterator[Ingest]:
    """Serve it on loopback, with a certificate of its own."""
    key, certificate = directory / "key.pem", directory / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            names = ("X-Stanch-Reason", "X-Stanch-Death", "Authorization")
            reason, death, token = (self.headers.get(name, "") for name in names)
            taken.pushed.append((reason, death, token))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    taken = Ingest(f"https://localhost:{server.server_port}/push", certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


def build(source: Path, program: Path) -> Path:
    """Build a Go program; skips the test without a Go toolchain."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go toolchain on this machine; with one, a real Go service is watched")
    command = [go, "build", "-o", str(program), "."]
    subprocess.run(command, cwd=source, check=True, timeout=300)
    return program


def eventually(story: list[str], text: str) -> None:
    """Wait until the sidecar has said something, two minutes at most."""
    deadline = time.monotonic() + 120
    while not any(text in line for line in story):
        assert time.monotonic() < deadline, story
        time.sleep(0.05)


def hoard(address: str, kib: int) -> None:
    """Have the example keep so much; it may die of it."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(f"http://{address}/hoard?kib={kib}", timeout=60).read()


def test_a_go_service_that_is_killed_has_an_autopsy(
    tmp_path: Path, cgroup_tree: CgroupTree
) -> None:
    """Profiles at shares of the limit, pushed over TLS with a token; the last names the line."""
    program = build(EXAMPLE, tmp_path / "example")
    (tmp_path / "token").write_text("secret\n")
    (address,) = free_addresses(1)
    story: list[str] = []
    ended = threading.Event()
    with short_directory() as directory, ingest(tmp_path) as taken:
        socket = directory / "pprof.sock"
        group = cgroup_tree.create("example", 128 * MIB)
        enter = ["/bin/sh", "-c", 'echo $$ > "$1" && shift && exec "$@"', "sh"]
        command = [*enter, str(group.procs_file), str(program)]
        process = subprocess.Popen([*command, "-listen", address, "-pprof", str(socket)])
        try:
            deadline = time.monotonic() + 60
            while not socket.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert socket.stat().st_mode & 0o777 == 0o600
            options = SidecarOptions(
                target=parse_target(f"unix:{socket}"),
                directory=tmp_path / "kept",
                every_s=0.5,
                look_s=0.1,
                push_url=taken.url,
                push_token_file=tmp_path / "token",
                push_ca=taken.ca,
                service="example",
            )

            def watch() -> None:
                with Sidecar(options) as sidecar:
                    for text in sidecar.run(120.0):
                        story.append(text)
                        if ended.is_set() or "autopsy kept" in text:
                            return

            watching = threading.Thread(target=watch, daemon=True)
            watching.start()
            for _ in range(45):  # to about 90 MiB of the 128
                hoard(address, 2048)
            eventually(story, "of the limit: profile kept as ")
            deadline = time.monotonic() + 60
            while process.poll() is None:
                assert time.monotonic() < deadline
                hoard(address, 4096)
            eventually(story, "autopsy kept as ")
            watching.join(60)
        finally:
            ended.set()
            process.kill()
            process.wait(30)
    died = next(line for line in story if "has died" in line)
    assert f"process {process.pid} has died: killed by the kernel at its memory limit" in died
    assert "from go-unix-pprof/main.go:25 main.hoard" in died
    (about,) = (tmp_path / "kept").glob("death-*.json")
    death = json.loads(about.read_text())
    assert (death["cause"], death["sure"]) == ("oom", True)
    assert death["place"] == "go-unix-pprof/main.go:25 main.hoard"
    listed = stanch("deaths", "--data", tmp_path / "kept").out
    assert " oom      example " in listed
    assert "live from go-unix-pprof/main.go:25 main.hoard" in listed
    assert (
        "Heap profile from the last look" in stanch("deaths", "1", "--data", tmp_path / "kept").out
    )
    assert death["last"]["limit_bytes"] == 128 * MIB
    assert parse(_autopsy(about)).samples
    assert taken.pushed[-1][1:] == ("oom", "Bearer secret")
    assert any("of the limit" in reason for reason, _, _ in taken.pushed)
    assert taken.bodies[-1] == _autopsy(about)


def _autopsy(about: Path) -> bytes:
    return about.with_name(about.name.removesuffix(".json") + ".pb.gz").read_bytes()


class EnoughError(Exception):
    """So many looks were wanted."""


def for_looks(count: int) -> Callable[[float], None]:
    """A pause that raises EnoughError after so many looks."""
    left = iter(range(count))

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if next(left, None) is None:
            raise EnoughError

    return pause


def test_a_program_without_samples_is_told_why(tmp_path: Path) -> None:
    """A heap profile without samples and period, as MemProfileRate 0 gives, is explained once."""
    types = ("alloc_objects", "count"), ("alloc_space", "bytes")
    types += ("inuse_objects", "count"), ("inuse_space", "bytes")
    empty = Profile(sample_types=tuple(ValueType(*each) for each in types))
    with short_directory() as directory:
        path = directory / "pprof.sock"
        with serving({"/debug/pprof/heap": Answer(encode(empty))}, path) as served:
            options = SidecarOptions(
                parse_target(served.url), tmp_path / "kept", every_s=0.1, look_s=0.05
            )
            story: list[str] = []
            with Sidecar(options, sleep=for_looks(30)) as sidecar, pytest.raises(EnoughError):
                story.extend(sidecar.run())
    assert [text.partition(":")[0] for text in story] == ["the heap profile is empty"]
    assert "runtime.MemProfileRate is 0" in story[0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["http://10.0.0.1:6060"], "is not on this machine"),
        (["nonsense"], "is not a target"),
        (["http://127.0.0.1:1", "--at", "much"], "--at is 'much'"),
        (["http://127.0.0.1:1", "--every", "often"], "'often' is not a duration"),
        (["http://127.0.0.1:1", "--cgroup", "/no/such"], "/no/such is no memory cgroup"),
        (["http://127.0.0.1:1", "--push", "http://x", "--token-file", "/t"], "over https:// only"),
    ],
)
def test_a_wrong_use_is_one_sentence(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    """Before anything is read."""
    outcome = stanch("sidecar", *arguments, "--keep", tmp_path / "kept")
    assert outcome.code == 2
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_target_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    """The sidecar goes on, and does not say the same again and again."""
    (address,) = free_addresses(1)
    options = SidecarOptions(
        parse_target(f"http://{address}"), tmp_path / "kept", every_s=0.1, look_s=0.05
    )
    with Sidecar(options) as sidecar:
        story = list(sidecar.run(1.0))
    assert len(story) == 1
    assert story[0].startswith("no profile: cannot connect")
    with pytest.raises(SidecarError, match="not on this machine"):
        Sidecar(SidecarOptions(parse_target("http://10.0.0.1:1"), tmp_path / "kept"))
