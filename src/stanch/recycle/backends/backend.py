"""The seam between recycling and what does it."""

from typing import Protocol


class RecycleError(Exception):
    """A step was not done; the text says why. retry_s: try again after so long; None: do not."""

    def __init__(self, text: str, retry_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_s = retry_s


class Backend(Protocol):
    """Takes replicas out. Each call is bounded by `within_s`, and raises RecycleError.

    Order: `check`, then, once evidence has been taken, `drain`, then `end`, then `restore` when the
    replica is healthy again. When something fails, `restore` is called too, so that no replica
    stays without traffic.
    whole: the replica's oldest process is another one afterwards. drains: after `drain` no new
    requests come, so that those in flight may be waited for before `end`.
    """

    @property
    def whole(self) -> bool:
        """See above."""

    @property
    def drains(self) -> bool:
        """See above."""

    def check(self, service: str, instance: str, within_s: float) -> None:
        """Raise RecycleError where it is known that `end` would be refused; change nothing."""

    def drain(self, service: str, instance: str, within_s: float) -> None:
        """Send no more new requests there. Nothing where `end` does this itself."""

    def end(self, service: str, instance: str, within_s: float) -> None:
        """Have it end gracefully, and whatever looks after it start another."""

    def restore(self, service: str, instance: str, within_s: float) -> None:
        """Send requests there again."""
