"""Where `stanch deaths` reads: in the journal of a watch, or at a server."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import httpx

from stanch.cli.errors import CliError
from stanch.cli.server_client import ask
from stanch.deaths import Death
from stanch.deaths.book import death_by_number, deaths, profile_of
from stanch.deaths.death import death_from_mapping
from stanch.journal import Journal

_PATH = "/api/v1/deaths"
_OF_SERVER = "wal"  # the log of a server's store
_MOST_ASKED = 1000
_PATIENCE_S = 30.0


class DeathSource(Protocol):
    """Where deaths are read from, by the names that its list has."""

    def listed(self, service: str | None, most: int) -> list[tuple[str, Death]]:
        """The newest deaths."""

    def one(self, name: str) -> Death | None:
        """One death."""

    def profile(self, name: str) -> bytes | None:
        """What it held."""

    def named(self, name: str) -> dict[str, Any]:
        """The name as JSON has it."""

    @property
    def nothing(self) -> str:
        """What to say when there are no deaths."""


@dataclass(frozen=True, slots=True)
class InJournal:
    """The deaths of a watch, in its data directory."""

    journal: Journal

    def listed(self, service: str | None, most: int) -> list[tuple[str, Death]]:
        """See DeathSource."""
        with self.journal.read() as transaction:
            return [(str(number), one) for number, one in deaths(transaction, service, most)]

    def one(self, name: str) -> Death | None:
        """See DeathSource."""
        if not (name.isascii() and name.isdigit() and len(name) < 18):
            return None
        with self.journal.read() as transaction:
            return death_by_number(transaction, int(name))

    def profile(self, name: str) -> bytes | None:
        """See DeathSource."""
        with self.journal.read() as transaction:
            return profile_of(transaction, int(name))

    def named(self, name: str) -> dict[str, Any]:
        """See DeathSource."""
        return {"number": int(name)}

    @property
    def nothing(self) -> str:
        """See DeathSource."""
        if (self.journal.path.parent / _OF_SERVER).exists():
            return "no deaths of a watch; --url asks the server of this directory for its own"
        return "no deaths"


@dataclass(frozen=True, slots=True)
class AtServer:
    """The deaths of a server, asked for by HTTP."""

    client: httpx.Client

    def listed(self, service: str | None, most: int) -> list[tuple[str, Death]]:
        """See DeathSource."""
        query = urlencode({"service": service or "", "most": min(most, _MOST_ASKED)})
        answer = self._get(f"{_PATH}?{query}")
        if answer is None:
            raise CliError(f"{self.client.base_url} has no {_PATH}; expected a stanch server")
        return [_named(one) for one in json.loads(answer)["deaths"]]

    def one(self, name: str) -> Death | None:
        """See DeathSource."""
        answer = self._get(f"{_PATH}/{quote(name, safe='')}")
        return _named(json.loads(answer))[1] if answer is not None else None

    def profile(self, name: str) -> bytes | None:
        """See DeathSource."""
        return self._get(f"{_PATH}/{quote(name, safe='')}/profile")

    def named(self, name: str) -> dict[str, Any]:
        """See DeathSource."""
        return {"death": name}

    @property
    def nothing(self) -> str:
        """See DeathSource."""
        return "no deaths"

    def _get(self, path: str) -> bytes | None:
        """The body of an answer, None for a 404. Raises CliError."""
        answer = ask(self.client, "GET", path, time.monotonic() + _PATIENCE_S)
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise CliError(f"{self.client.base_url}: {answer.text.strip() or answer.status_code}")
        return answer.content


def _named(told: Mapping[str, Any]) -> tuple[str, Death]:
    return str(told["death"]), death_from_mapping(told)
