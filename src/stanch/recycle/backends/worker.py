"""Workers of gunicorn and uvicorn: the largest one is asked, by its own agent, to end gracefully.

It takes no more requests, finishes those that it has, and its arbiter starts another: nothing needs
to be drained, and the other workers serve meanwhile. The service must run under
`stanch run --recycle`.
"""

from collections.abc import Callable

import httpx

from stanch.recycle.backends.backend import RecycleError

PROCESSES = "/debug/stanch/processes"
END = "/debug/stanch/end"
_POLL_S = 0.25
_LONGEST_WAIT_S = 10.0


class WorkerBackend:
    """Asks agents. client_of: an HTTP client for the endpoint of an instance.

    monotonic, sleep: for tests to replace.
    """

    whole = False
    drains = True

    def __init__(
        self,
        client_of: Callable[[str], httpx.Client],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client_of = client_of
        self._monotonic = monotonic
        self._sleep = sleep

    def check(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: the agent refuses when it is asked."""

    def drain(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: a worker that ends stops to accept by itself."""

    def restore(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: the new worker accepts by itself."""

    def end(self, service: str, instance: str, within_s: float) -> None:
        """See Backend. Returns when the worker is gone and as many as before are there again."""
        deadline = self._monotonic() + within_s
        with self._client_of(instance) as client:
            before = self._processes(client, deadline)
            arbiters = {each.get("parent_pid") for each in before.values()}
            workers = {pid: each for pid, each in before.items() if pid not in arbiters}
            if len(workers) < 1:
                raise RecycleError(f"{instance} has no workers")
            largest = max(workers, key=lambda pid: _size(workers[pid]))
            answer = self._ask(
                lambda: client.post(
                    END, params={"pid": largest}, headers={"X-Stanch-Recycle": "1"}
                ),
                deadline,
            )
            if answer.status_code != httpx.codes.OK:
                raise RecycleError(f"{instance}: {answer.text.strip()[:300]}")
            while True:
                now = self._processes(client, deadline)
                if largest not in now and len(now) >= len(before):
                    return
                if self._monotonic() > deadline:
                    raise RecycleError(
                        f"worker {largest} of {instance} did not end within {within_s:g} s"
                        if largest in now
                        else f"{instance} has no new worker after {within_s:g} s"
                    )
                self._sleep(_POLL_S)

    def _processes(self, client: httpx.Client, deadline: float) -> dict[int, dict[str, object]]:
        answer = self._ask(lambda: client.get(PROCESSES), deadline)
        if answer.status_code != httpx.codes.OK:
            raise RecycleError(f"{PROCESSES} answered {answer.status_code}")
        try:
            return {int(each["pid"]): each for each in answer.json()}
        except (ValueError, KeyError, TypeError) as error:
            raise RecycleError(f"{PROCESSES} answered with something else: {error!r}") from error

    def _ask(self, request: Callable[[], httpx.Response], deadline: float) -> httpx.Response:
        """Ask, and again while the agent says that it is asked too often: by others, too."""
        while True:
            try:
                answer = request()
            except httpx.HTTPError as error:
                raise RecycleError(f"no answer: {error}") from error
            wait_s = _wait_s(answer)
            if not wait_s or self._monotonic() + wait_s > deadline:
                return answer
            self._sleep(wait_s)


def _wait_s(answer: httpx.Response) -> float:
    """After how long to ask again; 0 when it has been answered."""
    if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
        return 0.0
    said = answer.headers.get("Retry-After", "")
    seconds = float(said) if said.isascii() and said.isdigit() else 1.0
    return min(max(seconds, 1.0), _LONGEST_WAIT_S)


def _size(process: dict[str, object]) -> float:
    size = process.get("resident_bytes")
    return float(size) if isinstance(size, int | float) else 0.0
