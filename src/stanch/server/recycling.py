"""Recycling for a watch: what its states show becomes replicas, and its targets are asked.

Evidence goes into files beside the journal, the newest MOST_EVIDENCE of them. A journal that
cannot be written is told as `trouble`, in a sentence; then nothing is recycled.
"""

import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

from stanch.alert import Condition
from stanch.alert.condition import RECYCLING_STOPPED, fingerprint_of
from stanch.collect import Target, TargetSource
from stanch.collect.exposition import parse_exposition
from stanch.collect.fetch import tls_extensions
from stanch.deaths import Evidence
from stanch.detect import finding_title
from stanch.journal import Journal, JournalError
from stanch.recycle import RecyclePolicy, Recycler, Replica
from stanch.recycle.backends import Backend
from stanch.recycle.backends.worker import WorkerBackend
from stanch.recycle.recycler import RecycleEvent
from stanch.server.chronicle import Chronicle
from stanch.server.watch import WatchState

MOST_EVIDENCE = 200
_ASK_S = 10.0
_QUICK_S = 2.0
_RETENTION_S = 15.0


def always() -> bool:
    """Nobody else acts, so this server does."""
    return True


def never(instance: str) -> bool:
    """Nobody tells which instances end anyway."""
    return False


class TargetClients:
    """HTTP clients for the endpoints of a watch's targets, by instance."""

    def __init__(self, source: TargetSource) -> None:
        self._source = source

    def client(self, instance: str, timeout_s: float = _ASK_S) -> httpx.Client:
        """Return a client whose URLs are paths at the target. Close it.

        Raises LookupError for an instance that is no target, OSError for a token or a certificate
        that cannot be read.
        """
        target = next((each for each in self._source.targets() if each.instance == instance), None)
        if target is None:
            raise LookupError(f"{instance} is no target any more")
        return httpx.Client(
            base_url=target.base_url,
            headers=_headers(target),
            timeout=timeout_s,
            transport=_transport(target),
            trust_env=False,
            event_hooks={"request": [_name_for_tls(target)]},
        )


def _headers(target: Target) -> dict[str, str]:
    if target.token_file is None:
        return {}
    return {"Authorization": f"Bearer {Path(target.token_file).read_text().strip()}"}


def _name_for_tls(target: Target) -> Callable[[httpx.Request], None]:
    def name(request: httpx.Request) -> None:
        request.extensions = {**request.extensions, **tls_extensions(target)}

    return name


def _transport(target: Target) -> httpx.HTTPTransport:
    if target.unix_path is not None:
        return httpx.HTTPTransport(uds=target.unix_path)
    if target.base_url.startswith("https:"):
        return httpx.HTTPTransport(verify=ssl.create_default_context(cafile=target.ca_file))
    return httpx.HTTPTransport()


def worker_backend(clients: TargetClients) -> WorkerBackend:
    """Return the back end that asks workers by their agents."""
    return WorkerBackend(clients.client, time.monotonic, time.sleep)


class Recycling:
    """Takes the states of a watch. Use it in a `with` block."""

    def __init__(
        self,
        directory: Path,
        policies: Sequence[tuple[RecyclePolicy, Backend]],
        clients: TargetClients,
        chronicle: Chronicle,
        wall: Callable[[], float] = time.time,
        *,
        may_act: Callable[[], bool] = always,
        is_leaving: Callable[[str], bool] = never,
    ) -> None:
        """may_act: whether this server leads. is_leaving: whether an instance ends anyway.

        Raises JournalError.
        """
        self._may_act = may_act
        self._is_leaving = is_leaving
        self._evidence = directory / "evidence"
        self._clients = clients
        self._chronicle = chronicle
        self._wall = wall
        self._journal = Journal(directory)
        self._recycler = Recycler(self._journal, policies, self, wall=wall)
        self.trouble: str | None = None

    def __enter__(self) -> "Recycling":
        return self

    def __exit__(self, *_: object) -> None:
        self._recycler.close()
        self._journal.close()

    def harmless(self, service: str) -> str | None:
        """See Recycler."""
        return self._recycler.harmless(service)

    def take(self, state: WatchState) -> list[RecycleEvent]:
        """Take in a state and begin what is due; return what happened since the last one."""
        for death in state.deaths:
            if death.cause == "oom":
                self._recycler.note_oom(death.service, death.died_unix)
        replicas = [
            replace(each, healthy=False) if self._is_leaving(each.instance) else each
            for each in replicas_of(state)
        ]
        try:
            self._recycler.observe(replicas, may_begin=self._may_act())
            self.trouble = None
        except JournalError as error:
            self.trouble = str(error)
        return self._recycler.take_events()

    def conditions(self) -> Iterable[Condition]:
        """Return what people must be told: where recycling has stopped, it hides nothing more."""
        for service, reason in self._recycler.stopped.items():
            yield Condition(
                fingerprint=fingerprint_of(RECYCLING_STOPPED, service),
                name=RECYCLING_STOPPED,
                service=service,
                stage="confirmed",
                cause="recycling",
                title=f"recycling of {service} has stopped",
                text=f"It has stopped since {reason}. The leak goes on; see `stanch recycles`.",
            )

    def gather(self, service: str, instance: str) -> dict[str, object]:
        """See Surroundings: the heap profile, and what keeps it alive where that can be told."""
        stem = f"{_safe(service)}-{_safe(instance)}-{self._wall():.0f}"
        found: dict[str, object] = {}
        for name, path, within_s in (
            ("profile", "/debug/pprof/heap", _ASK_S),
            ("retention", "/debug/stanch/retention?seconds=1", _RETENTION_S),
        ):
            try:
                with self._clients.client(instance, within_s) as client:
                    answer = client.get(path)
                if answer.is_success:
                    file = self._keep(stem, name, answer.content)
                    found[name] = str(file)
                else:
                    found[f"no {name}"] = f"answered {answer.status_code}"
            except (httpx.HTTPError, LookupError, OSError) as error:
                found[f"no {name}"] = f"{error!r}"[:200]
        return found

    def in_flight(self, service: str, instance: str) -> float | None:
        """See Surroundings."""
        try:
            with self._clients.client(instance, _QUICK_S) as client:
                answer = client.get("/metrics")
            if not answer.is_success:
                return None
            return parse_exposition(answer.content).total("stanch_requests_in_flight")
        except (httpx.HTTPError, LookupError, OSError, ValueError):
            return None

    def taken_out(self, service: str, instance: str, reason: str) -> None:
        """See Surroundings."""
        self._chronicle.expect(service, instance, Evidence(recycled=reason))

    def _keep(self, stem: str, name: str, content: bytes) -> Path:
        self._evidence.mkdir(mode=0o700, exist_ok=True)
        file = self._evidence / f"{stem}.{'pb.gz' if name == 'profile' else 'json'}"
        file.write_bytes(content)
        kept = sorted(self._evidence.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in kept[:-MOST_EVIDENCE]:
            old.unlink(missing_ok=True)
        return file


def replicas_of(state: WatchState) -> list[Replica]:
    """Return what a state shows of each target, as recycling sees it.

    A leak that is confirmed in a service is in all its replicas, for they run the same code: in
    each whose memory is not steady, also where it does not show yet.
    """
    leaks = {
        finding.service: finding_title(finding)
        for finding in reversed(state.findings)
        if finding.is_confirmed_leak
    }
    replicas = []
    for row in state.rows:
        leak = leaks.get(row.service, "") if row.verdict != "steady" else ""
        share = row.memory_bytes / row.limit_bytes if row.memory_bytes and row.limit_bytes else None
        replicas.append(
            Replica(
                service=row.service,
                instance=row.instance,
                healthy=row.verdict not in ("down", "unknown"),
                leaks=bool(leak),
                memory_share=share,
                death_s=row.seconds_to_death[0] if row.seconds_to_death is not None else None,
                leak=leak,
                life=row.life,
            )
        )
    return replicas


def event_text(event: RecycleEvent) -> str:
    """An event in one line."""
    what = {"begun": "recycling", "done": "recycled", "would": "dry run"}.get(
        event.what, f"recycling {event.what}"
    )
    return f"{what}: {event.service} {event.instance}: {event.text}"


def _safe(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in name)[:80]
