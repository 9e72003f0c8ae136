"""The endpoint on real sockets: binding, bounds, pausing around forks, closing."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from stanch.agent.endpoint import Endpoint, EndpointError, EndpointOptions, parse_listen
from stanch.agent.exchange import HEAD_BYTES, AnswerError, ClientGoneError, read_request

from .serving import answer_to, connect, get, host, loopback, on_socket, serving


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint of this process on loopback."""
    with serving(loopback(service="shop <b>", instance="here:1")) as serves:
        yield serves


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6060",
        "localhost:",
        "localhost:http",
        "h:70000",
        "::1:6060",
        "unix:",
        f"unix:/{'x' * 120}",
    ],
)
def test_addresses_that_are_none_are_refused(text: str) -> None:
    """What is no address to listen on is one sentence."""
    with pytest.raises(EndpointError):
        parse_listen(text)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:6060", "[::1]:6060", "localhost:0", "unix:/run/x.sock"]
)
def test_addresses_are_written_as_they_were_read(text: str) -> None:
    """An address survives reading and writing."""
    assert str(parse_listen(text)) == text


def test_a_socket_file_is_private_and_removed(tmp_path: Path) -> None:
    """A unix socket has mode 0600 whatever the umask, answers, and is gone after closing."""
    before = os.umask(0)
    try:
        with serving(on_socket(tmp_path)) as endpoint:
            path = tmp_path / "agent.sock"
            assert endpoint.address == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert get(endpoint.address, "/metrics").status == 200
        assert not path.exists()
    finally:
        os.umask(before)


def test_a_left_over_socket_file_is_replaced(tmp_path: Path) -> None:
    """A socket file on which nobody answers does not keep the next life from listening."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(tmp_path / "agent.sock"))
    with serving(on_socket(tmp_path)) as endpoint:
        assert get(endpoint.address, "/metrics").status == 200


def test_a_socket_file_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second endpoint on the same path is refused, and the first goes on."""
    with serving(on_socket(tmp_path)) as first:
        second = Endpoint(on_socket(tmp_path), requests=None)
        with pytest.raises(EndpointError, match="another process answers"):
            second.start()
        assert get(first.address, "/metrics").status == 200


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A path with a file of somebody's is refused, and the file keeps its contents."""
    (tmp_path / "agent.sock").write_text("precious")
    with pytest.raises(EndpointError, match="no socket"):
        Endpoint(on_socket(tmp_path), requests=None).start()
    assert (tmp_path / "agent.sock").read_text() == "precious"


def test_a_port_in_use_is_one_sentence(endpoint: Endpoint) -> None:
    """A port that somebody has is an EndpointError that names it."""
    with pytest.raises(EndpointError, match=endpoint.address):
        Endpoint(EndpointOptions(listen=endpoint.address), requests=None).start()


def test_the_index_is_escaped_and_runs_nothing(endpoint: Endpoint) -> None:
    """The index is HTML without markup from settings, under a policy that lets nothing load."""
    reply = get(endpoint.address, "/debug/pprof/")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/html")
    assert "shop &lt;b&gt;" in reply.text and "<b>" not in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_unknown_path_lists_the_known_ones(endpoint: Endpoint) -> None:
    """A 404 tells what there is."""
    reply = get(endpoint.address, "/debug/pprof/heapp")
    assert reply.status == 404 and "\n/debug/pprof/heap\n" in reply.text


def test_only_get_and_head_are_served(endpoint: Endpoint) -> None:
    """POST is refused; HEAD gives the headers of GET without a body."""
    assert get(endpoint.address, "/metrics", method="POST").status == 405
    reply = get(endpoint.address, "/debug/pprof/", method="HEAD")
    assert reply.status == 200 and reply.body == b"" and int(reply.headers["content-length"]) > 0


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", "301", "", "1e9"])
@pytest.mark.parametrize("path", ["heap", "allocs", "goroutine", "profile"])
def test_seconds_out_of_range_are_refused(endpoint: Endpoint, path: str, text: str) -> None:
    """A time that is no number above 0 and at most 300 is a sentence with the value."""
    reply = get(endpoint.address, f"/debug/pprof/{path}?seconds={text}")
    assert reply.status == 400 and repr(text) in reply.text


def test_sampling_off_is_said(endpoint: Endpoint) -> None:
    """A heap profile without the sampler is a 503 with the remedy."""
    reply = get(endpoint.address, "/debug/pprof/heap")
    assert reply.status == 503 and "stanch.start()" in reply.text


def test_the_command_line_is_off_unless_asked_for(endpoint: Endpoint) -> None:
    """cmdline, which may hold secrets, is served only where the settings allow it."""
    assert get(endpoint.address, "/debug/pprof/cmdline").status == 404
    with serving(loopback(cmdline=True)) as open_handed:
        reply = get(open_handed.address, "/debug/pprof/cmdline")
        assert reply.status == 200 and reply.body.count(b"\0") > 0


def test_too_large_a_head_is_refused(endpoint: Endpoint) -> None:
    """Headers beyond the cap are answered with 431, not read for ever."""
    with closing(connect(endpoint.address)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES)
        assert answer_to(connection).status == 431


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"]
)
def test_what_is_no_http_is_refused(endpoint: Endpoint, sent: bytes) -> None:
    """Another protocol is answered with 400, and the endpoint goes on."""
    with closing(connect(endpoint.address)) as connection:
        connection.sendall(sent)
        assert answer_to(connection).status == 400
    assert get(endpoint.address, "/metrics").status == 200


def test_a_request_that_trickles_in_is_cut_off() -> None:
    """A client that keeps sending a byte now and then is cut off by the time of the whole."""
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        theirs.sendall(b"GET / HTTP/1.1\r\nX: ")
        while not stop.wait(0.01):
            theirs.sendall(b"x")

    sender = threading.Thread(target=trickle)
    with ours, theirs:
        sender.start()
        try:
            with pytest.raises(AnswerError) as refused:
                read_request(ours, within_s=0.2)
        finally:
            stop.set()
            sender.join()
    assert refused.value.answer.status == 408


def test_a_client_that_leaves_early_is_no_error() -> None:
    """A connection closed in the middle of a request ends its exchange."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"GET / HT")
        theirs.close()
        with pytest.raises(ClientGoneError):
            read_request(ours)


def test_connections_beyond_the_bound_are_turned_away(endpoint: Endpoint) -> None:
    """The ninth connection at a time is told so at once; when one ends there is room again."""
    with ExitStack() as open_ones:
        idle = [open_ones.enter_context(closing(connect(endpoint.address))) for _ in range(8)]
        assert get(endpoint.address, "/metrics").status == 503
        idle[0].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert answer_to(idle[0]).status == 200
        assert idle[0].recv(1) == b""


def test_a_paused_endpoint_has_no_threads_and_answers_later(endpoint: Endpoint) -> None:
    """Pausing ends the threads; who connects meanwhile is answered after resuming."""
    endpoint.pause()
    assert not [each for each in threading.enumerate() if each.name.startswith("stanch-")]
    with closing(connect(endpoint.address)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        endpoint.resume()
        assert answer_to(connection).status == 200


def test_closing_twice_and_pausing_a_closed_one_do_nothing(endpoint: Endpoint) -> None:
    """The calls may come in any order at the end of a process."""
    endpoint.close()
    endpoint.close()
    endpoint.pause()
    endpoint.resume()
    endpoint.abandon()
    with pytest.raises(ConnectionRefusedError):
        connect(endpoint.address)


def test_forks_leave_parent_and_child_serving(tmp_path: Path) -> None:
    """Around a fork the parent goes on at its address and the child serves at one of its own."""
    with host(
        """
        import os, signal
        endpoint, _ = serve("127.0.0.1:0")
        directory = Path(sys.argv[1])
        endpoint.pause()
        child = os.fork()
        if not child:
            endpoint.abandon()
            serve(f"unix:{directory}/child.sock")
            Path(directory / "up").touch()
            signal.pause()
        endpoint.resume()
        while not (directory / "up").exists():
            os.sched_yield()
        ready(endpoint.address)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        """,
        str(tmp_path),
    ) as (pid, address):
        assert f'pid="{pid}"' in get(address, "/metrics").text
        child = get(f"unix:{tmp_path}/child.sock", "/metrics")
        assert child.status == 200 and f'pid="{pid}"' not in child.text


def test_signals_go_to_the_host(tmp_path: Path) -> None:
    """A host that waits for a signal with sigwait gets it, though our threads are there."""
    with host(
        """
        import os, signal
        endpoint, _ = serve("127.0.0.1:0")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.sigwait({signal.SIGTERM}) == signal.SIGTERM
        ready(endpoint.address)
        """
    ) as (_, address):
        assert get(address, "/metrics").status == 200
