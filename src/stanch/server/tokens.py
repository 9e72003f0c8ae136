"""Tokens of the server: who may push, view or administer. Kept as hashes in the data directory.

A token is `stanch_NAME_SECRET`, the secret 256 random bits, so that one SHA-256 of it is enough:
what cannot be guessed needs no slow hash. The file `tokens.json` (mode 0600) is replaced as a whole
and read again when it changes, so a token that is taken back stops working within a moment.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

Role: TypeAlias = Literal["push", "view", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
FILE_NAME = "tokens.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}\Z")
_MOST_TOKENS = 10_000
_MAX_FILE_BYTES = 8 * 1024 * 1024


class TokenError(ValueError):
    """A token or the file of tokens cannot be used; one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it is kept. secret_sha256: hex. expires_unix: None for never."""

    name: str
    role: Role
    secret_sha256: str
    created_unix: float
    expires_unix: float | None = None


def allows(role: Role, wanted: Role) -> bool:
    """Whether a role may do what needs another: admin may all, push and view nothing but that."""
    return role in ("admin", wanted)


class Tokens:
    """The tokens of one data directory. May be used from several threads and processes."""

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        """directory: the server's data directory; it need not exist yet. Raises TokenError."""
        self._path = directory / FILE_NAME
        self._wall = wall
        self._lock = threading.Lock()  # guards the two that follow
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self.listed()

    def listed(self) -> tuple[Token, ...]:
        """All tokens by name. Raises TokenError when the file cannot be read."""
        with self._lock:
            signature = self._signature()
            if signature != self._seen:
                self._tokens = self._read() if signature else {}
                self._seen = signature
            return tuple(self._tokens[name] for name in sorted(self._tokens))

    def find(self, text: str) -> Token | None:
        """The token that a sender shows, None when it is unknown, wrong or expired.

        Raises TokenError when the file cannot be read.
        """
        self.listed()
        prefix, _, rest = text.partition("_")
        name, _, secret = rest.partition("_")
        with self._lock:
            token = self._tokens.get(name)
        kept = token.secret_sha256 if token else "0" * 64
        fits = hmac.compare_digest(_hash(secret), kept)
        if token is None or not fits or prefix != "stanch":
            return None
        if token.expires_unix is not None and token.expires_unix <= self._wall():
            return None
        return token

    def make(self, name: str, role: Role, lasts_s: float | None = None) -> str:
        """Make a token and give its text, which is kept nowhere. Raises TokenError."""
        if not _NAME.match(name):
            raise TokenError(
                f"{name!r} is no name of a token; use small letters, digits, dots and hyphens"
            )
        tokens = {token.name: token for token in self.listed()}
        if name in tokens:
            raise TokenError(f"there is a token {name} already; take it back or use another name")
        if len(tokens) >= _MOST_TOKENS:
            raise TokenError(f"there are {_MOST_TOKENS:,} tokens already; take some back")
        secret = secrets.token_urlsafe(32)
        now = self._wall()
        expires = None if lasts_s is None else now + lasts_s
        tokens[name] = Token(name, role, _hash(secret), now, expires)
        self._write(tokens)
        return f"stanch_{name}_{secret}"

    def take_back(self, name: str) -> bool:
        """Make a token invalid; False when there is none of this name. Raises TokenError."""
        tokens = {token.name: token for token in self.listed()}
        if tokens.pop(name, None) is None:
            return False
        self._write(tokens)
        return True

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TokenError(f"cannot read {self._path}: {error.strerror}") from error
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _read(self) -> dict[str, Token]:
        try:
            with self._path.open("rb") as file:
                values = json.loads(file.read(_MAX_FILE_BYTES))
            tokens = [Token(**value) for value in values["tokens"]]
        except OSError as error:
            raise TokenError(f"cannot read {self._path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise TokenError(
                f"{self._path} is damaged: {error}; restore it or remove it"
            ) from error
        for token in tokens:
            if token.role not in ROLES:
                raise TokenError(f"{self._path} has the unknown role {token.role!r}")
        return {token.name: token for token in tokens}

    def _write(self, tokens: dict[str, Token]) -> None:
        text = json.dumps({"tokens": [asdict(token) for token in tokens.values()]}, indent=1)
        fresh = self._path.with_name(f".{FILE_NAME}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise TokenError(f"cannot write {self._path}: {error.strerror}") from error


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
