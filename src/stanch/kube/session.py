"""One connection to a cluster for many users: an event loop in a thread of its own."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from stanch.kube.client import KubeClient
from stanch.kube.cluster import Cluster
from stanch.kube.errors import KubeError

T = TypeVar("T")

_CLOSE_S = 5.0


class KubeSession:
    """Runs what asks the API server. Use it in a `with` block, or close it."""

    def __init__(self, cluster: Cluster) -> None:
        """Asks nothing yet. Raises ClusterError for certificates that cannot be used."""
        self.client = KubeClient(cluster)
        self._loop = asyncio.new_event_loop()
        self._running: set[asyncio.Task[Any]] = set()  # of the loop's thread
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="kubernetes", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "KubeSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def namespace(self) -> str:
        """The namespace that is meant when nobody says."""
        return self.client.cluster.namespace

    def begin(self, forever: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something until the session is closed, which cancels it."""
        asyncio.run_coroutine_threadsafe(self._noted(forever()), self._loop)

    def call(self, asking: Coroutine[Any, Any, T], within_s: float) -> T:
        """Run something to its end; from any thread but the session's own. Raises KubeError."""
        future = asyncio.run_coroutine_threadsafe(self._noted(asking), self._loop)
        try:
            return future.result(within_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise KubeError(f"no answer within {within_s:g} s") from None

    def close(self) -> None:
        """Cancel what runs, close the connections and end the thread."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _noted(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work whose task the end cancels."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await work
        finally:
            self._running.discard(task)

    async def _wind_up(self) -> None:
        # Not all tasks there are: those that the HTTP client has begun end with ours.
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.client.close()
