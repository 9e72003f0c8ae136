"""What of a fleet is this server's: services to judge, targets to scrape, senders to know of.

With a store of its own a server has all of it. Of several that share a store each judges the
services that are its own (`sharing.py`), from what all have put into the store. What comes to it it
takes up with the open findings and with what was told; what goes it hands over before another
server begins.

A target is scraped by the server that has its service, where that one knows the target: if it does
not, after a while, by the next in order that does. So target lists may differ, and a socket of a
machine is scraped from there. As long as nobody knows which service a target is of, its instance
decides.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from stanch.collect import Target
from stanch.server.sharing import Sharing, Standing
from stanch.store.errors import StoreError
from stanch.store.history import TargetRow as TargetHealth
from stanch.store.sqlstore import SqlStore

_UNSCRAPED_S = 60.0
_READ_EVERY_S = 5.0

Shift = Callable[[Collection[str], Collection[str]], None]
"""Hands services over that are lost, and takes up those that are gained. Raises StoreError."""


def no_shift(lost: Collection[str], gained: Collection[str]) -> None:
    """There is nothing to hand over."""


@dataclass(frozen=True, slots=True)
class Share:
    """The services of one round. lost, gained: since the round before."""

    owned: frozenset[str]
    lost: frozenset[str] = frozenset()
    gained: frozenset[str] = frozenset()


@dataclass(slots=True)
class Division:
    """One server's part of a fleet. Rounds are for one thread, and `scraped` for one.

    sharing: None for a server with a store of its own. shift: called in each round. unscraped_s: a
    target that nobody before has scraped for so long is scraped by this server.
    """

    store: SqlStore
    sharing: Sharing | None = None
    shift: Shift = no_shift
    unscraped_s: float = _UNSCRAPED_S
    monotonic: Callable[[], float] = time.monotonic
    moves: int = 0
    """How many services have come or gone so far, but for those of the first round."""
    _owned: frozenset[str] = frozenset()
    _rounds: int = 0
    _settled: int = -1
    _rows: dict[str, TargetHealth] = field(default_factory=dict)
    _new: frozenset[str] = frozenset()
    """Addresses whose rows have changed."""
    _heard: dict[str, float] = field(default_factory=dict)
    """When a target was last this server's, or one before it was heard to scrape it."""
    _read_s: float | None = None

    @property
    def is_shared(self) -> bool:
        """Whether there may be other servers."""
        return self.sharing is not None

    @property
    def name(self) -> str:
        """Of this server among several, else ""."""
        return self.sharing.name if self.sharing is not None else ""

    @property
    def owned(self) -> frozenset[str]:
        """The services of the last round."""
        return self._owned

    def standing(self) -> Standing | None:
        """How the sharing is, None for a server with a store of its own."""
        return self.sharing.standing() if self.sharing is not None else None

    def owners(self, services: Iterable[str]) -> dict[str, str] | None:
        """Which server has which service, "" while none has; None where there is but one."""
        if self.sharing is None:
            return None
        return {service: self.sharing.owner(service) for service in services}

    def may_tell(self) -> bool:
        """Whether this server is to tell people: not while others may do so for its services."""
        if self.sharing is None:
            return True
        return self.sharing.acts and self.sharing.term == self._settled

    def share(self, services: Iterable[str], begin: Callable[[Share], None]) -> Share:
        """See which services are this server's in this round, and let those go that are not.

        services: all that there are. begin: told the round's share when it is certain, before
        anything is handed over. Raises StoreError, also while the store knows of no sign of life of
        this server; then the round is to be left out.
        """
        if self.sharing is None:
            return Share(frozenset(services))
        if not self.sharing.acts:
            raise StoreError(self.sharing.standing().trouble or "others take this server for dead")
        members, term = self.sharing.turn(), self.sharing.term
        owned = frozenset(service for service in services if self.sharing.owns(service))
        share = Share(owned, self._owned - owned, owned - self._owned)
        begin(share)
        self.shift(share.lost, share.gained)
        self._owned = owned
        self._rounds += 1
        if self._rounds > 1:
            self.moves += len(share.lost) + len(share.gained)
        self._settled = term
        self.sharing.handed_over(members)
        return share

    def scraped(
        self, targets: Iterable[Target], service_of: Callable[[Target], str]
    ) -> frozenset[Target]:
        """Which targets this server scrapes. service_of: what it has heard that a target is of, ""
        for nothing. While the store does not answer it stays as it was."""
        if self.sharing is None:
            return frozenset(targets)
        self._read()
        now_s = self.monotonic()
        chosen, heard = set(), {}
        for target in targets:
            if target.unix_path is not None:
                chosen.add(target)
                continue
            row = self._rows.get(target.base_url)
            known = service_of(target) or (row.service if row is not None else target.service)
            before = self.sharing.before(known or f"\0{target.instance}")
            heard_s = self._heard.get(target.base_url, now_s)
            if not before or (
                row is not None and row.server in before and row.address in self._new
            ):
                heard_s = now_s
            heard[target.base_url] = heard_s
            if not before or now_s - heard_s >= self.unscraped_s:
                chosen.add(target)
        self._heard = heard
        self._new = frozenset()
        return frozenset(chosen)

    def of_this_server(
        self, rows: Sequence[TargetHealth], others: Iterable[TargetHealth]
    ) -> list[TargetHealth]:
        """Rows as this server writes them: signed, and with the verdicts of services' own servers.

        others: what stands in the store.
        """
        told = {(one.service, one.instance, one.address): one.verdict for one in others}
        return [
            replace(
                row,
                server=self.name,
                verdict=row.verdict
                if row.service in self._owned or row.error
                else told.get((row.service, row.instance, row.address), row.verdict),
            )
            for row in rows
        ]

    def _read(self) -> None:
        """See now and then what the others have scraped."""
        now_s = self.monotonic()
        if self._read_s is not None and now_s - self._read_s < _READ_EVERY_S:
            return
        self._read_s = now_s
        try:
            rows = self.store.history.targets()
        except StoreError:
            return
        before, self._rows = (
            self._rows,
            {row.address: row for row in rows if row.origin == "scrape"},
        )
        self._new = frozenset(
            address
            for address, row in self._rows.items()
            if address not in before or before[address].last_unix_s != row.last_unix_s
        )
