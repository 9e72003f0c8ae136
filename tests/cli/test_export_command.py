"""`stanch export` from a real server: files, a Pyroscope receiver, tokens and wrong uses."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.collect.received import Push, Receiver
from stanch.profile import parse
from stanch.server.ingest import ingest_routes
from stanch.server.tokens import Tokens
from stanch.store.history import TimeRange
from stanch.store.sqlstore import SqlStore, open_store
from tests.cli.command import stanch
from tests.cli.test_push_command import served
from tests.server.serving import serving
from tests.store.pprofs import heap_bytes

pytest.importorskip("chdb", reason="needs the extra stanch[server]")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A store of chDB."""
    with open_store("chdb", tmp_path_factory.mktemp("store")) as opened:
        yield opened


def test_takes_profiles_out_as_files_and_to_pyroscope(store: SqlStore, tmp_path: Path) -> None:
    """The newest, or each of a range once; another server that speaks Pyroscope's push has the
    same heap at the same time."""
    now_s = int(time.time())
    with served(store, tmp_path) as url:
        receiver = Receiver(store, time.time)
        for age_s, size in ((1200, 3000), (600, 4000), (5, 5000)):
            data = heap_bytes({"remember": size}, time_s=now_s - age_s)
            receiver.receive(Push(data=data, service="shop/eu", instance="s-1"))
        store.flush()
        common = ["export", "--url", url, "--service", "shop/eu", "--to", tmp_path / "out"]
        outcome = stanch(*common)
        assert (outcome.code, outcome.err) == (0, "")
        (file,) = (tmp_path / "out").iterdir()
        assert outcome.out == f"{file}\n"
        assert file.name.startswith("shop_eu-heap-")
        profile = parse(file.read_bytes())
        assert sum(sample.values[-1] for sample in profile.samples) == 5000
        assert profile.samples[0].locations[0].lines[0].function.name == "remember"

        outcome = stanch(*common, "--since", "30m", "--every", "1m")
        assert len(outcome.out.splitlines()) == 3
        sizes = [
            sum(sample.values[-1] for sample in parse(Path(line).read_bytes()).samples)
            for line in outcome.out.splitlines()
        ]
        assert sizes == [3000, 4000, 5000]

        received = Receiver(store, time.time)
        with serving([*ingest_routes(received)]) as pyroscope:
            outcome = stanch(
                *["export", "--url", url, "--service", "shop/eu", "--since", "30m"],
                *["--instance", "s-1", "--release", "", "--pyroscope", pyroscope],
            )
        # They arrive as another life of the same service, as they are other bytes.
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.count("heap of shop/eu") == 3
        store.flush()
        rows = store.history.profiles("shop/eu", TimeRange(now_s - 1800, now_s + 60))
        assert sorted(row.live_bytes for row in rows) == [3000, 3000, 4000, 4000, 5000, 5000]
        assert len({round(row.unix_s) for row in rows}) == 3


def test_a_token_that_may_view_is_needed(store: SqlStore, tmp_path: Path) -> None:
    """Exit code 2 with the server's answer without it; exit code 1 where there is nothing."""
    tokens = Tokens(tmp_path)
    file = tmp_path / "view"
    file.write_text(tokens.make("view", "view"))
    with served(store, tmp_path, tokens) as url:
        common = ["export", "--url", url, "--service", "nobody"]
        refused = stanch(*common)
        nothing = stanch(*common, "--token-file", file)
    assert (refused.code, "refused with 401" in refused.err) == (2, True)
    assert (nothing.code, "there is no heap of nobody" in nothing.err) == (1, True)


def test_what_pyroscope_refuses_is_said(store: SqlStore, tmp_path: Path) -> None:
    """Exit code 1 and one sentence for each that was refused."""
    with (
        served(store, tmp_path) as url,
        serving([]) as other,
    ):
        heap = heap_bytes({"remember": 3000}, time_s=time.time())
        Receiver(store, time.time).receive(Push(data=heap, service="shop", instance="s-1"))
        store.flush()
        outcome = stanch("export", "--url", url, "--service", "shop", "--pyroscope", other)
    assert outcome.code == 1
    assert "refused with 404" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--until", "soon"], "Invalid isoformat string"),
        (["--since", "soon"], "is not a duration"),
        (["--since", "10000h", "--every", "1s"], "give a longer --every"),
        (["--url", "http://127.0.0.1:4041 x"], "--url: "),
    ],
)
def test_a_wrong_use_is_one_sentence(arguments: list[str], complaint: str) -> None:
    """Exit code 2."""
    outcome = stanch("export", "--service", "s", *arguments)
    assert (outcome.code, complaint in outcome.err) == (2, True)
    assert len(outcome.err.splitlines()) == 1
