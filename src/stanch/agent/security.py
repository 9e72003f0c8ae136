"""Who may read the endpoint: the rule for wide addresses, TLS, token, Host header, rates.

Takes options and the headers of a request; gives a refusal as an Answer, or None. Profiles are
secrets and reading them costs the host, so nothing wider than loopback is served without a token
and TLS, and what is served is limited in rate and in how much runs at a time.

OpenSSL takes some 4 MiB of each process that imports it, so only those with a token or TLS do.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stanch.agent.exchange import Answer, AnswerError, Request
from stanch.agent.listen import (
    Address,
    EndpointError,
    EndpointOptions,
    is_loopback,
    parse_listen,
)

if TYPE_CHECKING:
    import ssl

MIN_WIDE_TOKEN = 16
READS_PER_SECOND = 20.0
READS_AT_ONCE = 60
"""A scrape of a service with 16 processes asks some 20 times in a row."""

GATE_WAIT_S = 5.0
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def check_listen(options: EndpointOptions) -> Address:
    """Return the address when it may be listened on as configured.

    Raises EndpointError: an address wider than loopback needs a token and TLS.
    """
    address = parse_listen(options.listen)
    if options.token is not None and not options.token.strip():
        raise EndpointError("the token is empty; give one of at least 16 random characters")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise EndpointError("TLS needs a certificate and its key; only one of them was given")
    if is_loopback(address):
        return address
    given = {"token": options.token, "TLS": options.tls_cert}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise EndpointError(
            f"{options.listen} can be reached from other machines, which needs a token and TLS, "
            f"but there is no {' and no '.join(missing)}; "
            "give both, or listen on 127.0.0.1 or a unix socket"
        )
    if options.token is not None and len(options.token) < MIN_WIDE_TOKEN:
        raise EndpointError(
            f"the token has {len(options.token)} characters; beyond loopback it needs at least "
            f"{MIN_WIDE_TOKEN} random ones"
        )
    return address


def tls_context(options: EndpointOptions) -> "ssl.SSLContext | None":
    """Return the context to serve TLS 1.2 or later with, None without TLS. Raises EndpointError."""
    if options.tls_cert is None or options.tls_key is None:
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password callback OpenSSL would ask on the host's terminal, and wait.
        context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise EndpointError(
            f"cannot use the certificate {options.tls_cert} with the key {options.tls_key}: "
            f"{error.strerror or error}; expected a PEM certificate and its unencrypted key"
        ) from error
    return context


class Guard:
    """Refuses requests without the token, and those that a browser was tricked into."""

    def __init__(self, options: EndpointOptions, address: Address) -> None:
        self._token = None if options.token is None else options.token.encode("utf-8", "replace")
        self._hosts: frozenset[str] | None = None
        if address.path is None and is_loopback(address):
            self._hosts = _LOCAL_HOSTS | {str(address).rpartition(":")[0].lower()}

    def refusal(self, request: Request) -> Answer | None:
        """Return why the request is not answered, None when it may be."""
        host = request.headers.get("host", "").lower()
        if self._hosts is not None and host and _without_port(host) not in self._hosts:
            return Answer.sentence(
                403, f"the Host header is {host[:100]!r}; expected localhost or the address itself"
            )
        if request.headers.get("sec-fetch-site") == "cross-site":
            return Answer.sentence(403, "a page of another site asked; open this address itself")
        if self._token is not None and not self._knows_token(request):
            return Answer.sentence(
                401,
                "the token is missing or wrong; send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": 'Bearer realm="stanch"'},
            )
        return None

    def _knows_token(self, request: Request) -> bool:
        import hmac

        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = self._token or b""
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), expected)
        return scheme.lower() == "bearer" and right


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return name if separator and (port.isdigit() or not port) else host


class RateLimit:
    """A token bucket: `at_once` reads in a burst, `per_second` in the long run. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float], per_second: float, at_once: int) -> None:
        self._monotonic = monotonic
        self._per_second = per_second
        self._at_once = float(at_once)
        self._left = float(at_once)
        self._then = monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Return whether one more read may pass now."""
        with self._lock:
            now = self._monotonic()
            gained = max(now - self._then, 0.0) * self._per_second
            self._left = min(self._left + gained, self._at_once)
            self._then = now
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


class Gate:
    """Lets one profile at a time be taken, and one be measured over some seconds.

    A measurement of seconds costs little per second, so it does not hold up the snapshots that a
    monitor takes meanwhile: these wait for each other, at most `wait_s`.
    """

    def __init__(self, wait_s: float = GATE_WAIT_S) -> None:
        self._wait_s = wait_s
        self._snapshot = threading.Lock()
        self._measurement = threading.Lock()
        self._search = threading.Lock()

    @property
    def measuring(self) -> bool:
        """Whether a measurement runs, which may be for minutes yet."""
        return self._measurement.locked()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Hold the place of the one snapshot. Raises AnswerError (429) when it stays taken."""
        if not self._snapshot.acquire(timeout=self._wait_s):
            raise AnswerError(_busy("another profile is being taken", 1))
        try:
            yield
        finally:
            self._snapshot.release()

    @contextmanager
    def measurement(self, seconds: float) -> Iterator[None]:
        """Hold the place of the one measurement over seconds. Raises AnswerError (429)."""
        if not self._measurement.acquire(blocking=False):
            raise AnswerError(_busy("another profile over seconds is running", int(seconds) + 1))
        try:
            yield
        finally:
            self._measurement.release()

    @contextmanager
    def search(self, seconds: int) -> Iterator[None]:
        """Hold the place of the one retention search. Raises AnswerError (429)."""
        if not self._search.acquire(blocking=False):
            raise AnswerError(_busy("another search is running", seconds))
        try:
            yield
        finally:
            self._search.release()


def too_many_reads() -> Answer:
    """Return the answer to one read too many."""
    return _busy(f"more than {READS_PER_SECOND:g} reads per second", 1)


def _busy(reason: str, retry_after_s: int) -> Answer:
    return Answer.sentence(
        429, f"{reason}; try again later", {"Retry-After": str(min(retry_after_s, 300))}
    )
