"""Slack, Teams, PagerDuty and a webhook as a server behind a proxy sees them: names, TLS, payloads.

A CONNECT proxy on loopback leads every name to one TLS endpoint, whose certificate a CA of the
test's own has signed. Behind a name stands what that service documents of itself: which requests
it takes, and what it answers. What none of them would take is refused as they would.
"""

import contextlib
import json
import re
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SLACK, SLACK_API = "hooks.slack.com", "slack.com"
SLACK_FILES = "files.slack.com"
TEAMS = "prod-12.westeurope.logic.azure.com"
PAGERDUTY = "events.pagerduty.com"
HOOK = "hook.shop.example"
NAMES = (SLACK, SLACK_API, SLACK_FILES, TEAMS, PAGERDUTY, HOOK)

SLACK_TOKENS = ("T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnlazkcOXrIdevi7FQ")
BOT_TOKEN = "xoxb-1234567890-1234567890-abcdefSECRETbot"
FLOW, SIGNATURE = "643e69f83c8944f18a0b", "3d27b0a6SECRETsignatureSECRET"
ROUTING_KEY, API_KEY = "0123456789abcdef0123456789SECRET", "u-SECRETapikey"
SECRETS = (*SLACK_TOKENS, BOT_TOKEN, FLOW, SIGNATURE, ROUTING_KEY, API_KEY)

TARGETS = {
    "slack": f"slack://{'/'.join(SLACK_TOKENS)}/",
    "teams": f"workflows://{TEAMS}:443/{FLOW}/{SIGNATURE}",
    "pagerduty": f"pagerduty://{ROUTING_KEY}@{API_KEY}/",
}
"""apprise's URL of each."""

Answer = tuple[int, str]


@dataclass(frozen=True)
class Request:
    """One request that got through the proxy. status: what it was answered, None hung up."""

    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    status: int | None

    @property
    def body(self) -> Any:
        """Its JSON."""
        return json.loads(self.raw)


@dataclass
class Internet:
    """What is out there. faults: answers that are given first, by name; None hangs up.

    refused: names that the proxy does not let through. tunnels: what the proxy was asked for.
    """

    proxy: str
    ca: Path
    faults: dict[str, list[int | None]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    tunnels: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, host: str) -> list[Request]:
        """All requests to a name."""
        with self.lock:
            return [each for each in self.requests if each.host == host]

    def taken(self, host: str) -> list[Request]:
        """Those that its service has taken."""
        return [each for each in self.asked(host) if each.status in (200, 202)]

    def statuses(self, host: str) -> list[int | None]:
        """What the requests to a name were answered."""
        return [each.status for each in self.asked(host)]

    def environment(self) -> dict[str, str]:
        """What a server behind the proxy has in its environment."""
        return {"HTTPS_PROXY": self.proxy, "REQUESTS_CA_BUNDLE": str(self.ca)}


def slack(path: str, _query: dict[str, str], _headers: dict[str, str], raw: bytes) -> Answer:
    """https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""
    if path != f"/services/{'/'.join(SLACK_TOKENS)}":
        return 404, "no_service"
    body = _object(raw)
    if body is None or not _fits_slack(body):
        return 400, "invalid_payload"
    if not any(body.get(key) for key in ("text", "attachments", "blocks")):
        return 400, "no_text"
    return 200, "ok"


def _fits_slack(body: dict[str, Any]) -> bool:
    attachments = body.get("attachments", [])
    return len(attachments) <= 100 and all(
        isinstance(each, dict)
        and all(isinstance(each.get(key, ""), str) for key in ("title", "text", "footer"))
        and re.fullmatch("#[0-9a-fA-F]{6}|good|warning|danger", each.get("color", "good"))
        and (each.get("text") or each.get("fallback") or each.get("blocks"))
        # Its controls must be escaped, or it would take them for links and mentions.
        and not re.search(r"[<>]|&(?!amp;|lt;|gt;)", each.get("text", "") + each.get("title", ""))
        for each in attachments
    )


def slack_api(path: str, _query: dict[str, str], headers: dict[str, str], raw: bytes) -> Answer:
    """https://docs.slack.dev/reference/methods/chat.postMessage"""
    if headers.get("Authorization") != f"Bearer {BOT_TOKEN}":
        return 200, '{"ok": false, "error": "invalid_auth"}'
    if path != "/api/chat.postMessage":
        return 200, '{"ok": false, "error": "missing_scope"}'
    body = _object(raw)
    if body is None or not body.get("channel") or not _fits_slack(body):
        return 200, '{"ok": false, "error": "invalid_arguments"}'
    if body["channel"] == "#locked":
        return 200, '{"ok": false, "error": "not_in_channel"}'
    return 200, json.dumps({"ok": True, "channel": "C123ABC456", "ts": "1503435956.000247"})


def teams(path: str, query: dict[str, str], _headers: dict[str, str], raw: bytes) -> Answer:
    """https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
    and https://adaptivecards.io/explorer/AdaptiveCard.html"""
    if path != f"/workflows/{FLOW}/triggers/manual/paths/invoke":
        return 404, '{"error": {"code": "WorkflowNotFound"}}'
    if query.get("sp") != "/triggers/manual/run" or query.get("sig") != SIGNATURE:
        return 401, '{"error": {"code": "DirectApiAuthorizationRequired"}}'
    body = _object(raw)
    if body is None or len(raw) > 28 * 1024 or not _fits_teams(body):
        return 400, '{"error": {"code": "InvalidRequestContent"}}'
    return 202, ""


def _fits_teams(body: dict[str, Any]) -> bool:
    (attachment,) = body.get("attachments", [{}])
    card = attachment.get("content", {})
    return (
        body.get("type") == "message"
        and attachment.get("contentType") == "application/vnd.microsoft.card.adaptive"
        and card.get("type") == "AdaptiveCard"
        and card.get("version") in ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5")
        and bool(card.get("body"))
        and all(
            each.get("type") == "TextBlock" and isinstance(each.get("text"), str)
            for each in card["body"]
        )
    )


def pagerduty(path: str, _query: dict[str, str], _headers: dict[str, str], raw: bytes) -> Answer:
    """https://developer.pagerduty.com/docs/send-alert-event"""
    body = _object(raw)
    if path != "/v2/enqueue" or body is None:
        return 400, '{"status": "invalid event"}'
    about = body.get("payload", {})
    actions = {"trigger", "acknowledge", "resolve"}
    is_known = body.get("routing_key") == ROUTING_KEY and body.get("event_action") in actions
    named = body.get("event_action") == "trigger" or body.get("dedup_key")
    described = body.get("event_action") != "trigger" or (
        0 < len(about.get("summary", "")) <= 1024
        and isinstance(about.get("source"), str)
        and about.get("severity") in ("critical", "error", "warning", "info")
        and isinstance(about.get("custom_details", {}), dict)
        and all(each.get("href") for each in body.get("links", []))
    )
    if not is_known or not named or not described or len(body.get("dedup_key", "")) > 255:
        return 400, json.dumps({"status": "invalid event", "errors": [body.get("routing_key")]})
    return 202, json.dumps({"status": "success", "dedup_key": body.get("dedup_key")})


def hook(_path: str, _query: dict[str, str], _headers: dict[str, str], _raw: bytes) -> Answer:
    """Somebody's own."""
    return 200, ""


_SERVICES: dict[str, Callable[[str, dict[str, str], dict[str, str], bytes], Answer]] = {
    SLACK: slack,
    SLACK_API: slack_api,
    TEAMS: teams,
    PAGERDUTY: pagerduty,
    HOOK: hook,
}


def _object(raw: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        value = json.loads(raw)
        return value if isinstance(value, dict) else None
    return None


class _Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    internet: Internet

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        host = self.headers["Host"].partition(":")[0]
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.internet.lock:
            faults = self.internet.faults.get(host, [])
            fault = faults.pop(0) if faults else 200
        status, text = _SERVICES[host](url.path, query, dict(self.headers), raw)
        if fault != 200:
            status, text = fault or 0, ""
        request = Request(host, url.path, query, dict(self.headers), raw, status or None)
        with self.internet.lock:
            self.internet.requests.append(request)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if status in (301, 302, 307, 308):
            self.send_header("Location", f"https://{HOOK}/stolen")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that does not trust the certificate hangs up."""


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _tunnelling(internet: Internet, endpoint: tuple[str, int]) -> type:
    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            verb, target, _ = self.rfile.readline().decode().split(" ", 2)
            while self.rfile.readline().strip():
                pass
            host = target.rpartition(":")[0]
            with internet.lock:
                internet.tunnels.append(f"{verb} {target}")
            if verb != "CONNECT" or host not in NAMES or host in internet.refused:
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(endpoint) as there:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
                back.start()
                _pump(self.connection, there)
                back.join()

    return Tunnel


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def internet(directory: Path) -> Iterator[Internet]:
    """Serve all of it until the end of the block; keys and certificates lie in a directory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(directory))
    with contextlib.ExitStack() as ending:
        out = Internet("", directory / "ca.pem")
        server = _Server(("127.0.0.1", 0), type("Endpoint", (_Endpoint,), {"internet": out}))
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        proxy = _Proxy(("127.0.0.1", 0), _tunnelling(out, ("127.0.0.1", server.server_port)))
        out.proxy = f"http://127.0.0.1:{proxy.server_address[1]}"
        for each in (server, proxy):
            ending.callback(each.server_close)
            thread = threading.Thread(target=each.serve_forever, args=(0.05,), daemon=True)
            ending.callback(thread.join, 30)
            ending.callback(each.shutdown)
            thread.start()
        yield out


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A CA, and by it a certificate for all the names; the certificate's file and its key's."""
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    new += ["-nodes", "-days", "2"]
    names = ",".join(f"DNS:{name}" for name in NAMES)
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    certificate, key = directory / "names.pem", directory / "names.key"
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    authority = [*new, "-subj", "/CN=tests", *usage, "-out", str(ca), "-keyout", str(ca_key)]
    leaf = [*new, "-subj", "/CN=names", "-CA", str(ca), "-CAkey", str(ca_key)]
    leaf += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={names}"]
    for command in (authority, [*leaf, "-out", str(certificate), "-keyout", str(key)]):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return certificate, key
