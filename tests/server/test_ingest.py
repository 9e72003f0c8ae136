"""What comes in over HTTP: agents' pushes, Pyroscope's requests, garbage, and a full disk."""

import base64
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from stanch.agent.push import PushOptions, headers, post_once
from stanch.collect.received import Receiver
from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode
from stanch.profile.wire import bytes_field
from stanch.server.ingest import MAX_BODY_BYTES, ingest_routes
from stanch.store.history import ProfileRow, TimeRange
from stanch.store.sqlstore import SqlStore, open_store
from tests.server.serving import PATIENCE_S, serving
from tests.store.pprofs import heap_bytes

AGENT = ("stanch=0.1", "service=shop", "instance=host:42", "pid=42", "requests=7")


@dataclass(frozen=True)
class Served:
    """A server over a store."""

    url: str
    store: SqlStore

    def stored(self, service: str) -> tuple[ProfileRow, ...]:
        """The profiles of a service that are in the tables."""
        self.store.flush()
        now = time.time()
        return self.store.history.profiles(service, TimeRange(now - 4000, now + 100))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The routes over a store of chDB."""
    with open_store("chdb", tmp_path_factory.mktemp("store")) as store:
        receiver = Receiver(store, time.time)
        with serving([*ingest_routes(receiver)]) as url:
            yield Served(url, store)


def agent_heap(**options: object) -> bytes:
    """A heap as the agent sends it."""
    return heap_bytes({"a": 1000}, time_s=time.time(), comments=AGENT, **options)


def test_takes_what_the_agent_pushes(served: Served) -> None:
    """The agent's own code sends a heap; it is stored under the names of its headers."""
    options = PushOptions(f"{served.url}/api/v1/push", 15.0, service="Grüße", instance="pod-1")
    post_once(options.url, headers(options), agent_heap())
    (row,) = served.stored("Grüße")
    assert (row.instance, row.kind, row.live_bytes) == ("pod-1", "heap", 1000.0)
    assert row.has_raw


def test_a_live_process_pushes(served: Served) -> None:
    """A real process under `stanch run --push` arrives with its memory and its pid."""
    program = "import time\nheld = [bytearray(300) for _ in range(200_000)]\ntime.sleep(600)"
    command = [sys.executable, "-m", "stanch.cli.main", "run", "--push"]
    command += [f"{served.url}/api/v1/push", "--push-every", "1s", "--service", "live"]
    environment = os.environ | {"STANCH_INTERVAL": "4096"}
    with subprocess.Popen([*command, "--", sys.executable, "-c", program], env=environment) as one:
        try:
            until = time.monotonic() + PATIENCE_S
            while not (rows := served.stored("live")):
                assert time.monotonic() < until
                time.sleep(0.2)
        finally:
            one.kill()
    assert rows[0].live_bytes > 30e6
    (life,) = served.store.history.lives("live", TimeRange(time.time() - 300, time.time() + 60))
    assert (life.pid, life.language, life.end) == (one.pid, "python", "running")
    (memory,) = served.store.history.memory("live", TimeRange(time.time() - 300, time.time() + 60))
    assert memory.rss_bytes[-1] > 30e6


def test_the_same_profile_again_is_taken_once(served: Served) -> None:
    """A sender that did not hear the answer sends again, and nothing is doubled."""
    data = agent_heap()
    answers = [
        httpx.post(f"{served.url}/api/v1/push", content=data, headers={"X-Stanch-Service": "twice"})
        for _ in range(3)
    ]
    assert [answer.json()["taken"] for answer in answers] == [True, False, False]
    assert len(served.stored("twice")) == 1


def test_names_come_from_the_profile_too(served: Served) -> None:
    """Without headers the comments of the agent's profile name the service and instance."""
    data = heap_bytes(
        {"b": 2000}, comments=("stanch=1", "service=told", "instance=i"), time_s=time.time()
    )
    answer = httpx.post(f"{served.url}/api/v1/push", content=data)
    assert answer.json() == {"service": "told", "instance": "i", "kind": "heap", "taken": True}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "got 0 bytes"),
        (b"<html>", "HTML page"),
        (b"\x1f\x8b\x08garbage", "gzip stream"),
        (gzip.compress(b"heap profile: 1: 2 [3: 4]"), "legacy text format"),
        (os.urandom(5000), "cannot read the profile"),
    ],
    ids=["empty", "html", "torn", "legacy", "random"],
)
def test_garbage_is_refused(served: Served, body: bytes, words: str) -> None:
    """What is no profile is a 400 with a sentence, on each route."""
    for path in ("/api/v1/push", "/ingest?name=x&format=pprof"):
        answer = httpx.post(f"{served.url}{path}", content=body)
        assert answer.status_code == 400
        assert words in answer.text
    answer = httpx.post(f"{served.url}/push.v1.PusherService/Push", content=b"\xff\xff")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_argument"


def test_a_body_that_is_too_long(served: Served) -> None:
    """A body beyond the limit is refused by its length, or while it comes."""
    chunk = bytes(1024 * 1024)
    chunks = (chunk for _ in range(MAX_BODY_BYTES // len(chunk) + 1))
    answer = httpx.post(f"{served.url}/api/v1/push", content=chunks, timeout=PATIENCE_S)
    assert answer.status_code == 413


def test_pyroscope_ingest(served: Served) -> None:
    """An SDK's request: the service of its name and labels, pprof plain or in a form."""
    now = time.time()
    name = "pyro.app{region=eu,instance=pod-7,version=2.1}"
    query = {"name": name, "format": "pprof", "spyName": "gospy", "until": str(int(now))}
    plain = httpx.post(f"{served.url}/ingest", params=query, content=agent_heap())
    form = httpx.post(
        f"{served.url}/ingest",
        params=query,
        files={"profile": ("profile.pprof", agent_heap(age_s=61.0)), "sample_type_config": b"{}"},
    )
    assert [plain.status_code, form.status_code] == [200, 200]
    rows = served.stored("pyro.app")
    assert [row.instance for row in rows] == ["pod-7", "pod-7"]
    assert served.store.history.releases("pyro.app", TimeRange(now - 100, now + 100)) == ("2.1",)


def test_pyroscope_folded(served: Served) -> None:
    """Collapsed stacks are a profile too, with what they count."""
    query = {"name": "folded", "format": "folded", "units": "samples"}
    answer = httpx.post(f"{served.url}/ingest", params=query, content=b"main;a;b 3\nmain;c 4\n")
    assert answer.status_code == 200
    (row,) = served.stored("folded")
    assert (row.kind, row.stacks) == ("samples", 2)
    assert httpx.post(f"{served.url}/ingest", params=query, content=b"main").status_code == 400
    jfr = httpx.post(f"{served.url}/ingest?name=x&format=jfr", content=b"x")
    assert (jfr.status_code, "format 'jfr'" in jfr.text) == (400, True)


def cpu_profile(number: int) -> bytes:
    """A CPU profile, of which the default type counts nanoseconds."""
    stack = (Location(0, None, (Line(Function("work"), 3),)),)
    types = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
    sample = Sample(stack, (1, 10_000_000 * number))
    return encode(Profile(types, (sample,), "cpu", time_nanos=time.time_ns()))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_push_v1(served: Served, packed: bool) -> None:
    """Grafana Alloy's request, JSON and protobuf, as it is and gzipped."""
    url = f"{served.url}/push.v1.PusherService/Push"
    service = f"alloy-{packed}"
    labels = {"service_name": service, "pod": "p-1", "__name__": "process_cpu"}
    series = b"".join(
        bytes_field(1, bytes_field(1, key.encode()) + bytes_field(2, value.encode()))
        for key, value in labels.items()
    )
    protobuf = bytes_field(1, series + bytes_field(2, bytes_field(1, cpu_profile(1))))
    pairs = [{"name": key, "value": value} for key, value in labels.items()]
    samples = [{"rawProfile": base64.b64encode(cpu_profile(2)).decode(), "ID": "x"}]
    text = json.dumps({"series": [{"labels": pairs, "samples": samples}]}).encode()
    for content_type, body in (("application/proto", protobuf), ("application/json", text)):
        head = {"Content-Type": content_type}
        if packed:
            head["Content-Encoding"] = "gzip"
        content = gzip.compress(body) if packed else body
        assert httpx.post(url, content=content, headers=head).status_code == 200
    rows = served.stored(service)
    assert [(row.instance, row.kind) for row in rows] == [("p-1", "cpu")] * 2
