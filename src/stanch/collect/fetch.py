"""One HTTP answer from a target: bounded in time and size, redirects refused, errors in words.

A target is somebody else's process, so nothing it sends is trusted: the body is read up to a cap,
no content encoding is accepted (none was asked for), and a redirect is never followed, as it could
lead a token elsewhere. The proxies of the environment are not used.
"""

import asyncio
import ssl
from pathlib import Path
from types import TracebackType

import httpx

from stanch.collect.errors import FetchError, NotServedError
from stanch.collect.targets import Target

MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_TOKEN_BYTES = 64 * 1024
_MAX_REASON_BYTES = 4096


class Connection:
    """A kept-alive connection to one target. Use inside one event loop, and `close` it there."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        """Prepare only; raises FetchError when the target's CA file cannot be used."""
        self._target = target
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=target.base_url,
            transport=httpx.AsyncHTTPTransport(
                uds=target.unix_path,
                verify=_tls_context(target),
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
            ),
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "stanch"},
        )

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def get(self, path: str, max_bytes: int = MAX_BODY_BYTES) -> bytes:
        """The body at `path`. Raises FetchError, NotServedError for a 404."""
        headers = self._authorization()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(
                    "GET", path, headers=headers, extensions=tls_extensions(self._target)
                ) as response,
            ):
                await _check_status(response)
                _check_encoding(response)
                return await _read_body(response, max_bytes)
        except TimeoutError:
            raise FetchError(f"no whole answer within {self._timeout_s:g} s") from None
        except httpx.TimeoutException:
            raise FetchError(f"no answer within {self._timeout_s:g} s") from None
        except httpx.ConnectError as error:
            raise FetchError(f"cannot connect: {_reason(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchError(f"the answer is not HTTP as expected: {_reason(error)}") from error
        except (OSError, ValueError) as error:
            raise FetchError(f"the request failed: {_reason(error)}") from error

    def _authorization(self) -> dict[str, str]:
        """The token is read each time, as mounted secrets are rotated in place."""
        if self._target.token_file is None:
            return {}
        try:
            with Path(self._target.token_file).open("rb") as file:
                token = file.read(_MAX_TOKEN_BYTES).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FetchError(
                f"cannot read the token file {self._target.token_file}: {_reason(error)}"
            ) from error
        if not token or not token.isascii() or not token.isprintable():
            raise FetchError(
                f"the token file {self._target.token_file} holds no usable token;"
                " expected one line of printable ASCII"
            )
        return {"Authorization": f"Bearer {token}"}


def _tls_context(target: Target) -> ssl.SSLContext | bool:
    """What https is verified by; without https nothing is, and loading certificates takes long."""
    if not target.base_url.startswith("https:"):
        return False
    try:
        return ssl.create_default_context(cafile=target.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"cannot use the CA file {target.ca_file}: {_reason(error)}") from error


def tls_extensions(target: Target) -> dict[str, str]:
    """What a request carries so that the certificate is verified for the target's `tls_name`."""
    return {"sni_hostname": target.tls_name} if target.tls_name else {}


async def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in (401, 403):
        raise FetchError(f"refused with {status}: the token is missing or wrong (--token-file)")
    if status == 404:
        raise NotServedError(f"{response.url.path} is not served there (404)")
    if status == 429:
        raise FetchError("refused with 429: asked too often; use a longer --every")
    if status in (400, 503):
        said = (await _read_body(response, _MAX_REASON_BYTES)).decode("utf-8", "replace")
        reason = " ".join(said.split())[:300]
        raise FetchError(f"refused with {status}{f': {reason}' if reason else ''}")
    if 300 <= status < 400:
        raise FetchError(f"answered with a redirect ({status}), which is not followed")
    raise FetchError(f"{response.url.path} answered with status {status}; expected 200")


def _check_encoding(response: httpx.Response) -> None:
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise FetchError(f"sent content-encoding {encoding[:40]!r}, which was not asked for")


async def _read_body(response: httpx.Response, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > max_bytes:
            raise FetchError(f"the answer is larger than {max_bytes:,} bytes; given up")
        parts.append(part)
    return b"".join(parts)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]
