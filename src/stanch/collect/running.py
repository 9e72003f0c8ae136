"""Runs a coroutine whose result is large."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_for_result(runner: asyncio.Runner, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine and return what it returns, of which no text is made.

    In the main thread Runner.run puts a handler of SIGINT in and out, `signal` makes a text of the
    one that goes, and with it of the result of its task: of profiles, more work than all else. The
    task therefore gives nothing back.
    """
    results: list[T] = []

    async def keep_result() -> None:
        results.append(await coroutine)

    runner.run(keep_result())
    return results[0]
