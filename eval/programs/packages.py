"""Leaks of released packages and of C code: the release that leaks, and the one that repaired it.

Each leak was measured with the release named here: memory grows without end, and does not with the
repaired one. The packages are installed into folders of their own, which the programs see first.
"""

import asyncio
import importlib
from typing import Any

from eval.programs.work import SIZE, Tick

RELEASES: dict[str, tuple[str, str]] = {
    "multidict 6.3.1": ("multidict==6.3.1", "multidict==6.4.3"),
    "ujson 2.0.2": ("ujson==2.0.2", "ujson==2.0.3"),
    "aiohttp 3.10.10": ("aiohttp==3.10.10", "aiohttp==3.10.11"),
}
"""By program: what to install for the leak, and for its twin."""

NATIVE = ("c reference", "c list")
"""Programs that need the extension that is built from native/leaky.c."""


def read_headers(number: int) -> None:
    """Headers of a request, in a multidict: 6.3.1 forgets its keys."""
    multidict: Any = importlib.import_module("multidict")
    for part in range(SIZE // 500):
        multidict.CIMultiDict({f"X-Request-{number}-{part}".ljust(200, "A"): "b"})


def answer_json(number: int) -> None:
    """Answers with dicts: ujson 2.0.2 forgets what it sorted and iterated."""
    ujson: Any = importlib.import_module("ujson")
    for part in range(SIZE // 150):
        ujson.dumps({f"key-{number}-{part}".ljust(80, "y"): number, "list": [part]})


class Shop:
    """An aiohttp server with one middleware, and who asks it for pages that are not there."""

    def __init__(self) -> None:
        self.port = 0
        self.asking: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Listen on any port of loopback."""
        web: Any = importlib.import_module("aiohttp.web")

        async def pass_on(request: Any, handler: Any) -> Any:
            return await handler(request)

        runner = web.AppRunner(web.Application(middlewares=[web.middleware(pass_on)]))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]

    async def ask(self, first: int) -> None:
        """Ask for eight pages on one connection."""
        if not self.port:
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for number in range(first, first + 8):
            writer.write(f"GET /missing/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(line for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()
        await writer.wait_closed()


SHOP = Shop()


def ask_missing(number: int) -> None:
    """Pages that are not there: aiohttp 3.10.10 keeps what it made for each (CVE-2024-52303)."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(SHOP.serve() if number == 0 else SHOP.ask(8 * number))
    SHOP.asking.add(task)
    task.add_done_callback(SHOP.asking.discard)


def _native(name: str, number: int) -> None:
    leaky: Any = importlib.import_module("leaky")
    for part in range(SIZE // 400):
        getattr(leaky, name)(f"{number}-{part}".ljust(350))


def hold_text(number: int) -> None:
    """A C extension that forgets a decref."""
    _native("hold", number)


def borrow_text(number: int) -> None:
    """The same extension, repaired."""
    _native("borrow", number)


def parse_document(number: int) -> None:
    """A C extension whose list of nodes nobody frees."""
    importlib.import_module("leaky").parse(SIZE)


def parse_and_free(number: int) -> None:
    """The same extension, repaired."""
    importlib.import_module("leaky").parse_and_free(SIZE)


_NATIVE_NAMES = ("hold_text", "_native")

PACKAGES: dict[str, tuple[Tick, Tick, tuple[str, ...]]] = {
    "multidict 6.3.1": (read_headers, read_headers, ("read_headers",)),
    "ujson 2.0.2": (answer_json, answer_json, ("answer_json",)),
    "aiohttp 3.10.10": (ask_missing, ask_missing, ("_build_middlewares", "Application._handle")),
    "c reference": (hold_text, borrow_text, _NATIVE_NAMES),
    "c list": (parse_document, parse_and_free, ("parse_document", "")),
}
"""By name: the tick of the leak, of its twin, and what names it."""
