"""The Prometheus text format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.collect.errors import FetchError
from stanch.collect.exposition import parse_exposition


def test_reads_labels_escapes_exponents_and_time_stamps() -> None:
    """Label values may hold quotes, commas and braces; a time stamp is passed over."""
    text = r'm{a="x,y}",b="say \"hi\"\n"} 1.5e+3 1700000000' + "\nplain 7\n"
    exposition = parse_exposition(text.encode())
    assert exposition.metrics["m"][0].labels == {"a": "x,y}", "b": 'say "hi"\n'}
    assert exposition.total("m") == 1500.0
    assert exposition.total("plain") == 7.0
    assert exposition.total("absent") is None


def test_sums_by_process_and_takes_the_largest() -> None:
    """A metric per process can be summed, read for one of them, or read at its largest."""
    exposition = parse_exposition(b'rss{pid="1"} 10\nrss{pid="2"} 30\nother 5\n')
    assert exposition.total("rss") == 40.0
    assert exposition.total("rss", "2") == 30.0
    assert exposition.total("other", "2") == 5.0
    assert exposition.largest("rss") == 30.0
    assert exposition.largest("absent") is None


def test_numbers_that_are_none_do_not_count() -> None:
    """NaN and infinity, which the format allows, are passed over."""
    assert parse_exposition(b"m NaN\nm +Inf\nm 2\n").total("m") == 2.0
    assert parse_exposition(b"m NaN\n").total("m") is None


def test_lines_that_make_no_sense_are_skipped_and_counted() -> None:
    """A broken line does not hide the good ones; one too long is broken."""
    exposition = parse_exposition(b"m 1\n{} 2\nm x\nlong" + b"x" * 5000 + b" 1\n")
    assert exposition.total("m") == 1.0
    assert exposition.skipped == 3


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"<!doctype html><html>", "answered with HTML"),
        (b'{"status": "ok"}', "something else than the Prometheus text format"),
        (b"m 1\n" * 60_000, "more than 50,000 series"),
    ],
)
def test_something_else_is_one_sentence(data: bytes, complaint: str) -> None:
    """HTML, JSON and a flood are refused."""
    with pytest.raises(FetchError, match=complaint):
        parse_exposition(data)


@given(st.binary(max_size=400))
def test_no_bytes_break_it(data: bytes) -> None:
    """Whatever a target sends is read or refused with FetchError."""
    try:
        parse_exposition(data)
    except FetchError as error:
        assert str(error)
