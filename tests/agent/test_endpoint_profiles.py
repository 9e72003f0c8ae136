"""Profiles of a real host as real tools read them: go tool pprof, and our own parser."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from stanch.profile import parse

from .serving import PATIENCE_S, get, host


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """The address of a host that keeps memory, burns CPU and has a task."""
    with host(
        """
        import asyncio, threading
        sampler.start(interval_bytes=1024, service="shop")
        kept = []
        def keep_sessions():
            kept.extend(bytes(1000) for _ in range(5000))
        def burn_cycles():
            while True:
                sum(range(1000))
        async def wait_for_ever():
            await asyncio.Event().wait()
        async def main():
            task = asyncio.create_task(wait_for_ever())
            endpoint, _ = serve("127.0.0.1:0", service="shop", instance="here:1")
            await asyncio.to_thread(ready, endpoint.address)
            task.cancel()
        keep_sessions()
        threading.Thread(target=burn_cycles, daemon=True).start()
        asyncio.run(main())
        """
    ) as (_, address):
        yield address


@pytest.mark.skipif(which("go") is None, reason="there is no go tool to read the profiles with")
@pytest.mark.parametrize(
    ("path", "function"),
    [
        ("heap", "keep_sessions"),
        ("heap?gc=1", "keep_sessions"),
        ("allocs", "keep_sessions"),
        ("profile?seconds=1", "burn_cycles"),
        ("goroutine", "wait_for_ever"),
        ("threads", "burn_cycles"),
    ],
)
def test_go_tool_pprof_reads_it(shop: str, tmp_path: Path, path: str, function: str) -> None:
    """`go tool pprof -top URL` names the function, without a warning."""
    answer = subprocess.run(
        # Whatever share is left to the function: its neighbour burns on while pprof starts.
        [
            "go",
            "tool",
            "pprof",
            "-top",
            "-cum",
            "-nodefraction=0",
            f"http://{shop}/debug/pprof/{path}",
        ],
        env={**os.environ, "PPROF_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert answer.returncode == 0, answer.stderr
    assert function in answer.stdout
    unexpected = re.sub(r"Fetching profile.*|Saved profile.*", "", answer.stderr)
    assert unexpected.strip() == ""


def test_the_heap_and_its_faces(shop: str) -> None:
    """heap and allocs are one profile with two defaults, and debug=1 is the same as text."""
    heap = parse(get(shop, "/debug/pprof/heap").body)
    allocs = parse(get(shop, "/debug/pprof/allocs").body)
    assert heap.default_sample_type == "inuse_space"
    assert allocs.default_sample_type == "alloc_space"
    assert "instance=here:1" in heap.comments and "service=shop" in heap.comments
    text = get(shop, "/debug/pprof/heap?debug=1").text
    head = re.match(r"heap profile: (\d+): (\d+) \[(\d+): (\d+)\] @ heap/1024\n", text)
    assert head is not None and int(head[2]) > 2_500_000 and int(head[4]) >= int(head[2])
    assert "#\tkeep_sessions\t<string>:" in text.split("\n\n")[0]
    assert "# service=shop\n" in text


def test_a_change_leaves_out_what_was_there(shop: str) -> None:
    """seconds=N gives what came meanwhile: the memory kept from before is not in it."""
    change = parse(get(shop, "/debug/pprof/heap?seconds=0.2").body)
    names = {
        line.function.name
        for sample in change.samples
        for at in sample.locations
        for line in at.lines
        if sample.values[3] > 100_000
    }
    assert "keep_sessions" not in names
