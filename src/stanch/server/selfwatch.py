"""The server as one of its own targets: the agent in its process, scraped like any other's.

So its memory, limit, requests, lives and profile are in the store, as the service `stanch-server`,
and a leak of its own is a finding. It costs what one more target costs, and of the server's CPU
time at most the agent's budget. Where that cannot be, `why_not` says why, and the server runs
without.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

from stanch import sampler
from stanch.agent import control
from stanch.agent.settings import LISTEN_AUTO, SettingError
from stanch.collect import Scrape, Target
from stanch.collect.observe import breakdown_of
from stanch.server.watch import WatchState
from stanch.version import __version__

SERVICE = "stanch-server"
ENGINE = "engine"
"""What the store's engine holds, in the breakdown of the server's memory: told apart from `other`,
which it is a part of, as chDB has an allocator of its own."""


class SelfWatch:
    """A source of one target, this process, or of none. Use it in a `with` block.

    why_not: why the server does not watch itself, in a sentence; "" when it does.
    """

    error: str | None = None

    def __init__(self, port: int) -> None:
        """port: where the server listens; it tells several servers of one machine apart."""
        self.why_not = ""
        self._instance = f"{os.uname().nodename}:{port}"
        self._target: Target | None = None
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> "SelfWatch":
        had_agent = sampler.running()
        try:
            where = control.start(
                {
                    "listen": LISTEN_AUTO,
                    "service": SERVICE,
                    "instance": self._instance,
                    "release": __version__,
                }
            )
        except (SettingError, sampler.SamplerError) as error:
            self.why_not = str(error)
            return self
        if not had_agent:
            self._ending.callback(control.stop)
        if where is None:
            self.why_not = (
                "its agent has no endpoint, standard error says why; STANCH_DIR can name another"
                " directory for it"
            )
        elif not where.startswith("unix:"):
            self.why_not = f"an agent runs in it already, at {where}; name that as a target"
        else:
            path = where.removeprefix("unix:")
            self._target = Target("http://localhost", self._instance, SERVICE, unix_path=path)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def targets(self) -> tuple[Target, ...]:
        """This process, when it can be watched."""
        return (self._target,) if self._target is not None else ()

    def breakdown(self, scrape: Scrape, engine_bytes: Callable[[], int | None]) -> dict[str, int]:
        """What a target's memory is made of, with the engine told apart in this process's own.

        engine_bytes: what the store's engine holds, None when it is in another process.
        """
        kinds = breakdown_of(scrape)
        other = kinds.get("other", 0)
        if scrape.target is not self._target or not other or (held := engine_bytes()) is None:
            return kinds
        kinds[ENGINE] = min(max(held, 0), other)
        kinds["other"] = other - kinds[ENGINE]
        return kinds


def told_to_people(state: WatchState) -> WatchState:
    """The state as alarms see it: of the server's own findings those that are sure, whatever stage
    others are told at, so that who watches never adds noise to what it watches."""
    findings = tuple(
        one for one in state.findings if one.service != SERVICE or one.is_confirmed_leak
    )
    return replace(state, findings=findings)
