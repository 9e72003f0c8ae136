"""Endpoints for tests: one in this process, or hosts of their own, and a client on real sockets."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stanch.agent.endpoint import Endpoint, EndpointOptions
from stanch.agent.metrics import RequestMeter

PATIENCE_S = 60.0
"""Longer than anything takes; a test that waits so long has failed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the endpoint answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@contextmanager
def serving(options: EndpointOptions, meter: RequestMeter | None = None) -> Iterator[Endpoint]:
    """Serve this process."""
    endpoint = Endpoint(options, requests=meter)
    endpoint.start()
    try:
        yield endpoint
    finally:
        endpoint.close()


def connect(address: str) -> socket.socket:
    """Connect to "unix:PATH" or "HOST:PORT"."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE_S)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE_S)


def get(
    address: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """Ask, and read the whole answer."""
    connection = connect(address)
    if tls is not None:
        connection = tls.wrap_socket(connection, server_hostname="localhost")
    with closing(connection):
        client = http.client.HTTPConnection("localhost")
        client.sock = connection
        client.request(method, path, headers=dict(headers or {}))
        return read_reply(client.getresponse())


def read_reply(response: http.client.HTTPResponse) -> Reply:
    """Read an answer to its end."""
    headers = {name.lower(): text for name, text in response.getheaders()}
    return Reply(response.status, headers, response.read())


def answer_to(connection: socket.socket) -> Reply:
    """Read an answer to what was sent by hand."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return read_reply(response)


_HOST = """
import sys
from pathlib import Path
from stanch import sampler
from stanch.agent.endpoint import Endpoint, EndpointOptions
from stanch.agent.metrics import RequestMeter

def serve(listen, directory=None, **more):
    meter = RequestMeter()
    endpoint = Endpoint(
        EndpointOptions(listen=listen, socket_directory=directory, **more), requests=meter
    )
    endpoint.start()
    return endpoint, meter

def ready(text):
    print(text, flush=True)
    sys.stdin.read()
"""


@contextmanager
def host(code: str, *arguments: str) -> Iterator[tuple[int, str]]:
    """Run a host in a process of its own until it calls `ready(text)`; give its pid and the text.

    `code` may use `serve(listen, directory, **options)`, which returns the endpoint and its meter.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _HOST + textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline().strip()
            assert line, process.stderr.read()
            yield process.pid, line
            process.stdin.close()
            assert process.wait(PATIENCE_S) == 0, process.stderr.read()
            assert process.stderr.read() == ""
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)


def loopback(**more: object) -> EndpointOptions:
    """Options for a free port of this machine only."""
    return EndpointOptions(listen="127.0.0.1:0", **more)  # type: ignore[arg-type]


def on_socket(directory: Path, **more: object) -> EndpointOptions:
    """Options for a socket file."""
    return EndpointOptions(listen=f"unix:{directory / 'agent.sock'}", **more)  # type: ignore[arg-type]
