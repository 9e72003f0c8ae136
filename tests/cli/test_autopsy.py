"""`stanch autopsy` on what killed processes left."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stanch.cli.main import main
from stanch.profile import parse

VICTIM = """
    import os, signal, sys
    from stanch import sampler
    sampler.start(interval_bytes=65536, table=sys.argv[1], service="shop")
    def remember():
        return [bytes(10_000) for _ in range(1000)]
    kept = [remember() for _ in range(3)]
    for _ in range(42):
        sampler.count_request()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the table of a process that was killed while it held 30 MB."""
    path = tmp_path_factory.mktemp("black-box") / "victim.stanch"
    program = textwrap.dedent(VICTIM)
    killed = subprocess.run([sys.executable, "-c", program, path], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    return path


def test_names_the_line_and_the_circumstances(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text says whose table it is, that it was killed, and which line held the memory."""
    assert main(["autopsy", str(table)]) == 0
    text = capsys.readouterr().out
    assert "Autopsy of shop, pid" in text
    assert "killed or crashed" in text
    assert "requests served: 42" in text
    top = next(line for line in text.splitlines() if "remember" in line)
    assert float(top.split()[1].rstrip("%")) > 90
    assert ":6" in top


def test_directory_means_its_newest_table(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given the --table directory, the newest table is read."""
    older = table.with_name("older.stanch")
    older.write_bytes(b"not a table")
    os.utime(older, (1, 1))
    assert main(["autopsy", str(table.parent)]) == 0
    assert "Autopsy of shop" in capsys.readouterr().out


def test_writes_pprof_that_go_reads(table: Path, tmp_path: Path) -> None:
    """With -o the profile is written as pprof, and Go's own tool names the same function."""
    out = tmp_path / "dead.pb.gz"
    assert main(["autopsy", str(table), "-o", str(out)]) == 0
    assert "service=shop" in parse(out.read_bytes()).comments
    if shutil.which("go") is None:
        pytest.skip("no Go toolchain here: the profile was not shown to go tool pprof")
    answer = subprocess.run(
        ["go", "tool", "pprof", "-top", "-sample_index=inuse_space", out],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PPROF_TMPDIR": str(tmp_path)},
    )
    assert answer.returncode == 0 and answer.stderr == "", answer.stderr
    assert "remember" in answer.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "No such file"), (b"", "has 0 bytes"), (b"<html>" * 1000, "is not a table of Stanch")],
)
def test_bad_files_are_one_sentence(
    tmp_path: Path, content: bytes | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing or no table gives one sentence and exit code 2."""
    file = tmp_path / "x.stanch"
    if content is not None:
        file.write_bytes(content)
    assert main(["autopsy", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("stanch: ") and error.count("\n") == 1
    assert sentence in error
