"""Buckets of requests: what flows in may go out, whoever finds none is told when to come back."""

import json
import stat
from pathlib import Path

from stanch.server.audit import AuditLog
from stanch.server.limits import BURST_S, Buckets


def test_a_burst_then_what_flows_in() -> None:
    """Two seconds' worth at once, then as many a second as are allowed; others are not touched."""
    now = [100.0]
    buckets = Buckets(5.0, lambda: now[0])
    assert [buckets.take("a") for _ in range(int(BURST_S * 5))] == [0] * 10
    assert buckets.take("a") == 1
    assert buckets.take("b") == 0
    now[0] += 1.0
    assert [buckets.take("a") for _ in range(6)] == [0] * 5 + [1]
    now[0] -= 50.0  # a clock that goes back gives nothing, and takes nothing
    assert buckets.take("a") == 1


def test_a_slow_rate_tells_how_long_to_wait() -> None:
    """One in ten seconds: the second one comes back after ten."""
    now = [0.0]
    buckets = Buckets(0.1, lambda: now[0])
    assert [buckets.take("a"), buckets.take("a")] == [0, 10]
    now[0] = 9.5
    assert buckets.take("a") == 1
    now[0] = 10.0
    assert buckets.take("a") == 0


def test_zero_is_no_limit_and_few_keys_are_kept() -> None:
    """Strangers with many addresses take a bounded memory."""
    assert not any(Buckets(0.0).take("a") for _ in range(1000))
    buckets = Buckets(1.0, lambda: 0.0)
    for number in range(30_000):
        buckets.take(str(number))
    assert len(buckets._left) == 20_000


def lines(directory: Path) -> list[dict[str, object]]:
    """What the log holds."""
    return [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]


def test_what_happens_again_is_counted(tmp_path: Path) -> None:
    """One line for the first, and the number of the others with the next after a while."""
    now = [1.7e9]
    audit = AuditLog(tmp_path, lambda: now[0])
    for _ in range(50):
        audit.note("refused", sender="10.0.0.1", path="/")
    audit.note("refused", sender="10.0.0.2", path="/x" * 500, token="")
    now[0] += 11.0
    audit.note("refused", sender="10.0.0.1", path="/")
    first, other, again = lines(tmp_path)
    assert first == {
        "time": "2023-11-14T22:13:20.000+00:00",
        "event": "refused",
        "sender": "10.0.0.1",
        "path": "/",
    }
    assert len(str(other["path"])) == 200
    assert again["again_before"] == 49
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_the_log_is_set_aside_when_it_is_full(tmp_path: Path) -> None:
    """At most two files of eight megabytes, whatever comes."""
    (tmp_path / "audit.jsonl").write_bytes(b"\n" * (8 * 1024 * 1024))
    AuditLog(tmp_path).note("signed in", token="me")
    assert [line["event"] for line in lines(tmp_path)] == ["signed in"]
    assert (tmp_path / "audit.jsonl.1").stat().st_size == 8 * 1024 * 1024


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """It is a trouble in words, until it can be."""
    (tmp_path / "audit.jsonl").mkdir()
    audit = AuditLog(tmp_path)
    audit.note("refused", sender="a")
    assert "cannot write" in str(audit.trouble)
    (tmp_path / "audit.jsonl").rmdir()
    audit.note("refused", sender="b")
    assert audit.trouble is None
