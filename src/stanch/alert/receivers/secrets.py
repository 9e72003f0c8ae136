"""Secrets in files: read anew for each request, so that a rotated token is taken up at once."""

from collections.abc import Generator
from pathlib import Path

import httpx

_MAX_BYTES = 64 * 1024


class SecretError(Exception):
    """A secret cannot be read; the text names the file, never its content."""


def read_secret(path: Path) -> str:
    """Return the one line of a file. Raises SecretError."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8").strip()
    except OSError as error:
        raise SecretError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SecretError(f"{path} is no text") from error
    if not text or "\n" in text:
        raise SecretError(f"{path} must hold one line")
    return text


class FileToken(httpx.Auth):
    """Puts the token of a file into each request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx. Raises SecretError."""
        request.headers["Authorization"] = f"Bearer {read_secret(self._path)}"
        yield request
