"""The table as a file: after SIGKILL, on a bad disk, and in hostile hands."""

import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stanch.sampler import TableError, read_table, table_profile

from .conftest import RunPython

CHURN = """
    import random, sys, threading
    from stanch import sampler
    sampler.start(interval_bytes=2048, table=sys.argv[1], service="victim")
    kept = []
    def leak():
        while True:
            kept.append(bytes(random.randrange(100, 5000)))
            [bytes(300) for _ in range(50)]
            if len(kept) > 10_000:
                del kept[:7_000]
    threads = [threading.Thread(target=leak, daemon=True) for _ in range(2)]
    [t.start() for t in threads]
    while len(kept) < 500:
        pass
    print("ready", flush=True)
    threads[0].join(20)
"""


def kill_while_it_churns(table: Path, delay_s: float) -> None:
    """Start the churning program and kill it after a moment of churn."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHURN), str(table)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL


def test_table_survives_sigkill_at_any_instant(tmp_path: Path) -> None:
    """Killed under churn and threads, again and again, the file reads back whole."""
    chance = random.Random(7)
    for round_number in range(8):
        table = tmp_path / f"{round_number}.stanch"
        kill_while_it_churns(table, chance.uniform(0.01, 0.25))
        image = read_table(table)
        assert image.torn == 0
        assert image.service == "victim"
        assert not image.stopped
        assert len(image.entries) > 100
        assert "leak" in {image.stacks[e.stack].frames[0][0].name for e in image.entries}
        assert table_profile(image).samples


def test_no_place_for_the_table(run_python: RunPython) -> None:
    """Without a place for the file sampling goes on in private memory and says why."""
    run_python(
        """
        from stanch import sampler
        sampler.start(interval_bytes=1024, table="/proc/nowhere/x.stanch")
        keep = [bytes(1000) for _ in range(1000)]
        stats = sampler.stats()
        assert stats.table_path is None
        assert "no table file at /proc/nowhere/x.stanch" in stats.table_error, stats
        assert stats.live_bytes > 5e5
        """
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("size", ["16k", "640k"])
def test_full_disk_drops_samples_and_never_the_host(
    run_python: RunPython, tmp_path: Path, size: str
) -> None:
    """When the disk is full from the start or fills up, samples are dropped and counted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "stanch-test", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        run_python(
            """
            import sys
            from stanch import sampler
            sampler.start(interval_bytes=64, table=sys.argv[1])
            keep = [bytes(1000) for _ in range(100_000)]
            stats = sampler.stats()
            if sys.argv[2] == "16k":
                assert "No space left" in stats.table_error, stats
            else:
                assert stats.table_path and stats.dropped["no_space"] > 1000, stats
            assert sampler.heap_profile()
            """,
            tmp_path,
            size,
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture(scope="module")
def good_table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give the bytes of a table that a killed process left."""
    table = tmp_path_factory.mktemp("table") / "good.stanch"
    kill_while_it_churns(table, 0.05)
    return table.read_bytes()


def test_truncated_and_foreign_files_are_refused(good_table: bytes, tmp_path: Path) -> None:
    """Each file that is not a whole table is refused with a sentence that says what it is."""
    cases = {
        "": "has 0 bytes",
        "x" * 100: "has 100 bytes",
        "<html>" + "x" * 5000: "is not a table of Stanch",
    }
    file = tmp_path / "bad.stanch"
    for content, sentence in cases.items():
        file.write_text(content)
        with pytest.raises(TableError, match=sentence):
            read_table(file)
    file.write_bytes(good_table[:6000])
    with pytest.raises(TableError, match="is damaged"):
        read_table(file)
    file.write_bytes(good_table[:8] + struct.pack("<I", 99) + good_table[12:])
    with pytest.raises(TableError, match="table format 99"):
        read_table(file)


def test_hostile_tables_give_an_image_or_a_table_error(good_table: bytes) -> None:
    """Bytes changed at random anywhere raise nothing but TableError."""
    chance = random.Random(3)
    refused = 0
    for _ in range(100):
        data = bytearray(good_table)
        for _ in range(chance.randrange(1, 20)):
            at = chance.randrange(300) if chance.random() < 0.5 else chance.randrange(len(data))
            data[at] = chance.randrange(256)
        try:
            table_profile(read_table(bytes(data)))
        except TableError:
            refused += 1
    assert 0 < refused < 100


def test_hostile_sizes_stay_bounded(good_table: bytes) -> None:
    """A stack that claims four billion frames, in a table of many, is cut, not believed."""
    data = bytearray(good_table)
    stacks_at, _, _, used, _ = struct.unpack_from("<QIIII", data, 128 + 4 * 24)
    for number in range(used):
        struct.pack_into("<II", data, stacks_at + 24 * number, 0, 0xFFFFFFFF)
    struct.pack_into("<I", data, 128 + 3 * 24 + 16, 100_000)  # items in use of stack_frames
    image = read_table(bytes(data))
    assert max(len(stack.frames) for stack in image.stacks) == 128
