"""The command line of `stanch watch`: use, exit codes, ends."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.cli.command import stanch
from tests.cli.watched import PATIENCE_S, STANCH, events, lines_until, running
from tests.collect.answers import Answer, python_answers, serving


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["127.0.0.1:6060"], "such as http://127.0.0.1:6060"),
        (["http://h:1", "--every", "often"], "--every: 'often' is not a duration"),
        (["http://h:1", "--for", "0"], "--for: '0' is not a duration"),
        (["http://h:1", "--limit", "much"], "--limit: 'much' is not a size"),
        (["http://h.example:1", "--token-file", "/t"], "use https://"),
        ([], "the following arguments are required: TARGET"),
    ],
)
def test_a_wrong_use_is_one_sentence_and_exit_2(arguments: list[str], complaint: str) -> None:
    """Each mistake on the command line is said in a sentence."""
    outcome = stanch("watch", *arguments)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_broken_file_of_targets_names_its_line(tmp_path: Path) -> None:
    """The file and the line are in the sentence."""
    path = tmp_path / "targets.txt"
    path.write_text("http://127.0.0.1:1\nnonsense\n")
    outcome = stanch("watch", path)
    assert outcome.code == 2
    assert f"{path}, line 2: 'nonsense' is not a target" in outcome.err


def test_no_target_that_ever_answered_is_exit_2() -> None:
    """The reason of the first target is given."""
    with serving({}) as gone:
        pass
    outcome = stanch("watch", gone.url, "--every", "100ms", "--for", "200ms")
    assert outcome.code == 2
    assert "no target ever answered" in outcome.err
    assert "cannot connect" in outcome.err


def test_a_steady_target_is_exit_0() -> None:
    """Nothing was confirmed; the other target's fault is told and changes nothing."""
    html = {"/metrics": Answer(b"<html>")}
    with serving(python_answers()) as agent, serving(html) as other:
        urls = (agent.url, other.url)
        outcome = stanch("watch", *urls, "--every", "100ms", "--for", "500ms")
    assert outcome.code == 0
    assert "/metrics answered with HTML" in outcome.out
    assert "shop 127.0.0.1" in outcome.out
    assert outcome.out.splitlines()[-1].endswith("nothing confirmed")
    assert outcome.err == ""


def test_options_hold_for_all_targets(tmp_path: Path) -> None:
    """Service, limit and token of the command line reach the targets."""
    token = tmp_path / "token"
    token.write_text("secret")
    with serving(python_answers()) as agent:
        options = ("--service", "cart", "--limit", "96MiB", "--token-file", token)
        outcome = stanch("watch", agent.url, *options, "--every", "100ms", "--for", "300ms")
    assert set(agent.tokens) == {"Bearer secret"}
    assert "cart 127.0.0.1" in outcome.out
    assert "of 96.0 MiB" in outcome.out


def test_ctrl_c_ends_with_a_summary() -> None:
    """Ctrl-C is the way to end: a last line, no traceback, the exit code of what was found."""
    with serving(python_answers()) as agent:
        command = (*STANCH, "watch", "--json", "--every", "100ms", agent.url)
        with running(*command, stderr=subprocess.PIPE) as watch:
            lines = lines_until(watch, lambda line: '"state"' in line)
            watch.send_signal(signal.SIGINT)
            out, err = watch.communicate(timeout=PATIENCE_S)
    assert watch.returncode == 0
    assert err == ""
    assert events(lines + out.splitlines())[-1]["event"] == "end"


def test_a_missing_package_is_one_sentence() -> None:
    """Without the extra, the sentence says how to install it."""
    code = "import sys; sys.modules['httpx'] = None; from stanch.cli.main import main; sys.exit("
    code += "main(['watch', 'http://127.0.0.1:1']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 2
    assert done.stderr == "stanch: watch needs the package httpx; pip install 'stanch[cli]'\n"


def test_a_terminal_gets_the_live_view() -> None:
    """On a terminal of 80 columns the table is drawn, and stays when the watch is over."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with serving(python_answers()) as agent:
        command = [*STANCH, "watch", "--every", "200ms", "--for", "1s", agent.url]
        environ = os.environ | {"TERM": "xterm-256color"}
        with subprocess.Popen(command, stdout=slave, stderr=slave, env=environ) as watch:
            os.close(slave)
            screen = _read_all(master)
    assert watch.returncode == 0
    assert "stanch watch" in screen
    assert "limit in" in screen
    assert "51.5 / 160 MiB" in screen
    assert "Ended: nothing confirmed." in screen
    assert "Traceback" not in screen


def _read_all(master: int) -> str:
    parts = []
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        try:
            part = os.read(master, 65536)
        except OSError:  # What Linux says when the other side is closed.
            break
        if not part:
            break
        parts.append(part)
    os.close(master)
    return b"".join(parts).decode()
