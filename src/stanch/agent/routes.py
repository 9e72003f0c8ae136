"""From a request to an answer: Go's own paths, the metrics and the list of processes.

Answers stand for all processes of the run: this one and its relatives. "pid=N" asks for one of
them, "alone=1" for this one only, which is how relatives ask each other.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import urlencode

from stanch import sampler
from stanch.agent import profiles
from stanch.agent.cpu import SUPPORTED
from stanch.agent.ending import END, end_worker
from stanch.agent.exchange import (
    HTML,
    PPROF,
    Answer,
    AnswerError,
    ClientGoneError,
    Request,
)
from stanch.agent.exposition import (
    CONTENT_TYPE,
    Family,
    container_families,
    exposition,
    join,
    resident_bytes,
)
from stanch.agent.listen import EndpointOptions, is_loopback, parse_listen
from stanch.agent.memory import MemoryReader, join_memory, own_memory
from stanch.agent.pages import PATHS, heap_text, index_page, threads_text
from stanch.agent.processlist import join_processes, own_process
from stanch.agent.relatives import Relatives, Replies
from stanch.agent.retention import Retention
from stanch.agent.retention import Wanted as WantedMemory
from stanch.agent.security import Gate
from stanch.agent.threads import stacks_text
from stanch.profile import Profile, ProfileError, encode, parse
from stanch.sampler.retention import SNAPSHOT_S

MAX_SECONDS = 300.0
CPU_SECONDS = 30.0
INDEX = "/debug/pprof/"
RETENTION = "/debug/stanch/retention"
OTHER = "other"
_CHECK_S = 0.25
_WHY_FIELDS = ("function", "place", "type", "seconds", "in_process", "values")

Wanted = Callable[[], bool]
_Route = Callable[[Request, Wanted], Answer]


class Routes:
    """Answers requests that may be answered; `families` gives the metrics of this process."""

    def __init__(
        self,
        options: EndpointOptions,
        relatives: Relatives,
        families: Callable[[], list[Family]],
        memory: MemoryReader,
    ) -> None:
        self._options = options
        self._identity = profiles.Identity(options.service, options.instance)
        self._relatives = relatives
        self._families = families
        self._memory_reader = memory
        self._gate = Gate()
        self._retention = Retention()
        self._routes: dict[str, _Route] = {
            INDEX: self._index,
            "/debug/pprof/heap": self._heap,
            "/debug/pprof/allocs": self._heap,
            "/debug/pprof/threads": self._threads,
            "/debug/pprof/goroutine": self._threads,
            "/debug/pprof/profile": self._cpu,
            "/debug/pprof/cmdline": self._cmdline,
            "/metrics": self._metrics,
            "/debug/stanch/processes": self._processes,
            "/debug/stanch/memory": self._memory,
            RETENTION: self._why,
        }

    @property
    def measuring(self) -> bool:
        """Whether a profile over seconds is being taken."""
        return self._gate.measuring

    def name(self, path: str) -> str:
        """Return the path as the metrics name it: one of ours, or OTHER."""
        return path if path in self._routes or path == END else OTHER

    def answer(self, request: Request, wanted: Wanted) -> Answer:
        """Return the answer; `wanted` says whether somebody still waits for it.

        Raises ClientGoneError when nobody does.
        """
        if request.path == END:
            return end_worker(request, self._relatives, allowed=self._options.recycle)
        if request.method not in ("GET", "HEAD"):
            return Answer.sentence(
                405, f"{request.method[:20]!r} is not served; use GET", {"Allow": "GET, HEAD"}
            )
        route = self._routes.get(request.path)
        if route is None:
            known = "\n".join((INDEX, *PATHS))
            return Answer.sentence(404, f"there is no {request.path[:200]!r} here, but:\n{known}")
        try:
            return route(request, wanted)
        except AnswerError as error:
            return error.answer
        except sampler.SearchError as error:
            return Answer.sentence(503, str(error))
        except sampler.SamplerError:
            return Answer.sentence(
                503, "sampling is off in this process; start it with stanch.start()"
            )

    def _index(self, _request: Request, _wanted: Wanted) -> Answer:
        pids = [os.getpid(), *self._relatives.pids()]
        page = index_page(self._options.service, self._options.instance, pids)
        return Answer(200, page.encode("utf-8", "replace"), HTML)

    def _heap(self, request: Request, wanted: Wanted) -> Answer:
        seconds = _seconds(request.query)
        collect = request.query.get("gc", "0") not in ("", "0")
        kind = profiles.allocs if request.path.endswith("/allocs") else profiles.heap

        def take() -> Profile:
            with self._gate.snapshot():
                return kind(self._identity, collect_first=collect)

        asked = {"gc": "1"} if collect else {}
        return self._profile(request, wanted, seconds, take, asked, heap_text)

    def _threads(self, request: Request, wanted: Wanted) -> Answer:
        if request.query.get("debug") == "2":
            return self._each_stack(request)

        def take() -> Profile:
            with self._gate.snapshot():
                return profiles.threads(self._identity)

        return self._profile(request, wanted, _seconds(request.query), take, {}, threads_text)

    def _cpu(self, request: Request, wanted: Wanted) -> Answer:
        if not SUPPORTED:
            return Answer.sentence(
                503, f"there is no CPU profile on {sys.platform}; it needs the clocks of Linux"
            )
        seconds = _seconds(request.query) or CPU_SECONDS
        if (
            forwarded := self._forwarded(request, {"seconds": f"{seconds:g}"}, seconds)
        ) is not None:
            return forwarded

        def take() -> Profile:
            profile = profiles.cpu(self._identity, seconds, wanted)
            if not wanted():
                raise ClientGoneError
            return profile

        with self._gate.measurement(seconds):
            whole = self._whole(request, take, {"seconds": f"{seconds:g}"}, seconds)
        return Answer(200, encode(whole), PPROF, _download("profile"))

    def _profile(
        self,
        request: Request,
        wanted: Wanted,
        seconds: float | None,
        take: Callable[[], Profile],
        asked: Mapping[str, str],
        as_text: Callable[[Profile], str],
    ) -> Answer:
        """Answer with a snapshot, or with its change over `seconds`, of the whole run."""
        debug = request.query.get("debug", "0")
        passed_on = {**asked, **({"seconds": f"{seconds:g}"} if seconds else {})}
        shown = {"debug": debug} if debug != "0" else {}
        if (answer := self._forwarded(request, {**passed_on, **shown}, seconds or 0.0)) is not None:
            return answer
        if seconds is None:
            whole = self._whole(request, take, passed_on, 0.0)
        else:
            length = seconds

            def change() -> Profile:
                return profiles.change(take, lambda: _wait(length, wanted))

            with self._gate.measurement(length):
                whole = self._whole(request, change, passed_on, length)
        if debug != "0":
            return Answer(200, as_text(whole).encode("utf-8", "replace"))
        return Answer(200, encode(whole), PPROF, _download(request.path.rpartition("/")[2]))

    def _whole(
        self,
        request: Request,
        take: Callable[[], Profile],
        asked: Mapping[str, str],
        extra_s: float,
    ) -> Profile:
        """Return this process's profile, with those of its relatives unless asked alone."""
        if _is_alone(request):
            return take()
        question = self._relatives.ask_all(_target(request.path, asked), extra_s)
        own = take()
        replies = question.wait()
        if not replies.replies and not replies.missing:
            return own
        others, unreadable = _parsed(replies)
        return profiles.whole(own, others, sorted((*replies.missing, *unreadable)))

    def _forwarded(
        self, request: Request, asked: Mapping[str, str], extra_s: float
    ) -> Answer | None:
        """Return the answer of the process that "pid=" names, None when it is this one."""
        text = request.query.get("pid")
        if text is None or text == str(os.getpid()):
            return None
        pids = self._relatives.pids()
        if not (text.isascii() and text.isdigit() and int(text) in pids):
            known = ", ".join(map(str, sorted((os.getpid(), *pids))))
            return Answer.sentence(404, f"no process {text[:20]!r} is in this run; it has {known}")
        reply = self._relatives.ask(int(text), _target(request.path, asked), extra_s)
        if reply is None:
            return Answer.sentence(502, f"process {text} did not answer; it may have ended")
        return Answer(reply.status, reply.body, reply.content_type)

    def _each_stack(self, request: Request) -> Answer:
        if (forwarded := self._forwarded(request, {"debug": "2"}, 0.0)) is not None:
            return forwarded
        with self._gate.snapshot():
            texts = [f"process {os.getpid()}\n\n{stacks_text()}"]
        if not _is_alone(request):
            replies = self._relatives.ask_all(_target(request.path, {"debug": "2"})).wait()
            texts += [reply.body.decode("utf-8", "replace") for reply in replies.replies]
            texts += [f"process {pid} did not answer\n" for pid in replies.missing]
        return Answer(200, "".join(texts).encode("utf-8", "replace"))

    def _cmdline(self, _request: Request, _wanted: Wanted) -> Answer:
        if not self._options.cmdline:
            return Answer.sentence(
                404, "the command line may hold secrets; set cmdline (STANCH_CMDLINE=1) to serve it"
            )
        return Answer(200, os.fsencode("\0".join(sys.orig_argv)))

    def _metrics(self, request: Request, _wanted: Wanted) -> Answer:
        if (forwarded := self._forwarded(request, {}, 0.0)) is not None:
            return forwarded
        texts = [exposition(self._families())]
        if not _is_alone(request):
            replies = self._relatives.ask_all(request.path).wait()
            texts += [reply.body.decode("utf-8", "replace") for reply in replies.replies]
            texts.append(exposition(container_families()))
        return Answer(200, join(texts).encode("utf-8", "replace"), CONTENT_TYPE)

    def _processes(self, request: Request, _wanted: Wanted) -> Answer:
        own = own_process(self._identity, resident_bytes())
        if _is_alone(request):
            return Answer.json([own])
        replies = self._relatives.ask_all(request.path).wait()
        return Answer.json(join_processes(own, replies))

    def _memory(self, request: Request, _wanted: Wanted) -> Answer:
        if (forwarded := self._forwarded(request, {}, 0.0)) is not None:
            return forwarded
        alone = _is_alone(request)
        question = None if alone else self._relatives.ask_all(request.path)
        with self._gate.snapshot():
            own = own_memory(self._identity, self._memory_reader)
        return Answer.json(join_memory(own, question.wait() if question else Replies()))

    def _why(self, request: Request, wanted: Wanted) -> Answer:
        seconds = _seconds(request.query)
        memory = _wanted_memory(request.query)
        if memory.values and not is_loopback(parse_listen(self._options.listen)):
            return Answer.sentence(
                403, "values are shown on the local machine only; ask there, or leave out values"
            )
        asked = {key: text for key, text in request.query.items() if key in _WHY_FIELDS}
        extra_s = (seconds or 0.0) + 2 * SNAPSHOT_S
        answer = self._forwarded(self._largest(request), asked, extra_s)
        if answer is not None:
            return answer
        try:
            with self._gate.search(int(extra_s) + 1):
                found = self._retention.look(memory, resident_bytes() or 0)
                if seconds is not None:
                    _wait(seconds, wanted)
                    found = self._retention.look(memory, resident_bytes() or 0)
        except LookupError as error:
            return Answer.sentence(400, str(error.args[0]))
        return Answer.json(found)

    def _largest(self, request: Request) -> Request:
        """Turn a question to a whole run into one to its largest process."""
        if _is_alone(request) or not self._relatives.pids():
            return request
        question = Request("GET", "/debug/stanch/processes")
        processes = json.loads(self._processes(question, lambda: True).body)
        largest = max(processes, key=lambda each: each.get("resident_bytes") or 0)
        return replace(request, query={**request.query, "pid": str(largest["pid"])})


def _wanted_memory(query: Mapping[str, str]) -> WantedMemory:
    """Return which memory a query means. Raises AnswerError (400)."""
    place = None
    if "place" in query:
        file, _, line = query["place"].rpartition(":")
        if not file or not (line.isascii() and line.isdigit() and len(line) < 10):
            raise AnswerError(
                Answer.sentence(400, f"place is {query['place'][:80]!r}; expected FILE:LINE")
            )
        place = (file, int(line))
    return WantedMemory(
        function=query.get("function") or None,
        place=place,
        type=query.get("type") or None,
        in_process=query.get("in_process", "0") not in ("", "0"),
        values=query.get("values", "0") not in ("", "0"),
    )


def _is_alone(request: Request) -> bool:
    return request.query.get("alone") == "1" or "pid" in request.query


def _seconds(query: Mapping[str, str]) -> float | None:
    """Return how long to measure, None when not given. Raises AnswerError (400)."""
    text = query.get("seconds")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        raise AnswerError(
            Answer.sentence(
                400,
                f"seconds is {text[:40]!r}; expected a number above 0, at most {MAX_SECONDS:g}",
            )
        )
    return seconds


def _wait(seconds: float, wanted: Wanted) -> None:
    """Sleep, while somebody waits for the answer. Raises ClientGoneError when nobody does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _CHECK_S))
        if not wanted():
            raise ClientGoneError


def _target(path: str, asked: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(asked)}" if asked else path


def _parsed(replies: Replies) -> tuple[list[Profile], list[int]]:
    """Return the relatives' profiles, and the pids of those whose answers are none."""
    found: list[Profile] = []
    unreadable: list[int] = []
    for reply in replies.replies:
        try:
            found.append(parse(reply.body))
        except ProfileError:
            unreadable.append(reply.pid)
    return found, unreadable


def _download(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
