"""One keep-alive HTTP/1.1 connection, as small as a load generator needs it.

Reads answers that carry a Content-Length; every service of the demo gives one. Anything else
is an AnswerError, which the generator counts as a failed request.
"""

import asyncio

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024


class AnswerError(Exception):
    """The node's answer was cut off or is not HTTP as expected."""


class StaleConnectionError(Exception):
    """The node had closed a kept connection before it read this request: safe to send again."""


class Connection:
    """A connection to one node. Not safe for two requests at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._used = False
        self.reusable = True

    @classmethod
    async def open(cls, node: str) -> "Connection":
        """Connect to "HOST:PORT". OSError when nobody listens there."""
        host, _, port = node.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=MAX_HEAD_BYTES)
        return cls(reader, writer)

    async def request(self, request: bytes) -> int:
        """Send a whole request and read its whole answer; return the status code.

        StaleConnectionError when a connection that was used before ends without a byte;
        AnswerError when the answer ends too early or cannot be read. Not reusable after either.
        """
        reused, self._used = self._used, True
        self.reusable = False
        try:
            self._writer.write(request)
            await self._writer.drain()
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError) as problem:
            nothing_read = not getattr(problem, "partial", b"")
            if reused and nothing_read:
                raise StaleConnectionError(str(problem)) from problem
            raise AnswerError(f"the node hung up before it answered: {problem}") from problem
        except asyncio.LimitOverrunError as problem:
            raise AnswerError(f"headers of more than {MAX_HEAD_BYTES} bytes") from problem
        status, body_bytes, keep_alive = parse_head(head)
        try:
            await self._reader.readexactly(body_bytes)
        except (ConnectionError, asyncio.IncompleteReadError) as problem:
            raise AnswerError(f"the node hung up within its answer: {problem}") from problem
        self.reusable = keep_alive
        return status

    def close(self) -> None:
        """Close without waiting."""
        self._writer.close()


def encode_request(node: str, method: str, path: str, body: str) -> bytes:
    """Return the bytes of one request; a JSON body when there is one."""
    payload = body.encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {node}", "User-Agent: stanch-demo"]
    if payload or method != "GET":
        lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    return "\r\n".join([*lines, "", ""]).encode() + payload


def parse_head(head: bytes) -> tuple[int, int, bool]:
    """Return status, bytes of body and whether the node keeps the connection open.

    AnswerError when the head is not HTTP/1, has no usable Content-Length or announces too much.
    """
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise AnswerError(f"answer starts with {lines[0][:60]!r}, expected an HTTP/1 status line")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    length = fields.get("content-length", "")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise AnswerError(f"Content-Length is {length!r}, expected a number up to {MAX_BODY_BYTES}")
    keep_alive = parts[0] != "HTTP/1.0" and fields.get("connection", "").lower() != "close"
    return int(parts[1]), int(length), keep_alive
