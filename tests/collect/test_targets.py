"""Target strings, files of targets, sizes and durations."""

from pathlib import Path

import pytest

from stanch.collect import FileTargets, Target, TargetDefaults, TargetError, find_targets
from stanch.collect.sizes import parse_duration_s, parse_size
from stanch.collect.targets import parse_target, read_target_file


@pytest.mark.parametrize(
    ("text", "base_url", "instance"),
    [
        ("http://127.0.0.1:6060", "http://127.0.0.1:6060", "127.0.0.1:6060"),
        ("https://shop:443/", "https://shop:443", "shop:443"),
        ("http://[::1]:6060", "http://[::1]:6060", "[::1]:6060"),
        ("http://h:1/prefix/", "http://h:1/prefix", "h:1/prefix"),
        ("http://h:1/debug/pprof/heap", "http://h:1", "h:1"),
        ("http://h:1/x/debug/pprof/", "http://h:1/x", "h:1/x"),
    ],
)
def test_reads_http_addresses(text: str, base_url: str, instance: str) -> None:
    """Scheme, host, port and prefix are kept, the path of a profile is not."""
    assert parse_target(text) == Target(base_url, instance)


def test_reads_a_unix_socket_with_options() -> None:
    """Options after the address set what the defaults do not."""
    target = parse_target(
        "unix:/run/shop.sock service=shop instance=node-1 limit=256MiB ca=/etc/ca.pem",
        TargetDefaults(service="other", token_file="/run/token"),
    )
    assert target == Target(
        "http://localhost",
        instance="node-1",
        service="shop",
        unix_path="/run/shop.sock",
        limit_bytes=256 * 1024**2,
        token_file="/run/token",
        ca_file="/etc/ca.pem",
    )
    assert target.is_local
    assert target.port is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("127.0.0.1:6060", "such as http://127.0.0.1:6060"),
        ("ftp://h:1", "expected http://HOST:PORT"),
        ("http://", "expected http://HOST:PORT"),
        ("http://h:99999", "Port out of range"),
        ("unix:", "names no socket"),
        ("http://u:secret@h:1", "carries a user"),
        ("http://h:1?x=1", "carries a user, a query"),
        ("http://h:1 colour=red", "'colour=red' is not an option of a target"),
        ("http://h:1 service=", "'service=' is not an option"),
        ("http://h:1 limit=lots", "'lots' is not a size"),
        ("http://h:1 'service=x", "No closing quotation"),
        ("http://shop.example:1 token_file=/t", "use https:// or leave out the token"),
        ("no-such-file.txt", "a file of targets"),
    ],
)
def test_says_what_is_wrong_with_a_target(text: str, complaint: str) -> None:
    """Each mistake gets one sentence with what was given and what is expected."""
    with pytest.raises(TargetError) as caught:
        parse_target(text)
    assert complaint in str(caught.value)
    assert "secret" not in str(caught.value)


def test_tokens_may_go_to_this_machine_and_over_tls() -> None:
    """A token is accepted for loopback, a unix socket and https."""
    for address in ("http://localhost:1", "http://127.9.9.9:1", "unix:/s", "https://h:1"):
        assert parse_target(f"{address} token_file=/t").token_file == "/t"


def test_reads_a_file_of_targets(tmp_path: Path) -> None:
    """Comments and empty lines are passed over."""
    path = tmp_path / "targets.txt"
    path.write_text("# the shop\n\nhttp://h:1 service=shop\nunix:/run/a.sock  # the cart\n")
    assert [target.instance for target in read_target_file(path)] == ["h:1", "/run/a.sock"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"http://h:1\nnonsense\n", "line 2: 'nonsense' is not a target"),
        (b"http://h:1\n\nhttp://h:1\n", "line 3: h:1 is there twice"),
        (b"\x00\xff\xfe", "line 1: "),
        (b"http://h:1\n" * 200_000, "larger than 1 MiB"),
        (b"".join(b"http://h:%d\n" % port for port in range(1, 1200)), "more than 1000 targets"),
    ],
)
def test_names_the_line_that_is_wrong(tmp_path: Path, content: bytes, complaint: str) -> None:
    """An error in a file names the file and the line."""
    path = tmp_path / "targets.txt"
    path.write_bytes(content)
    with pytest.raises(TargetError) as caught:
        read_target_file(path)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(TargetError, match=r"cannot read the file of targets .*: No such file"):
        read_target_file(tmp_path / "missing")


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    """A new version of the file holds at once; a broken one leaves the old, with a sentence."""
    path = tmp_path / "targets.txt"
    path.write_text("http://h:1\n")
    source = FileTargets(path)
    assert [target.instance for target in source.targets()] == ["h:1"]
    path.write_text("http://h:1\nhttp://h:2\n")
    assert [target.instance for target in source.targets()] == ["h:1", "h:2"]
    path.write_text("http://h:1\nbroken line\n")
    assert len(source.targets()) == 2
    assert source.error is not None
    assert "line 2" in source.error
    assert "going on with the targets it had before" in source.error
    path.unlink()
    assert len(source.targets()) == 2
    path.write_text("http://h:3\n")
    assert [target.instance for target in source.targets()] == ["h:3"]
    assert source.error is None


def test_arguments_may_mix_addresses_and_files(tmp_path: Path) -> None:
    """An argument that is a file is read; a target named twice is watched once."""
    path = tmp_path / "targets.txt"
    path.write_text("http://h:2\n")
    source = find_targets(["http://h:1", str(path), "http://h:1"], TargetDefaults(service="shop"))
    assert [(one.instance, one.service) for one in source.targets()] == [
        ("h:1", "shop"),
        ("h:2", "shop"),
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("256MiB", 2**28), ("256Mi", 2**28), ("256M", 2**28), ("0.25g", 2**28)],
)
def test_reads_sizes(text: str, size: int) -> None:
    """Letters are powers of 1024 in whatever style."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5m", 90), ("2h", 7200), ("500ms", 0.5)]
)
def test_reads_durations(text: str, seconds: float) -> None:
    """A number with ms, s, m, h or d; without it is seconds."""
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "-5", "0", "x", "5 parsecs", "nan", "inf", "1e9"])
def test_refuses_what_is_no_size_or_duration(text: str) -> None:
    """Neither reader lets nonsense, nothing or less than nothing through."""
    with pytest.raises(ValueError, match="is not a size; expected"):
        parse_size(text)
    with pytest.raises(ValueError, match="is not a duration; expected"):
        parse_duration_s(text)
