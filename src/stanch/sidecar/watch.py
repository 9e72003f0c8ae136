"""The sidecar: one process that speaks pprof, read over loopback or a unix socket only.

Looks at the cgroup every second; takes a profile every `every_s`, and at once when there is reason
to. Each profile is kept as the last one, and pushed when asked to. When the process dies, the last
profile becomes its autopsy. What goes wrong is told in a sentence, and it goes on.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from stanch.collect import FetchError, Target
from stanch.collect.fetch import Connection
from stanch.collect.procfs import listener_of_port, listener_of_socket
from stanch.collect.reading import ProfileReading, Reader
from stanch.collect.running import run_for_result
from stanch.deaths import (
    Autopsy,
    Cause,
    Death,
    Evidence,
    autopsy_of,
    cause_of,
    record,
    with_autopsy,
)
from stanch.deaths.death import place_text
from stanch.detect import size_text
from stanch.journal import Journal, JournalError
from stanch.profile import ProfileError
from stanch.sampler.cgroup import MemoryGroup
from stanch.sidecar.gauge import Gauge, Reading
from stanch.sidecar.shelf import Shelf
from stanch.sidecar.trigger import Trigger

HEAP = "/debug/pprof/heap"
_NEAR = 0.9
_LEAST_TROUBLING = 16 * 1024 * 1024


class SidecarError(ValueError):
    """The sidecar cannot work like this; the text says why."""


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """What to read and where to keep it.

    target: must be on this machine. pid: of the process; None: the one that listens there. group:
    its memory cgroup; None: the one of the process. push_url: None for no push; push_token_file,
    push_ca: as of a target.
    """

    target: Target
    directory: Path
    pid: int | None = None
    group: MemoryGroup | None = None
    every_s: float = 15.0
    look_s: float = 1.0
    timeout_s: float = 10.0
    at: tuple[float, ...] = (0.70, 0.85, 0.95)
    push_url: str | None = None
    push_token_file: Path | None = None
    push_ca: Path | None = None
    service: str = ""
    instance: str = ""


class Sidecar:
    """Use it in a `with` block; `run` gives sentences of what happened."""

    def __init__(
        self,
        options: SidecarOptions,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises SidecarError for a target elsewhere, and for what cannot be used."""
        if not options.target.is_local:
            raise SidecarError(
                f"{options.target.instance} is not on this machine; a sidecar reads loopback or a "
                "unix socket only, so that the profiles are not open to others"
            )
        if options.push_token_file and not (options.push_url or "").startswith("https://"):
            raise SidecarError("a token is pushed over https:// only")
        try:
            self._shelf = Shelf(options.directory)
            self._push = _push_client(options) if options.push_url else None
        except OSError as error:
            raise SidecarError(str(error)) from error
        self._options = options
        self._monotonic, self._wall, self._sleep = monotonic, wall, sleep
        self._runner = asyncio.Runner()
        self._connection = Connection(options.target, options.timeout_s)
        self._trigger = Trigger(options.at)
        self._gauge = self._find()
        self._reading: Reading | None = None
        self._reader = Reader()
        self._profile: bytes | None = None
        self._profile_unix = 0.0
        self._told: str | None = None

    def __enter__(self) -> "Sidecar":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()
        if self._push is not None:
            self._push.close()

    def run(self, for_s: float | None = None) -> Iterator[str]:
        """Look until the time is over, or for ever; yield what is worth telling, as it happens."""
        began_s = self._monotonic()
        due_s = began_s
        while for_s is None or self._monotonic() - began_s < for_s:
            reading = self._gauge.read()
            if self._reading is not None and self._has_died(reading):
                yield from self._bury(reading)
                self._gauge = self._find()
                self._trigger = Trigger(self._options.at)
                self._reading = None
                continue
            self._reading = reading
            now_s = self._monotonic()
            why = self._trigger.look(now_s, reading)
            if why is not None or now_s >= due_s:
                due_s = now_s + self._options.every_s
                yield from self._take(why)
            if self._gauge.pid is None:
                self._gauge = self._find()
            self._sleep(self._options.look_s)

    def _find(self) -> Gauge:
        target = self._options.target
        pid = self._options.pid
        if pid is None and target.unix_path is not None:
            pid = listener_of_socket(target.unix_path)
        elif pid is None and target.port is not None:
            pid = listener_of_port(target.port)
        return Gauge(pid, self._options.group)

    def _has_died(self, reading: Reading) -> bool:
        before = self._reading
        if before is None or not before.alive:
            return False
        return not reading.alive or self._kills(reading) > 0

    def _kills(self, reading: Reading) -> int:
        before = self._reading
        if before is None or reading.oom_kills is None or before.oom_kills is None:
            return 0
        return max(0, reading.oom_kills - before.oom_kills)

    def _take(self, why: str | None) -> Iterator[str]:
        """Take a profile, keep it, push it. why: the reason, None when it was just time."""
        try:
            body = run_for_result(self._runner, self._connection.get(HEAP))
            profile = self._reader.read(body)
        except (FetchError, ProfileError) as error:
            yield from self._tell_once(f"no profile: {error}")
            return
        self._profile, self._profile_unix = body, self._wall()
        trouble = _trouble(profile, self._reading)
        try:
            self._shelf.keep_last(body)
            if why is not None:
                path = self._shelf.keep(f"{self._stamp()}.pb.gz", body)
                yield f"{why}: profile kept as {path}"
        except OSError as error:
            trouble = f"the profile cannot be kept: {error}"
        if self._push is not None:
            trouble = self._send(body, why or "", "") or trouble
        yield from self._tell_once(trouble)

    def _bury(self, reading: Reading) -> Iterator[str]:
        """Make the last profile the autopsy of the process that has died."""
        before = self._reading
        share = before.share if before is not None else None
        evidence = Evidence(
            oom_killed=self._kills(reading) > 0 or None,
            near_limit=None if share is None else share >= _NEAR,
        )
        cause, how, sure = cause_of(evidence)
        found = autopsy_of(self._profile) if self._profile is not None else None
        age_s = self._wall() - self._profile_unix
        about = {
            "pid": self._gauge.pid,
            "cause": cause,
            "how": how,
            "sure": sure,
            "noticed_unix": self._wall(),
            "last": asdict(before) if before is not None else None,
            "profile_age_s": round(age_s, 1) if found is not None else None,
            "place": None if found is None else _place(found),
            "place_bytes": None if found is None else found.place_bytes,
            "live_bytes": None if found is None else found.live_bytes,
        }
        text = f"process {self._gauge.pid} has died: {how}"
        if found is not None:
            text += (
                f"; {size_text(found.place_bytes)} of {size_text(found.live_bytes)} live from "
                f"{_place(found)}, {age_s:.0f} s before"
            )
        pushed = None
        if self._push is not None and self._profile is not None:
            pushed = self._send(self._profile, how, cause)
        yield text
        if unwritten := self._write_down(before, (cause, how, sure), found):
            yield unwritten
        try:
            stem = f"death-{self._stamp()}"
            self._shelf.keep(f"{stem}.json", json.dumps(about, indent=1).encode())
            if self._profile is not None:
                yield f"autopsy kept as {self._shelf.keep(f'{stem}.pb.gz', self._profile)}"
        except OSError as error:
            yield f"the autopsy cannot be kept: {error}"
        yield from filter(None, [pushed])
        self._profile = None

    def _write_down(
        self, before: Reading | None, why: tuple[Cause, str, bool], found: Autopsy | None
    ) -> str | None:
        """Put a death into the journal that `stanch deaths` reads; return what went wrong."""
        options, now = self._options, self._wall()
        cause, how, sure = why
        death = Death(
            key=f"sidecar/{self._gauge.pid}/{now:.3f}",
            service=options.service or options.target.instance,
            instance=options.instance or options.target.instance,
            pids=() if self._gauge.pid is None else (self._gauge.pid,),
            cause=cause,
            how=how,
            sure=sure,
            died_unix=now,
            memory_bytes=before.working_set_bytes if before is not None else None,
            limit_bytes=before.limit_bytes if before is not None else None,
        )
        if found is not None:
            death = with_autopsy(death, found, "scrape", now - self._profile_unix)
        try:
            with Journal(options.directory) as journal, journal.write() as transaction:
                record(transaction, death, self._profile)
        except JournalError as error:
            return f"the death is not written down: {error}"
        return None

    def _send(self, body: bytes, why: str, death: str) -> str | None:
        """Push a profile; return what went wrong, None when it was taken."""
        options = self._options
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Stanch-Service": _latin(options.service),
            "X-Stanch-Instance": _latin(options.instance or options.target.instance),
            "X-Stanch-Pid": str(self._gauge.pid or ""),
            "X-Stanch-Reason": _latin(why),
            "X-Stanch-Death": death,
        }
        assert self._push is not None
        assert options.push_url is not None
        try:
            if options.push_token_file is not None:
                # Read each time: a mounted token is rotated in place.
                token = options.push_token_file.read_text().strip()
                headers["Authorization"] = f"Bearer {token}"
            answer = self._push.post(options.push_url, content=body, headers=headers)
        except (OSError, httpx.HTTPError, ValueError) as error:
            return f"not pushed: {error}"
        return None if answer.is_success else f"not pushed: answered {answer.status_code}"

    def _tell_once(self, trouble: str | None) -> Iterator[str]:
        """Say what does not work when it begins, and when it works again."""
        if trouble == self._told:
            return
        self._told = trouble
        yield trouble or "works again"

    def _stamp(self) -> str:
        milliseconds = int(self._wall() * 1000) % 1000
        return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(self._wall()))}.{milliseconds:03}"


def _push_client(options: SidecarOptions) -> httpx.Client:
    import ssl

    ca = str(options.push_ca) if options.push_ca is not None else None
    trust = ssl.create_default_context(cafile=ca)
    return httpx.Client(timeout=options.timeout_s, verify=trust, follow_redirects=False)


def _trouble(profile: ProfileReading, reading: Reading | None) -> str | None:
    """Say when a Go heap profile is empty because nothing is sampled."""
    used = reading.working_set_bytes if reading is not None else None
    if profile.heap or (profile.period > 0 and (used or 0) < _LEAST_TROUBLING):
        return None
    return (
        "the heap profile is empty: runtime.MemProfileRate is 0. The Go linker sets it so in a "
        "program that never mentions runtime.MemProfile; import net/http/pprof, or name it"
    )


def _place(found: Autopsy) -> str:
    return place_text(found.file, found.line, found.function, found.taken_by)


def _latin(text: str) -> str:
    """Header values are Latin-1; UTF-8 bytes pass through it unharmed."""
    return text.encode().decode("latin-1")
