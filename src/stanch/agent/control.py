"""Starts and stops the agent of this process: sampler, endpoint, push, fork handlers.

`start` and `stop` do nothing when there is nothing to do, and may be called from any thread. A
wrong setting is the caller's error and raised; whatever the machine refuses later (a directory, a
port, a table file) is one line on stderr, and the rest goes on.
"""

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stanch import sampler
from stanch.agent import daemons, exits, fork, greenlets, rundir
from stanch.agent.budget import Budget, BudgetState, BudgetThread, spent_so_far
from stanch.agent.settings import (
    LISTEN_AUTO,
    LISTEN_OFF,
    SettingError,
    Settings,
    from_environment,
    from_keywords,
    from_texts,
    read_token,
)
from stanch.agent.warn import warn

if TYPE_CHECKING:
    from stanch.agent.endpoint import Endpoint, EndpointOptions
    from stanch.agent.metrics import RequestMeter
    from stanch.agent.push import Pusher

_lock = threading.RLock()
_agent: "Agent | None" = None
_meter: "RequestMeter | None" = None


def start(keywords: Mapping[str, object]) -> str | None:
    """Start the agent from code; does nothing when it runs. Returns where it listens, or None.

    Raises SettingError for a wrong setting, SamplerError when this interpreter cannot be sampled.
    """
    settings = from_keywords(keywords, os.environ)
    check(settings)
    return _start(settings, named_table=False).listens_at


def start_from_environment() -> None:
    """Start the agent as `stanch run` asked; what is wrong is one line on stderr. Never raises."""
    try:
        settings = from_environment(os.environ, listen=LISTEN_AUTO)
        check(settings)
        _start(settings, named_table=True)
    except (SettingError, sampler.SamplerError) as error:
        warn(f"the agent stays off: {error}")
    except Exception as error:
        warn(f"the agent stays off: {error!r}")


def start_attached(texts: Mapping[str, str]) -> str | None:
    """Start the agent as `stanch attach` asked, by texts of settings; return where it listens.

    None without an endpoint. Raises SettingError for a wrong setting, SamplerError when the agent
    runs already or this interpreter cannot be sampled.
    """
    settings = from_texts(texts, lambda setting: setting.option, listen=LISTEN_AUTO)
    check(settings)
    with _lock:
        if _agent is not None:
            where = f", listening at {_agent.listens_at}" if _agent.listens_at else ""
            raise sampler.SamplerError(f"the agent runs already{where}")
        return _start(settings, named_table=True).listens_at


def stop() -> None:
    """Stop the agent; remove its table and socket. Does nothing when it does not run."""
    global _agent
    with _lock:
        agent, _agent = _agent, None
        if agent is not None:
            fork.guard(None)
            agent.stop()


def meter() -> "RequestMeter":
    """Return the request meter of this process, which middleware counts with."""
    global _meter
    with _lock:
        if _meter is None:
            from stanch.agent.metrics import RequestMeter

            _meter = RequestMeter()
        return _meter


def check(settings: Settings) -> None:
    """Refuse what can be known to be wrong before anything starts. Raises SettingError."""
    if settings.listen in (LISTEN_OFF, LISTEN_AUTO):
        return
    from stanch.agent.endpoint import EndpointError
    from stanch.agent.security import check_listen

    try:
        check_listen(endpoint_options(settings, settings.listen, None))
    except EndpointError as error:
        raise SettingError(str(error)) from None


def endpoint_options(
    settings: Settings, listen: str, socket_directory: Path | None
) -> "EndpointOptions":
    """Return what the endpoint needs to know, for an address."""
    from stanch.agent.endpoint import EndpointOptions

    return EndpointOptions(
        listen=listen,
        token=read_token(settings.token_file),
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        socket_directory=socket_directory,
        cmdline=settings.cmdline,
        recycle=settings.recycle,
        service=settings.service,
        instance=instance_name(settings),
        release=settings.release,
    )


def instance_name(settings: Settings) -> str:
    """Return the setting, or HOST:PID of this process."""
    return settings.instance or f"{os.uname().nodename}:{os.getpid()}"


def _start(settings: Settings, *, named_table: bool) -> "Agent":
    global _agent
    with _lock:
        if _agent is not None:
            return _agent
        agent = Agent(settings, rundir.run_of(os.environ), named_table=named_table)
        agent.start()
        _agent = agent
        fork.guard(agent)
        atexit.register(stop)  # after the sampler's own, so that it runs before it
        return agent


def _attempt(what: str, part: Callable[[], None]) -> None:
    """Start an optional part; whatever the host has run out of is one line on stderr."""
    try:
        part()
    except Exception as error:
        warn(f"no {what}: {error!r}")


class Agent:
    """The agent of one process. Not thread-safe: `_lock` and the fork handlers serialize it."""

    def __init__(self, settings: Settings, run: rundir.Run, *, named_table: bool) -> None:
        self.settings = settings
        self.run = run
        self._named_table = named_table
        self._endpoint: Endpoint | None = None
        self._pusher: Pusher | None = None
        self._budget: Budget | None = None
        self._budget_thread: BudgetThread | None = None
        self._late: fork.LateStart | None = None

    @property
    def listens_at(self) -> str | None:
        """Where the endpoint of this process is, as unix:PATH or HOST:PORT; None without one."""
        return self._endpoint.address or None if self._endpoint is not None else None

    def start(self) -> None:
        """Start all parts. Raises SamplerError; what else fails is warned of."""
        usable, table = self._prepare_table()
        sampler.start(
            interval_bytes=self.settings.interval,
            table=table,
            service=self.settings.service,
            labels=self.settings.labels,
            native=self.settings.native,
        )
        self._warn_of_sampler()
        sampler.watch_exit(True)
        _attempt("care for gevent", lambda: greenlets.install(self.withdraw))
        self._start_threads(usable)
        _attempt("counting of requests", self._count_requests)
        _attempt("labels", self._start_labels)
        _attempt("clean end of children", lambda: exits.install(stop))

    def stop(self) -> None:
        """Stop all parts in the order that leaves nothing behind."""
        self.withdraw()
        self._stop_labels()
        sampler.watch_exit(False)
        sampler.stop()
        rundir.leave(self.run)

    def withdraw(self) -> None:
        """End all threads for good; sampling goes on."""
        if self._late is not None:
            self._late.cancel()
        if self._budget_thread is not None:
            self._budget_thread.pause()
        if self._pusher is not None:
            self._pusher.close()
        if self._endpoint is not None:
            self._endpoint.close()
        self._late = self._budget_thread = self._pusher = self._endpoint = None

    def before_fork(self) -> None:
        """See fork.Forkable."""
        if self._late is not None and self._late.cancel():
            self._late = None
        if self._budget_thread is not None:
            self._budget_thread.pause()
        if self._pusher is not None:
            self._pusher.pause()
        if self._endpoint is not None:
            self._endpoint.pause()

    def after_fork_in_parent(self) -> None:
        """See fork.Forkable."""
        if self._late is not None:
            self._start_late()
        if self._budget_thread is not None:
            self._budget_thread.start()
        if self._pusher is not None:
            self._pusher.resume()
        if self._endpoint is not None:
            self._endpoint.resume()

    def after_fork_in_child(self) -> None:
        """See fork.Forkable."""
        global _lock
        _lock = threading.RLock()
        sampler.after_fork_in_child(None)
        if self._endpoint is not None:
            self._endpoint.abandon()
        self._endpoint = self._pusher = self._budget = self._budget_thread = None
        if _meter is not None:
            _meter.reset()
        if not greenlets.patched():
            self._start_late()

    def _start_late(self) -> None:
        self._late = fork.LateStart(self._become_own_process)
        self._late.start()

    def _become_own_process(self) -> None:
        """Give a forked child what its parent has: table, endpoint, push."""
        usable, table = self._prepare_table()
        sampler.after_fork_in_child(table)
        self._start_threads(usable)

    def _start_threads(self, usable: bool) -> None:
        if greenlets.patched():
            return
        _attempt("budget", self._start_budget)
        _attempt("endpoint", lambda: self._start_endpoint(usable))
        _attempt("push", self._start_push)

    def _needs_directory(self) -> bool:
        return self._named_table or self.settings.listen != LISTEN_OFF

    def _prepare_table(self) -> tuple[bool, Path | None]:
        """Whether the run directory is usable, and where the table shall lie, if anywhere."""
        usable = self._make_directories()
        table = self._table_path() if usable else None
        if table is not None:
            rundir.keep_predecessor(table)
        if usable:
            self._look_back()
        return usable, table

    def _make_directories(self) -> bool:
        """Make the run directory, if one is needed, and that of the tables; find out who leads."""
        table = self.settings.table
        try:
            if table is not None and table.suffix != sampler.TABLE_SUFFIX:
                table.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            warn(f"no directory {table} for the table: {error.strerror}")
        if not self._needs_directory():
            return True
        try:
            rundir.make(self.run)
            self.run = rundir.claim(self.run)
        except rundir.RunDirectoryError as error:
            warn(f"no endpoint and no table: {error}")
            return False
        return True

    def _table_path(self) -> Path | None:
        return rundir.table_path(self.run, self.settings.table, named=self._named_table)

    def _look_back(self) -> None:
        """Tidy up after the dead; the first process tells of the newest in a place of the user's.

        Each process does, since one that lives for months may see many workers die.
        """
        table = self.settings.table
        if table is not None:
            dead = rundir.tidy(rundir.tables_beside(table))
            if dead and self.run.is_first:
                newest = dead[0]
                warn(f"a predecessor (pid {newest.pid}) left a table: stanch autopsy {newest.path}")
        if self._needs_directory():
            rundir.clean_runs(self.run.directory.parent)

    def _warn_of_sampler(self) -> None:
        stats = sampler.stats()
        if stats.table_error and self.run.is_first:
            warn(stats.table_error)
        if stats.native_error and self.run.is_first:
            warn(f"no native samples: {stats.native_error}")

    def _start_budget(self) -> None:
        if not self.settings.budget:
            return
        self._budget = Budget(
            self.settings.budget / 100,
            sampler.stats().interval_bytes,
            lambda: spent_so_far(self._other_cpu_ns),
        )
        self._budget_thread = BudgetThread(self._budget)
        self._budget_thread.start()

    def _budget_state(self) -> BudgetState | None:
        return None if self._budget is None else self._budget.state

    def _other_cpu_ns(self) -> float:
        """Return the CPU time of the agent's own threads."""
        endpoint_ns = 0.0 if self._endpoint is None else self._endpoint.cpu_seconds * 1e9
        push_ns = 0 if self._pusher is None else self._pusher.cpu_ns
        budget_ns = 0 if self._budget_thread is None else self._budget_thread.cpu_ns
        return endpoint_ns + push_ns + budget_ns

    def _start_endpoint(self, usable: bool) -> None:
        if self.settings.listen == LISTEN_OFF or not usable:
            return
        from stanch.agent.endpoint import Endpoint, EndpointError

        listen = f"unix:{self.run.socket}"
        if self.run.is_first and self.settings.listen != LISTEN_AUTO:
            listen = self.settings.listen
        try:
            options = endpoint_options(self.settings, listen, self.run.directory)
            endpoint = Endpoint(options, requests=meter(), budget=self._budget_state)
            endpoint.start()
        except (EndpointError, SettingError) as error:
            warn(f"no endpoint: {error}")
        except daemons.EndingError:
            pass  # nothing to say to somebody who is leaving
        else:
            self._endpoint = endpoint

    def _count_requests(self) -> None:
        if self.settings.requests:
            from stanch.agent import instrument

            instrument.install(meter())

    def _start_labels(self) -> None:
        from stanch.agent import requestlabels, routers

        requestlabels.switch(self.settings.labels)
        if self.settings.labels:
            routers.install()

    def _stop_labels(self) -> None:
        from stanch.agent import requestlabels

        requestlabels.switch(False)

    def _start_push(self) -> None:
        if self.settings.push is None:
            return
        from stanch.agent.push import Pusher, PushOptions

        self._pusher = Pusher(
            PushOptions(
                url=self.settings.push,
                every_s=self.settings.push_every,
                token=read_token(self.settings.token_file),
                service=self.settings.service,
                instance=instance_name(self.settings),
            ),
            take=sampler.heap_profile,
        )
        self._pusher.start()
