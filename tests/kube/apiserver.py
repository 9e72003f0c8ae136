"""An API server of the tests' own: the wire format of Kubernetes over real HTTP, and its faults.

It keeps objects by kind and name with growing resource versions, and answers lists in pages,
watches with bookmarks, 410 Gone for versions that it has forgotten, eviction with 429 where a
PodDisruptionBudget does not allow it, and Leases with 409 where the version is not the newest.
"""

import copy
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
_KINDS = {
    "pods": ("v1", "Pod"),
    "nodes": ("v1", "Node"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
}


@dataclass
class Budget:
    """A PodDisruptionBudget: how many evictions it still allows; retry_s: of its refusal."""

    allowed: int = 0
    retry_s: int | None = 1


class RefusalError(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        self.code = code
        self.retry_s = (details or {}).get("retryAfterSeconds")
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
            "details": details or {},
        }


@dataclass
class ApiServer:
    """The state of the cluster, behind a condition that watches wait for.

    asked: method and path with query of each request. evicted: uids of those whose eviction began.
    forbidden: kinds that may not be listed. busy: so many requests are answered with 503 first.
    lost: so many evictions are done and never answered. hasty: each watch is ended at once.
    """

    url: str = ""
    token: str = ""
    page: int = 500
    budget: Budget | None = None
    forbidden: set[str] = field(default_factory=set)
    busy: int = 0
    lost: int = 0
    hasty: bool = False
    asked: list[str] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    objects: dict[str, dict[str, Object]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    version: int = 100
    oldest: int = 100
    log: list[tuple[int, str, str, Object]] = field(default_factory=list)
    cut: int = 0
    closing: bool = False
    on_evict: Callable[[Object], None] | None = None

    def put(self, kind: str, value: Object) -> Object:
        """Create or change an object as a controller would; return it with its metadata."""
        with self.changed:
            return self._put(kind, value)

    def delete(self, kind: str, name: str, namespace: str = "shop") -> None:
        """Take an object away."""
        with self.changed:
            key = f"{namespace}/{name}" if kind != "nodes" else f"/{name}"
            value = self.objects[kind].pop(key)
            self.version += 1
            value["metadata"]["resourceVersion"] = str(self.version)
            self._log("DELETED", kind, value)

    def get(self, kind: str, name: str, namespace: str = "shop") -> Object:
        """Return a copy of an object. Raises KeyError."""
        with self.changed:
            return copy.deepcopy(self.objects[kind][f"{namespace}/{name}"])

    def change(self, name: str, change: Callable[[Object], None]) -> None:
        """Change a pod in place, as its kubelet would."""
        with self.changed:
            value = copy.deepcopy(self.objects["pods"][f"shop/{name}"])
            change(value)
            self._put("pods", value)

    def forget(self) -> None:
        """Compact: versions until now can be resumed no more; cut the watches."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.log.clear()
            self.cut_watches()

    def cut_watches(self) -> None:
        """Break all watches off, without a word."""
        with self.changed:
            self.cut += 1
            self.changed.notify_all()

    def bookmark(self) -> None:
        """Tell each watch the newest version, which no object of theirs has."""
        with self.changed:
            self.version += 1
            self.log.append((self.version, "BOOKMARK", "", {}))
            self.changed.notify_all()

    def count(self, start: str) -> int:
        """How many requests began so."""
        return sum(each.startswith(start) for each in self.asked)

    def _put(self, kind: str, value: Object) -> Object:
        about = value.setdefault("metadata", {})
        key = f"{about.get('namespace', '')}/{about['name']}"
        known = self.objects.setdefault(kind, {})
        before = known.get(key)
        version, name = _KINDS[kind]
        value = {"apiVersion": version, "kind": name, **value}
        self.version += 1
        about.setdefault("uid", before["metadata"]["uid"] if before else str(uuid.uuid4()))
        about.setdefault("creationTimestamp", stamp(time.time()))
        about["resourceVersion"] = str(self.version)
        known[key] = copy.deepcopy(value)
        self._log("MODIFIED" if before else "ADDED", kind, value)
        return value

    def _log(self, event: str, kind: str, value: Object) -> None:
        self.log.append((self.version, event, kind, copy.deepcopy(value)))
        self.changed.notify_all()


def stamp(unix_s: float) -> str:
    """A time as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._change)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, answer: Callable[[ApiServer, list[str], dict[str, str], Any], None]) -> None:
        api = self.server.api
        if api.closing:
            self.close_connection = True
            return
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with api.changed:
            api.asked.append(f"{self.command} {self.path}")
            busy, api.busy = api.busy > 0, max(0, api.busy - 1)
        try:
            if busy:
                raise RefusalError(503, "ServiceUnavailable", "the server is starting")
            if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
                raise RefusalError(401, "Unauthorized", "Unauthorized")
            answer(api, [part for part in url.path.split("/") if part], query, body)
        except RefusalError as refusal:
            headers = {"Retry-After": str(refusal.retry_s)} if refusal.retry_s else {}
            self._send(refusal.code, refusal.status, headers)
        except OSError:
            self.close_connection = True

    def _send(self, code: int, value: Object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def _get(self, api: ApiServer, path: list[str], query: dict[str, str], _: Any) -> None:
        namespace, kind, name = _resource(path)
        if name:
            with api.changed:
                found = api.objects.get(kind, {}).get(f"{namespace}/{name}")
                if found is None:
                    raise RefusalError(404, "NotFound", f'{kind} "{name}" not found')
                value = copy.deepcopy(found)
            self._send(200, value)
            return
        if kind in api.forbidden:
            raise RefusalError(403, "Forbidden", f"{kind} is forbidden: cannot list resource")
        if query.get("watch"):
            self._watch(api, namespace, kind, query)
        else:
            self._list(api, namespace, kind, query)

    def _list(self, api: ApiServer, namespace: str, kind: str, query: dict[str, str]) -> None:
        with api.changed:
            found = [
                {key: value for key, value in each.items() if key not in ("kind", "apiVersion")}
                for key, each in sorted(api.objects.get(kind, {}).items())
                if not namespace or key.startswith(f"{namespace}/")
            ]
            begin, version = 0, api.version
            if token := query.get("continue"):
                begin, version = (int(part) for part in token.split("-"))
                if version < api.oldest:
                    raise RefusalError(410, "Expired", "The provided continue parameter is too old")
            size = min(int(query.get("limit", 500)), api.page)
            about: Object = {"resourceVersion": str(version)}
            if begin + size < len(found):
                about["continue"] = f"{begin + size}-{version}"
                about["remainingItemCount"] = len(found) - begin - size
            page = copy.deepcopy(found[begin : begin + size])
        api_version, name = _KINDS[kind]
        self._send(
            200,
            {"kind": f"{name}List", "apiVersion": api_version, "metadata": about, "items": page},
        )

    def _watch(self, api: ApiServer, namespace: str, kind: str, query: dict[str, str]) -> None:
        since = int(query["resourceVersion"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if since < api.oldest:
            gone = RefusalError(410, "Expired", f"too old resource version: {since} ({api.oldest})")
            self._chunk({"type": "ERROR", "object": gone.status})
            self._chunk(None)
            return
        if api.hasty:
            self._chunk(None)
            return
        cut = api.cut
        while True:
            with api.changed:
                api.changed.wait_for(
                    lambda known=since: api.closing or api.cut != cut or api.version > known,
                    timeout=300,
                )
                if api.closing or api.cut != cut:
                    self.close_connection = True
                    return
                events = [each for each in api.log if each[0] > since]
                since = api.version
            for version, event, of, value in events:
                if event == "BOOKMARK":
                    if query.get("allowWatchBookmarks") == "true":
                        api_version, name = _KINDS[kind]
                        about = {"resourceVersion": str(version)}
                        value = {"kind": name, "apiVersion": api_version, "metadata": about}
                        self._chunk({"type": event, "object": value})
                elif of == kind and namespace in ("", value["metadata"].get("namespace", "")):
                    self._chunk({"type": event, "object": value})

    def _chunk(self, value: Object | None) -> None:
        data = json.dumps(value).encode() + b"\n" if value is not None else b""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _post(self, api: ApiServer, path: list[str], _: dict[str, str], body: Any) -> None:
        if path[-1] == "eviction":
            self._evict(api, path, body)
            return
        namespace, kind, _name = _resource(path)
        with api.changed:
            if f"{namespace}/{body['metadata']['name']}" in api.objects.get(kind, {}):
                raise RefusalError(409, "AlreadyExists", "it already exists")
            made = api.put(kind, body)
        self._send(201, made)

    def _change(self, api: ApiServer, path: list[str], _: dict[str, str], body: Any) -> None:
        namespace, kind, name = _resource(path)
        with api.changed:
            known = api.objects.get(kind, {}).get(f"{namespace}/{name}")
            if known is None:
                raise RefusalError(404, "NotFound", "not found")
            if body["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
                raise RefusalError(409, "Conflict", "the object has been modified")
            made = api.put(kind, body)
        self._send(200, made)

    def _evict(self, api: ApiServer, path: list[str], body: Any) -> None:
        assert (body["apiVersion"], body["kind"]) == ("policy/v1", "Eviction")
        namespace, name = path[3], path[5]
        options = body.get("deleteOptions") or {}
        with api.changed:
            pod = api.objects.get("pods", {}).get(f"{namespace}/{name}")
            if pod is None:
                raise RefusalError(404, "NotFound", f'pods "{name}" not found')
            wanted = (options.get("preconditions") or {}).get("uid")
            if wanted and wanted != pod["metadata"]["uid"]:
                raise RefusalError(409, "Conflict", "the UID in the precondition does not match")
            is_leaving = "deletionTimestamp" in pod["metadata"]
            if api.budget is not None and not is_leaving:
                if api.budget.allowed <= 0:
                    cause = {"reason": "DisruptionBudget", "message": "The budget needs more pods"}
                    details: Object = {"causes": [cause]}
                    if api.budget.retry_s:
                        details["retryAfterSeconds"] = api.budget.retry_s
                    text = "Cannot evict pod as it would violate the pod's disruption budget."
                    raise RefusalError(429, "TooManyRequests", text, details)
                if not options.get("dryRun"):
                    api.budget.allowed -= 1
            if not options.get("dryRun") and not is_leaving:
                api.evicted.append(pod["metadata"]["uid"])
                leaving = copy.deepcopy(pod)
                leaving["metadata"]["deletionTimestamp"] = stamp(time.time() + 30)
                api.put("pods", leaving)
                if api.on_evict is not None:
                    api.on_evict(leaving)
            if not options.get("dryRun") and api.lost > 0:
                api.lost -= 1
                raise OSError
        self._send(201, {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201})


def _resource(path: list[str]) -> tuple[str, str, str]:
    """Namespace, kind and name of /api/v1/... or /apis/GROUP/VERSION/..."""
    rest = path[2:] if path[0] == "api" else path[3:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return namespace, rest[0], rest[1] if len(rest) > 1 else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    api: ApiServer

    def handle_error(self, *_: object) -> None:
        pass  # A client that went away amid an answer.


class Running:
    """An API server that can be stopped and started again at the same address."""

    def __init__(self, api: ApiServer, context: ssl.SSLContext | None = None) -> None:
        self.api = api
        self._context = context
        self._port = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        """Listen, where it listened before."""
        self.api.closing = False
        server = _Server(("127.0.0.1", self._port), Handler)
        server.api = self.api
        scheme = "http"
        if self._context is not None:
            scheme = "https"
            server.socket = self._context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._port = server.server_address[1]
        self.api.url = f"{scheme}://127.0.0.1:{self._port}"
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, and break off what goes on."""
        if self._server is None or self._thread is None:
            return
        with self.api.changed:
            self.api.closing = True
            self.api.cut_watches()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = None
