"""What stands in front of every route: who may ask, from where, and the headers of each answer.

The policy allows what comes from the server itself and nothing inline. Cookies are HttpOnly and
SameSite=Strict; what changes something must come from the pages themselves (Origin) too.
"""

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stanch.server.tokens import Role, Token, TokenError, Tokens, allows

COOKIE = "stanch_token"
_OPEN = ("/healthz", "/readyz", "/static/", "/sign-in")
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
    """An ASGI middleware. tokens: None when loopback is all that is asked for."""

    def __init__(self, app: ASGIApp, tokens: Tokens | None) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        refusal = self._refusal(HTTPConnection(scope))
        if refusal is not None:
            await refusal(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        path = asked.url.path
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
        return _judged(token, wanted, asked)


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
