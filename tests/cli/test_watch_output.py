"""What a watch shows: the terminal's picture, plain lines and JSON lines."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from stanch.cli.watch_lines import JsonLines, PlainLines
from stanch.cli.watch_view import picture
from tests.cli.watch_states import CACHE, LEAK, ROWS, STATE

GOLDEN = Path(__file__).parent.parent / "golden" / "expected"


def drawn(width: int, height: int | None = None, state: object = STATE) -> str:
    """The picture as text, without colours."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height or 100, color_system=None)
    console.print(picture(state, 2.5, width, height))  # type: ignore[arg-type]
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize("width", [80, 140])
def test_the_picture_at_usual_widths(width: int, update: bool) -> None:
    """The picture at 80 and 140 columns is the one kept as golden; --update writes it."""
    path = GOLDEN / f"watch_{width}.txt"
    text = drawn(width)
    if update:
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("width", [40, 80, 100, 140, 200])
@pytest.mark.parametrize("height", [8, 16, 24, 60])
def test_the_picture_fits_its_terminal(width: int, height: int) -> None:
    """However small, no line is wider and there are no more lines than the terminal has."""
    many = tuple(replace(row, instance=f"{row.instance}-{n}") for row in ROWS for n in range(9))
    text = drawn(width, height, replace(STATE, rows=many))
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    if height >= 16:
        assert len(lines) <= height
    assert "more targets" in text


def test_plain_lines_tell_each_event_once() -> None:
    """Targets, verdicts, errors and findings are told when they are news, and not again."""
    stream = io.StringIO()
    output = PlainLines(stream)
    output.start(5, 2.5)
    output.show(STATE)
    first = stream.getvalue()
    output.show(replace(STATE, step=15, elapsed_s=37.5, new=(), changed=(), resolved=()))
    assert stream.getvalue() == first
    output.end(STATE, 1)
    lines = [line[9:] for line in stream.getvalue().splitlines()]
    assert lines[0] == "watching 5 targets every 2.5 s"
    assert "catalog: steady, memory 70.0 MiB of 192 MiB, 900 B/s" in lines
    assert "cart-1: cannot connect: Connection refused" in lines
    assert (
        "pricing 10.0.0.7:6060: probable native leak, memory 99.0 MiB, limit unknown, 819 KiB/s"
    ) in lines
    assert "new: leak (confirmed) in shop: shop/sessions.py:40 remember" in lines
    assert (
        "  1.10 MiB/s an instance (922 KiB to 1.30 MiB on 2), 55.7 KiB a request,"
        " shop-2 at its limit in 47 s (40 s to 55 s), confidence 0.83"
    ) in lines
    assert "    at shop/checkout.py:24 check_out" in lines
    assert "changed: native leak (probable) in pricing" in lines
    assert not any("filling cache" in line for line in lines)
    assert lines[-1] == "ended after 14 steps: 1 finding confirmed"


def test_a_target_that_answers_again_is_told() -> None:
    """An error that goes away is news too."""
    stream = io.StringIO()
    output = PlainLines(stream)
    output.show(STATE)
    output.show(replace(STATE, rows=tuple(replace(row, error=None) for row in ROWS)))
    assert "cart-1: answers again" in stream.getvalue()


def test_json_lines_are_one_object_each() -> None:
    """start, state, a finding per change, and end, with all fields of rows and findings."""
    stream = io.StringIO()
    output = JsonLines(stream)
    output.start(5, 2.5)
    output.show(STATE)
    output.end(STATE, 1)
    start, state, new, changed, resolved, end = map(json.loads, stream.getvalue().splitlines())
    assert (start["event"], start["targets"], start["every_s"]) == ("start", 5, 2.5)
    assert (state["event"], state["step"], len(state["targets"])) == ("state", 14, 5)
    assert state["targets"][2]["seconds_to_death"] == [40.0, 47.0, 55.0]
    assert [event["change"] for event in (new, changed, resolved)] == ["new", "changed", "resolved"]
    assert new["finding"]["function"] == LEAK.function
    assert new["finding"]["evidence"] == list(LEAK.evidence)
    assert resolved["finding"]["kind"] == CACHE.kind
    assert (end["event"], end["steps"], end["confirmed"]) == ("end", 14, 1)
    assert len(end["findings"]) == 3
