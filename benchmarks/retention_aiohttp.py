"""A real leak and its fix: aiohttp 3.10.10 and 3.10.11 (CVE-2024-52303), told apart by the path.

Run it with an interpreter that has one of the two and Stanch: a server with one middleware is asked
for pages that are not there. In 3.10.10 each such request adds an entry to a cache of middlewares.
"""

import asyncio
import json

import aiohttp
from aiohttp import web

from stanch import sampler
from stanch.agent.retention import Retention, Wanted

REQUESTS = 3000


@web.middleware
async def middleware(request: web.Request, handler):  # type: ignore[no-untyped-def]
    """Do what any middleware does: pass the request on."""
    return await handler(request)


async def ask(port: int, requests: int) -> None:
    """Ask for pages that are not there, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(requests):
        writer.write(f"GET /missing/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-l"))
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    """Serve, ask, and look twice at what keeps memory."""
    app = web.Application(middlewares=[middleware])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    await ask(port, 200)
    sampler.start(interval_bytes=8192)
    retention = Retention()
    print(f"aiohttp {aiohttp.__version__}: {REQUESTS} requests for missing pages, twice")
    for _ in range(2):
        await ask(port, REQUESTS)
        try:
            answer = retention.look(Wanted(function="UrlDispatcher.resolve"), 0)
        except LookupError as error:
            print(f"  {error}")
            continue
        print(f"  {answer['bytes'] / 1e6:.2f} MB are kept by {answer['chosen']}:")
        for holder in answer["holders"]:
            facts = {k: holder.get(k) for k in ("length", "bound", "behaviour")}
            print(f"    {holder['name']} ({holder['type']}) {json.dumps(facts)}")
    await runner.cleanup()


asyncio.run(main())
