"""The head of a request is bounded, however it comes, and a body is not taken for one."""

import socket
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from stanch.server.head import MAX_HEAD_BYTES
from tests.server.serving import PATIENCE_S, serving


async def size(request: Request) -> Response:
    """How long the body is."""
    return PlainTextResponse(str(len(await request.body())))


ROUTES = [Route("/", size, methods=["GET", "POST"])]


@pytest.mark.parametrize(
    "endless",
    [b"X-Long: " + b"a" * 1024, b"X-A: b\r\n" * 128, b"GET /" + b"a" * 1024],
    ids=["one header", "many headers", "the line"],
)
def test_a_head_without_end_is_refused(endless: bytes) -> None:
    """Also after a request that was in order; the connection is closed long before a megabyte."""
    with serving(ROUTES) as url:
        address = urlsplit(url)
        assert address.hostname is not None
        with socket.create_connection((address.hostname, address.port or 0), PATIENCE_S) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            first = b""
            while not first.endswith(b"\r\n\r\n0"):
                got = peer.recv(4096)
                assert got, first
                first += got
            assert first.startswith(b"HTTP/1.1 200")
            begin = b"" if endless.startswith(b"GET") else b"GET / HTTP/1.1\r\nHost: a\r\n"
            sent = 0
            answer = b""
            try:
                peer.sendall(begin + endless)
                while sent < 64 * 1024 * 1024:
                    more = endless.removeprefix(b"X-Long: ").removeprefix(b"GET /")
                    peer.sendall(more)
                    sent += len(more)
            except OSError:
                pass  # it has closed
            try:
                while got := peer.recv(65_536):
                    answer += got
            except OSError:
                pass
        assert sent < 64 * 1024 * 1024
        assert not answer or answer.startswith(b"HTTP/1.1 400")


def test_a_long_head_and_a_longer_body_are_taken() -> None:
    """Half of the bound is no matter, and what is not head does not count."""
    body = b"b" * (4 * MAX_HEAD_BYTES)
    with serving(ROUTES) as url, httpx.Client(timeout=PATIENCE_S) as client:
        for _ in range(3):
            answer = client.post(url, content=body, headers={"X-Long": "a" * (MAX_HEAD_BYTES // 2)})
            assert answer.text == str(len(body))
