"""/debug/stanch/retention: the answer as JSON, two looks, one search at a time, what is refused."""

import json
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from stanch.agent.retention import behaviour

from .hosts import Runs, ask, runs_directory, wait_for
from .serving import Reply, get, host

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the retention search knows CPython 3.11 to 3.13"
)

PATH = "/debug/stanch/retention"
SHOP = """
import collections, functools, queue, threading, time
sampler.start(interval_bytes=1024, service="shop")
SESSIONS, RING = {}, collections.deque(maxlen=50)
CONFIG, LINE = {n: [bytes(2000)] for n in range(60)}, sys._getframe().f_lineno
INBOX = queue.Queue()
def enqueue(): INBOX.put(bytes(400))
class Session:
    def __init__(self, n): self.request = [bytes(500), n]
@functools.lru_cache(maxsize=100_000)
def price(n): return bytes(300)
def remember(n):
    SESSIONS[f"secret-{n}"] = Session(n)
    RING.append(bytes(2000))
    price(n)
def work():
    n = 0
    while True:
        n += 1
        remember(n)
        enqueue()
        time.sleep(0.002)
threading.Thread(target=work, daemon=True).start()
while len(SESSIONS) < 300:
    time.sleep(0.01)
endpoint, _ = serve("127.0.0.1:0", service="shop")
ready(f"{endpoint.address} {LINE}")
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """The address of a host that keeps sessions."""
    with host(SHOP) as (_, text):
        yield text.split()[0]


LOOP = """
import asyncio, threading, time
sampler.start(interval_bytes=512, service="shop")
KEPT = set()
OWNER = [[[[[[[[[[[[KEPT]]]]]]]]]]]]
del globals()["KEPT"]
def keep(kept):
    for n in range(2000): kept.add(bytes([n % 250]) * 300 + str(n).encode())
def innermost():
    kept = OWNER
    while type(kept) is list:
        kept = kept[0]
    return kept
async def main():
    keep(innermost())
    loop = asyncio.get_running_loop()
    while True:
        for _ in range(20):
            loop.call_soon(innermost().discard, b"")
        await asyncio.sleep(0)
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
time.sleep(0.5)
endpoint, _ = serve("127.0.0.1:0", service="shop")
ready(endpoint.address)
"""


@pytest.fixture(scope="module")
def config_line() -> Iterator[tuple[str, str]]:
    """The address of another such host, and the place of its line that makes CONFIG."""
    with host(SHOP) as (_, text):
        address, line = text.split()
        yield address, f"<string>:{line}"


def why(address: str, **query: object) -> dict[str, Any]:
    """Ask, and expect an answer."""
    reply = get(address, f"{PATH}?{urlencode(query)}")
    assert reply.status == 200, reply.text
    return dict(json.loads(reply.body))


def test_a_growing_dict_is_told_from_bounded_holders(shop: str) -> None:
    """Two looks say of each container on the paths what it does, and name it."""
    answer = why(shop, function="remember", seconds=1)
    told = {holder["name"]: holder for holder in answer["holders"]}
    sessions = told["__main__ module global SESSIONS"]
    assert sessions["behaviour"] == "grows without bound"
    assert sessions["type"] == "dict" and sessions["growth_per_second"] > 0
    assert told["__main__ module global RING"]["behaviour"] == "at its bound"
    price = told["__main__ module global price"]
    assert price["behaviour"].startswith("filling towards its bound (")
    assert price["behaviour"].endswith(" of 100,000)")
    heaviest = max(answer["paths"], key=lambda path: path["bytes"])
    assert heaviest["bytes"] <= answer["bytes"] and answer["samples"] > 10
    assert answer["notes"] == []
    assert not answer["search"]["in_process"] and answer["search"]["pause_ms"] > 0


def test_a_queue_that_nobody_reads_is_named_and_told_from_one_that_is_read(shop: str) -> None:
    """Its deque has the name of the global that leads to it, and `get` has never run here."""
    answer = why(shop, function="enqueue", seconds=1)
    (told,) = (one for one in answer["holders"] if one["name"] == "Queue.queue")
    assert told["root"] == "__main__ module global INBOX"
    assert (told["removed_from"], told["removal_ran"]) == (True, False)
    assert told["behaviour"] == "grows without bound" and answer["collector"] == "on"


def test_a_type_or_a_line_may_be_asked_for(config_line: tuple[str, str]) -> None:
    """Only objects of a type, or of a line, are told of; without either, what keeps most."""
    shop, place = config_line
    only = why(shop, function="remember", type="Session")
    assert only["samples"] < why(shop, function="remember")["samples"]
    path = only["paths"][0]
    assert (path["reference"], path["type"]) == ("__main__ module global SESSIONS", "dict")
    line = why(shop, place=place)
    assert line["paths"][0]["reference"] == "__main__ module global CONFIG"
    assert why(shop)["chosen"] in ("remember", "Session.__init__", "price")


def test_no_value_is_told_unless_asked(shop: str) -> None:
    """Keys of containers are not in the answer; `values` shows them on loopback."""
    assert "secret-" not in json.dumps(why(shop, function="remember"))
    assert "secret-" in json.dumps(why(shop, function="remember", values=1))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"place": "app.py"}, "expected FILE:LINE"),
        ({"place": "app.py:x"}, "expected FILE:LINE"),
        ({"seconds": "-1"}, "expected a number above 0"),
        ({"function": "no_such_function"}, "no live sample was allocated by no_such_function"),
        ({"function": "remember", "type": "Nothing"}, "no live sample of remember is a Nothing"),
    ],
)
def test_wrong_questions(shop: str, query: dict[str, str], sentence: str) -> None:
    """A question that makes no sense, or that nothing answers, is refused in one sentence."""
    reply = get(shop, f"{PATH}?{urlencode(query)}")
    assert reply.status == 400 and sentence in reply.text, reply


def test_one_search_at_a_time(shop: str) -> None:
    """Of many questions at once one is answered; the rest are told when to come again."""
    replies: list[Reply] = []
    threads = [
        threading.Thread(
            target=lambda: replies.append(get(shop, f"{PATH}?function=remember&seconds=2"))
        )
        for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(reply.status for reply in replies)
    assert statuses[0] == 200 and statuses.count(429) > 5
    # Connections beyond those the endpoint takes at a time are turned away with 503.
    assert set(statuses) <= {200, 429, 503} and statuses.count(200) < 10, statuses
    assert all(int(reply.headers["retry-after"]) > 0 for reply in replies if reply.status != 200)
    assert why(shop, function="remember")["samples"]


def test_sampling_that_is_off_is_said() -> None:
    """Without sampling there is nothing to search for."""
    with host('ready(serve("127.0.0.1:0")[0].address)') as (_, address):
        reply = get(address, PATH)
    assert reply.status == 503 and "sampling is off" in reply.text


def test_behaviour_in_words() -> None:
    """What a container does follows from its length, its bound and its growth."""
    assert behaviour(5, None, None) is None
    assert behaviour(5, 5, None) == "at its bound"
    assert behaviour(4, 5, 1.0) == "filling towards its bound (4 of 5)"
    assert behaviour(4, 5, 0.0) == behaviour(4, None, -1.0) == "stable"
    assert behaviour(4, None, 0.1) == "grows without bound"


def test_the_largest_process_of_a_run_answers() -> None:
    """A question to a run is answered by the process with the most memory, or by the one asked."""
    with runs_directory() as runs:
        _check_run(runs)


def _check_run(runs: Runs) -> None:
    script = runs.script(
        "host.py",
        """
        import multiprocessing, sys
        KEPT = []
        def keep():
            KEPT.extend(b'x' * (10_000 + n) for n in range(10_000))
        def child(ready, end):
            keep()
            ready.set()
            end.wait()
        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            ready, end = context.Event(), context.Event()
            process = context.Process(target=child, args=(ready, end))
            process.start()
            ready.wait()
            print("ready", process.pid, flush=True)
            sys.stdin.read()
            end.set()
            process.join()
        """,
    )
    with runs.running("--", sys.executable, script) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        pid = int(runs.output().split()[1])
        first = wait_for(
            lambda: [path for path in runs.sockets() if path.stem == str(process.pid)], runs
        )[0]
        wait_for(lambda: any(path.stem == str(pid) for path in runs.sockets()), runs)
        answer = json.loads(ask(first, f"{PATH}?function=keep"))
        assert answer["pid"] == pid
        assert answer["paths"][0]["reference"].endswith("module global KEPT")
        process.communicate("", timeout=60)


def test_callbacks_that_are_about_to_run_do_not_hide_what_lasts() -> None:
    """A busy event loop holds for a moment what a longer path holds for good: that one is told."""
    with host(LOOP) as (_, text):
        for _ in range(5):
            (path, *_) = why(text, function="keep")["paths"]
            assert path["reference"] == "__main__ module global OWNER"
