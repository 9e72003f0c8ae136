"""What stands in front of every route: who may ask, from where and how often; and the headers.

The policy allows what comes from the server itself and nothing inline. Cookies are HttpOnly and
SameSite=Strict; what changes something must come from the pages themselves (Origin) too. Each
sender and each token has a bucket of requests; what is refused goes to the audit log.
"""

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stanch.server.audit import AuditLog
from stanch.server.limits import Buckets
from stanch.server.telemetry import Counters
from stanch.server.tokens import Role, Token, TokenError, Tokens, allows

COOKIE = "stanch_token"
SENDER = "stanch.sender"
"""Where a request's scope tells routes whose token it came with."""
_HEALTH = ("/healthz", "/readyz")
_OPEN = (*_HEALTH, "/static/", "/sign-in")
_PUSH = ("/api/v1/push", "/ingest", "/push.v1.PusherService/Push")
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    b" connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Gate:
    """An ASGI middleware.

    tokens: None when loopback is all that is asked for. senders, pushers: how often an address may
    ask, and a token push.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens | None,
        senders: Buckets,
        pushers: Buckets,
        audit: AuditLog,
        counters: Counters,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._senders = senders
        self._pushers = pushers
        self._audit = audit
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        asked = HTTPConnection(scope)
        refusal = self._refusal(asked)
        if refusal is not None:
            if asked.url.path in _PUSH:
                self._counters.note("refused")
            self._audit.note(
                "refused",
                status=str(refusal.status_code),
                sender=_sender(asked),
                token=self._named(_shown(asked)),
                path=asked.url.path,
            )
            await refusal(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _named(self, shown: str) -> str:
        """The name in a token that was shown; "" unless there is a token of this name: what else
        stands there may be a part of a secret."""
        name = shown.partition("_")[2].partition("_")[0]
        try:
            known = self._tokens.listed() if self._tokens is not None else ()
        except TokenError:
            return ""
        return name if any(token.name == name for token in known) else ""

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        path = asked.url.path
        if path not in _HEALTH and (wait_s := self._senders.take(_sender(asked))):
            self._counters.limited("address")
            return _too_often("requests from this address", wait_s)
        if asked.scope["method"] not in ("GET", "HEAD") and not _is_of_these_pages(asked):
            return PlainTextResponse("this comes from another site's page\n", 403)
        if self._tokens is None:
            # Another site's name that was made to lead here (DNS rebinding) is not this machine's.
            if asked.url.hostname not in _LOCAL_HOSTS:
                return PlainTextResponse("use 127.0.0.1 or localhost as the name\n", 421)
            return None
        if path.startswith(_OPEN):
            return None
        wanted: Role = "push" if path in _PUSH else "view"
        try:
            token = self._tokens.find(_shown(asked))
        except TokenError as error:
            return PlainTextResponse(f"{error}\n", 503)
        refusal = _judged(token, wanted, asked)
        if refusal is not None or token is None or wanted != "push":
            return refusal
        wait_s = self._pushers.take(token.name)
        if wait_s:
            self._counters.limited("token")
            return _too_often(f"pushes with the token {token.name}", wait_s)
        asked.scope[SENDER] = f"token {token.name}"
        return None


def _too_often(what: str, wait_s: int) -> Response:
    text = f"too many {what}; come back in {wait_s} s\n"
    return PlainTextResponse(text, 429, {"retry-after": str(wait_s)})


def sender_of(asked: HTTPConnection) -> str:
    """Who asks, as limits know it: the token's name, or the address where no token is asked for."""
    return str(asked.scope.get(SENDER) or _sender(asked))


def _sender(asked: HTTPConnection) -> str:
    return asked.client.host if asked.client is not None else "a unix socket"


def _judged(token: Token | None, wanted: Role, asked: HTTPConnection) -> Response | None:
    if token is None:
        if wanted == "view" and "text/html" in asked.headers.get("accept", ""):
            return RedirectResponse("/sign-in", 303)
        return PlainTextResponse(
            "a token is needed: Authorization: Bearer ...\n", 401, {"www-authenticate": "Bearer"}
        )
    if not allows(token.role, wanted):
        return PlainTextResponse(f"this token is for {token.role}, not for {wanted}\n", 403)
    return None


def _shown(asked: HTTPConnection) -> str:
    scheme, _, text = asked.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else asked.cookies.get(COOKIE, "")


def _is_of_these_pages(asked: HTTPConnection) -> bool:
    """Browsers send the Origin of a page with what changes something; other senders have none."""
    origin = asked.headers.get("origin")
    if origin is None:
        return asked.headers.get("sec-fetch-site", "none") in ("same-origin", "none")
    return origin == f"{asked.url.scheme}://{asked.headers.get('host', '')}"
