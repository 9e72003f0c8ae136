"""A watch whose requests get slow as memory grows: the sentence, the shares, silence before."""

import json
from collections.abc import Iterator

import pytest

from stanch.collect import parse_target
from stanch.server.slowness import SlownessWatch
from stanch.server.watch import Watcher, WatchState
from tests.cli.watched import STANCH, interrupt, lines_until, running
from tests.collect.answers import METRICS, Answer, Served, python_answers, serving

STEP_S = 5.0


class Slowing:
    """An agent whose collector pauses longer and longer, and its requests with it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.now_s = 0.0
        self.totals = dict.fromkeys(("requests", "seconds", "gc", "pauses", "pressure"), 0.0)

    def step(self, share: float) -> None:
        """Five seconds of twenty requests a second, the collector at work for a share of them."""
        self.now_s += STEP_S
        latency = 0.02 + share * 0.1 + 0.02 * share / (1 - share)
        for name, more in (
            ("requests", 100.0),
            ("seconds", 100.0 * latency),
            ("gc", share * STEP_S / 5),
            ("pauses", share * STEP_S / 5 / 0.2),
            ("pressure", 0.01),
        ):
            self.totals[name] += more
        totals = self.totals
        lines = (
            f'stanch_request_seconds_sum{{pid="10"}} {totals["seconds"]}\n'
            f'stanch_request_seconds_count{{pid="10"}} {totals["requests"]}\n'
            f'stanch_gc_pause_seconds_sum{{pid="10"}} {totals["gc"]}\n'
            f'stanch_gc_pause_seconds_count{{pid="10"}} {totals["pauses"]}\n'
            f'stanch_gc_watched_seconds_total{{pid="10"}} {self.now_s / 5}\n'
            f"stanch_memory_pressure_seconds_total {totals['pressure']}\n"
            "stanch_memory_swap_bytes 4096\n"
        )
        self.served.answers["/metrics"] = Answer(METRICS + lines.encode())


@pytest.fixture
def slowing() -> Iterator[Slowing]:
    """It answers, and nothing has been served yet."""
    with serving(python_answers()) as served:
        yield Slowing(served)


def test_a_watch_says_why_requests_got_slow_once(slowing: Slowing) -> None:
    """As a note when found, and in the row as long as it holds, with what there is to draw."""
    slowness = SlownessWatch()
    states: list[WatchState] = []
    with Watcher(
        [parse_target(slowing.served.url)],
        STEP_S,
        witness=slowness.witness,
        monotonic=lambda: slowing.now_s,
    ) as watcher:
        for share in [0.01 * number for number in range(40)]:
            slowing.step(share)
            states.append(slowness.take(watcher.step()))
        notes = [note for state in states for note in state.notes]
        assert len(notes) == 1
        assert notes[0].startswith("shop 127.0.0.1:")
        assert "pauses of the garbage collector, " in notes[0]
        (row,) = states[-1].rows
        assert "account for " in row.slow
        assert row.strain["collector"] == pytest.approx(0.39, rel=0.01)
        assert row.strain["latency_s"] == pytest.approx(0.0718, rel=0.01)
        assert row.strain["pressure"] == pytest.approx(0.002, rel=0.01)
        assert (row.strain["throttling"], row.strain["swap_bytes"]) == (None, 4096)
        assert states[0].rows[0].strain == {}
        # Another process counts from zero: what was before is not compared with.
        slowing.totals = dict.fromkeys(slowing.totals, 0.0)
        slowing.step(0.5)
        state = slowness.take(watcher.step())
        assert (state.rows[0].slow, state.notes) == ("", ())


def test_the_command_has_it_in_its_lines(slowing: Slowing) -> None:
    """From the second look on there is something to draw."""
    slowing.step(0.1)
    with running(*STANCH, "watch", slowing.served.url, "--json", "--every", "100ms") as program:
        (*_, line) = lines_until(program, lambda line: '"latency_s"' in line)
        code, _ = interrupt(program)
    (row,) = json.loads(line)["targets"]
    shares = {"collector", "pressure", "throttling"}
    assert set(row["strain"]) == {"latency_s", "swap_bytes", *shares}
    assert (row["slow"], row["strain"]["swap_bytes"], code) == ("", 4096, 0)
