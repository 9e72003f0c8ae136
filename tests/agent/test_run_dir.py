"""The run directory: private, tidy, and evidence of deaths kept within bounds."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.agent import rundir
from stanch.agent.rundir import Run, RunDirectoryError


def gone() -> int:
    """Return the pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def table(path: Path, pid: int, age_s: int = 0, size: int = 4096, state: int = 1) -> Path:
    """Write what has the head of a table file of a process, which lived for 1000 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start_ns = (1_700_000_000 - 1000 - age_s) * 10**9
    head = struct.pack(
        "<8sIIQQQI", b"STANCHT\n", 2, 4096, pid, start_ns, 1000 * 10**9, state
    )  # fmt: skip
    path.write_bytes(head.ljust(size, b"\1"))
    os.utime(path, (1_700_000_000 + age_s,) * 2)  # of a mapped file it says nothing
    return path


def test_directories_are_private(tmp_path: Path) -> None:
    """Both directories are made with mode 0700, and made again without complaint."""
    run = Run(tmp_path / "base" / "1", 1)
    rundir.make(run)
    rundir.make(run)
    for directory in (run.directory, run.directory.parent):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_unsafe_places_are_refused(tmp_path: Path) -> None:
    """A symlink, a file, a directory that is open or another user's is refused, with a remedy."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    cases = {"link": "symlinks are refused", "file": "is not a directory", "open": "open to others"}
    if os.geteuid() == 0:
        (tmp_path / "theirs").mkdir(mode=0o700)
        os.chown(tmp_path / "theirs", 12345, 12345)
        cases["theirs"] = "belongs to user 12345"
    for name, reason in cases.items():
        with pytest.raises(RunDirectoryError, match=reason) as caught:
            rundir.make(Run(tmp_path / name / "1", 1))
        assert "set STANCH_DIR" in str(caught.value)


def test_run_of_the_environment(tmp_path: Path) -> None:
    """Children find the run by its variables; without them a process is the first of its own."""
    named = rundir.run_of({"STANCH_RUN_DIR": str(tmp_path), "STANCH_RUN_PID": "1"})
    assert (named, named.is_first) == (Run(tmp_path, 1), False)
    own = rundir.run_of({"STANCH_DIR": str(tmp_path), "STANCH_RUN_PID": "x"})
    assert (own.directory, own.is_first) == (tmp_path / str(os.getpid()), True)
    assert rundir.base_directory({"TMPDIR": "/x"}) == Path(f"/x/stanch-{os.geteuid()}")


def test_where_tables_go(tmp_path: Path) -> None:
    """A file is for the first process, its relatives' go beside it; a directory is shared."""
    own = f"{os.getpid()}.stanch"
    first, relative = Run(tmp_path / "run", os.getpid()), Run(tmp_path / "run", 1)
    assert rundir.table_path(first, None, named=False) is None
    assert rundir.table_path(first, None, named=True) == tmp_path / "run" / own
    assert rundir.table_path(relative, tmp_path, named=True) == tmp_path / own
    file = tmp_path / "shop.stanch"
    assert rundir.table_path(first, file, named=True) == file
    assert rundir.table_path(relative, file, named=True) == tmp_path / f"shop.{own}"


def test_only_the_dead_leave_evidence(tmp_path: Path) -> None:
    """Tables of ended processes are found, newest first; what is no table of ours is not."""
    dead = gone()
    old = table(tmp_path / "1.stanch", dead, age_s=100)
    new = table(tmp_path / "2.stanch", dead)
    (tmp_path / "3.stanch").write_bytes(b"")
    (tmp_path / "4.stanch").write_bytes(b"x" * 4096)
    (tmp_path / "5.stanch").symlink_to(new)
    os.mkfifo(tmp_path / "6.stanch")
    found = rundir.dead_tables(rundir.tables_beside(tmp_path))
    assert [(entry.path, entry.pid) for entry in found] == [(new, dead), (old, dead)]


def test_a_reused_pid_is_not_its_predecessor(tmp_path: Path) -> None:
    """A table is dead when the process of its pid does not map it: pid 1 of a container."""
    left = table(tmp_path / f"{os.getpid()}.stanch", os.getpid())
    assert [entry.path for entry in rundir.dead_tables([left])] == [left]
    rundir.keep_predecessor(left)
    assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == [f"{os.getpid()}.1700000000000.stanch"]


def test_a_living_table_is_left_alone(tmp_path: Path) -> None:
    """The table of a process that runs is neither dead nor moved."""
    program = (
        "import sys; from stanch import sampler; sampler.start(table=sys.argv[1]);"
        "print(sampler.stats().table_path, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        assert rundir.dead_tables(rundir.tables_beside(tmp_path)) == []
        rundir.keep_predecessor(path)
        assert path.exists()


def test_bounds_on_evidence(tmp_path: Path) -> None:
    """The newest sixteen are kept, and no more than 64 MiB, but always the newest of all."""
    dead = gone()
    for number in range(20):
        table(tmp_path / f"{number}.stanch", dead, age_s=number)
    rundir.tidy(rundir.tables_beside(tmp_path))
    kept = {int(path.stem) for path in tmp_path.iterdir()}
    assert kept == set(range(rundir.KEEP_TABLES))
    table(tmp_path / "0.stanch", dead, size=rundir.KEEP_BYTES + 4096)
    rundir.tidy(rundir.tables_beside(tmp_path))
    assert {int(path.stem) for path in tmp_path.iterdir()} == {0}


def test_those_that_ended_themselves_are_no_evidence(tmp_path: Path) -> None:
    """The table of one that ended by os._exit, or was killed while it made it, is tidied away."""
    dead = gone()
    killed = table(tmp_path / "1.stanch", dead, age_s=5)
    table(tmp_path / "2.stanch", dead, state=2)
    (tmp_path / f"shop.{dead}.stanch").write_bytes(b"")
    (tmp_path / f"{dead}.stanch").write_bytes(bytes(5000))
    half = tmp_path / f"{os.getpid()}.stanch"
    half.write_bytes(bytes(5000))
    tables = rundir.tables_beside(tmp_path)
    assert [entry.path for entry in rundir.dead_tables(tables)] == [killed]
    assert [entry.path for entry in rundir.tidy(tables)] == [killed]
    assert sorted(tmp_path.iterdir()) == sorted([killed, half])


def test_runs_are_tidied(tmp_path: Path) -> None:
    """Dead runs lose sockets and, when empty, their directory; living runs and others stay."""
    dead, alive = gone(), os.getpid()
    (tmp_path / str(dead)).mkdir()
    (tmp_path / str(dead) / f"{dead}.sock").touch()
    (tmp_path / str(alive)).mkdir()
    (tmp_path / str(alive) / f"{alive}.sock").touch()
    (tmp_path / "other").mkdir()
    rundir.clean_runs(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == sorted([str(alive), f"{alive}/{alive}.sock", "other"])
