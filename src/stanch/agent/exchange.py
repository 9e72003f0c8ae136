"""One HTTP/1.1 exchange on a connection: a request read within bounds, an answer written.

Takes a connected socket. The whole request has to arrive within REQUEST_S and HEAD_BYTES, so a
client that sends slowly or without end is cut off; a client that reads slowly is, after WRITE_S.
Bodies are not read: only GET and HEAD are served, and each connection carries one exchange.
"""

import json
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HEAD_BYTES = 8192
REQUEST_S = 5.0
WRITE_S = 30.0
_LINGER_S = 0.5
_LINGER_BYTES = 65536
_MAX_QUERY_FIELDS = 20
_CHUNK_BYTES = 65536

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
PPROF = "application/octet-stream"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. Header names are in lower case; of a repeated name the first counts."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; `headers` are those besides the ones that every answer has."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def sentence(cls, status: int, text: str, headers: Mapping[str, str] | None = None) -> "Answer":
        """Return a refusal in one line of text."""
        return cls(status, f"{text}\n".encode("utf-8", "replace"), headers=headers or {})

    @classmethod
    def json(cls, value: Any) -> "Answer":
        """Return a value as JSON."""
        return cls(200, json.dumps(value, indent=1).encode() + b"\n", JSON)


class AnswerError(Exception):
    """Ends the making of an answer with another one."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode("utf-8", "replace").strip())
        self.answer = answer


class ClientGoneError(Exception):
    """The client closed its side, or the endpoint is closing: nobody waits for an answer."""


def read_request(connection: socket.socket, within_s: float = REQUEST_S) -> Request:
    """Read the head of a request.

    Raises AnswerError for one that is slow, too large or no HTTP, ClientGoneError when the client
    leaves before its end.
    """
    deadline = time.monotonic() + within_s
    head = bytearray()
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        if len(head) >= HEAD_BYTES:
            raise AnswerError(
                Answer.sentence(431, f"the request's head is longer than {HEAD_BYTES} bytes")
            )
        remaining_s = deadline - time.monotonic()
        try:
            if remaining_s <= 0:
                raise TimeoutError
            connection.settimeout(remaining_s)
            part = connection.recv(HEAD_BYTES - len(head))
        except TimeoutError:
            raise AnswerError(
                Answer.sentence(408, f"the request did not arrive within {within_s:g} s")
            ) from None
        except OSError as error:
            raise ClientGoneError from error
        if not part:
            raise ClientGoneError
        head += part
    return _parse_head(bytes(head))


def _parse_head(head: bytes) -> Request:
    lines = head.decode("latin-1").replace("\r\n", "\n").partition("\n\n")[0].split("\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _bad_request("the first line is no HTTP/1.1 request; expected GET /debug/pprof/")
    method, target, _ = parts
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, separator, value = line.partition(":")
        if not separator or not name or name != name.strip():
            raise _bad_request(f"the header line {line[:80]!r} is malformed")
        headers.setdefault(name.lower(), value.strip())
    try:
        split = urlsplit(target)
        query = dict(
            parse_qsl(split.query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        )
    except ValueError as error:
        raise _bad_request(f"the address {target[:80]!r} is malformed: {error}") from error
    return Request(method, split.path, query, headers)


def _bad_request(text: str) -> AnswerError:
    return AnswerError(Answer.sentence(400, text))


def write_answer(connection: socket.socket, answer: Answer, *, head_only: bool = False) -> None:
    """Write an answer. Raises OSError, such as TimeoutError, when the client does not take it."""
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join((*lines, "", "")).encode("latin-1", "replace")
    data = memoryview(head if head_only else head + answer.body)
    deadline = time.monotonic() + WRITE_S
    while data:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        connection.settimeout(remaining_s)
        data = data[connection.send(data[:_CHUNK_BYTES]) :]


def linger(connection: socket.socket) -> None:
    """Take what the client still sends, for a moment, so that closing does not reset the answer."""
    deadline = time.monotonic() + _LINGER_S
    left = _LINGER_BYTES
    try:
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (remaining_s := deadline - time.monotonic()) > 0:
            connection.settimeout(remaining_s)
            part = connection.recv(_CHUNK_BYTES)
            if not part:
                return
            left -= len(part)
    except OSError:
        return  # The client is gone; there is nobody left to be kind to.


def is_gone(connection: socket.socket) -> bool:
    """Return whether the client has closed its side; it will not wait for a measurement."""
    poller = select.poll()
    hang_up = getattr(select, "POLLRDHUP", 0)
    try:
        poller.register(connection, hang_up)
        return any(
            event & (hang_up | select.POLLHUP | select.POLLERR) for _, event in poller.poll(0)
        )
    except (OSError, ValueError):
        return True
