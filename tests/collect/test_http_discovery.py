"""Targets that an HTTP server lists: read anew, kept when it fails, never trusted."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.collect import TargetDefaults, TargetError, find_targets
from stanch.collect.httpdiscovery import HttpTargets
from tests.collect.answers import Answer, Served, serving

PATIENCE_S = 60.0
LIST = [
    {
        "targets": ["10.0.0.7:6060", "10.0.0.8:6060"],
        "labels": {"job": "shop", "__scheme__": "https", "limit": "1GiB", "__meta_x": "1"},
    },
    {"targets": ["cart.internal:80"], "labels": {"service": "cart", "instance": "cart-0"}},
]


def listing(value: object) -> Answer:
    """An answer in JSON."""
    return Answer(json.dumps(value).encode())


@contextmanager
def discovery(served: Served) -> Iterator[HttpTargets]:
    """A source that asks often."""
    source = HttpTargets(f"sd+{served.url}/list?zone=a", every_s=0.05)
    try:
        yield source
    finally:
        source.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_the_server_lists_is_watched_and_read_anew() -> None:
    """Labels give service, instance, limit and scheme; the next answer replaces the list."""
    answers = {"/list?zone=a": listing(LIST)}
    with serving(answers) as served, discovery(served) as source:
        until(lambda: len(source.targets()) == 3)
        first, _, cart = source.targets()
        assert (first.base_url, first.service) == ("https://10.0.0.7:6060", "shop")
        assert (first.limit_bytes, first.instance) == (1024**3, "10.0.0.7:6060")
        assert (cart.base_url, cart.service, cart.instance) == (
            "http://cart.internal:80",
            "cart",
            "cart-0",
        )
        assert source.error is None
        answers["/list?zone=a"] = listing(LIST[1:])
        until(lambda: [one.service for one in source.targets()] == ["cart"])


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Answer(b"oh", 500), "answered with status 500"),
        (Answer(b"<html>"), "is not JSON"),
        (listing({"targets": []}), "is no list"),
        (listing([{"labels": {}}]), "an entry without targets"),
        (listing([{"targets": [6060]}]), "6060 is no text"),
        (listing([{"targets": [f"h{n}:1" for n in range(10_001)]}]), "more than 10,000 targets"),
    ],
    ids=["500", "html", "object", "no targets", "number", "too many"],
)
def test_the_last_good_list_holds(answer: Answer, complaint: str) -> None:
    """Whatever comes instead of a list is one sentence; a good answer ends it."""
    answers = {"/list?zone=a": listing(LIST)}
    with serving(answers) as served, discovery(served) as source:
        until(lambda: len(source.targets()) == 3)
        answers["/list?zone=a"] = answer
        until(lambda: source.error is not None)
        assert complaint in str(source.error)
        assert "\n" not in str(source.error)
        assert len(source.targets()) == 3
        answers["/list?zone=a"] = listing(LIST)
        until(lambda: source.error is None)


@pytest.mark.parametrize(
    "address", ["unix:/run/x.sock", "file:///etc/passwd", "a b:1", "h:1 token_file=/x", "h:port"]
)
def test_a_list_cannot_name_what_is_on_this_machine(address: str) -> None:
    """Sockets, files and options are left out, and said; the rest is watched."""
    answers = {"/list?zone=a": listing([{"targets": [address, "good:1"]}])}
    with serving(answers) as served, discovery(served) as source:
        until(lambda: len(source.targets()) == 1)
        assert source.targets()[0].instance == "good:1"
        until(lambda: "a target is left out" in str(source.error))


def test_tokens_of_targets_and_of_the_list_are_kept_apart(tmp_path: Path) -> None:
    """The server that lists gets its own token; a target's is never sent without TLS."""
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    own.write_text("list")
    theirs.write_text("target")
    defaults = TargetDefaults(token_file=str(theirs))
    with serving({"/list": listing(LIST)}) as served:
        source = find_targets([f"sd+{served.url}/list token_file={own}"], defaults)
        try:
            until(lambda: len(source.targets()) == 2)
            assert set(served.tokens) == {"Bearer list"}
            assert all(one.token_file == str(theirs) for one in source.targets())
            assert "is not encrypted" in str(source.error)
        finally:
            source.close()


def test_a_list_that_is_not_there_yet_stops_nothing() -> None:
    """The watch begins with no target and a sentence; a wrong address is refused at once."""
    with serving({}) as served:
        pass
    with discovery(served) as source:
        until(lambda: source.error is not None)
        assert "cannot connect" in str(source.error)
        assert source.targets() == ()
    with pytest.raises(TargetError, match="is not a target"):
        HttpTargets("sd+ftp://host/list")
