"""Requests to an API server, in JSON: bounded in time and size, refusals in words.

A client of our own over the HTTP client that reports need anyway: what is used of the API is a
list, a watch, an eviction and a lease, and Kubernetes' own client brings fourteen packages for it.
Redirects are not followed, the proxies of the environment are not used. The token is read for
each request, since the kubelet rotates it on disk.
API: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, TypeVar

import httpx

from stanch.kube.cluster import Cluster
from stanch.kube.errors import KubeError

T = TypeVar("T")

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A single object is at most 1.5 MiB in etcd; written out as JSON it is longer."""

SILENCE_S = 90.0
"""A watch that says nothing for so long is begun anew: bookmarks come about every minute, and a
server that vanished without a word would be waited for for ever."""

_MAX_REFUSAL_BYTES = 64 * 1024


class KubeClient:
    """Asks one API server. All calls belong to one event loop, where it is closed in the end."""

    def __init__(
        self, cluster: Cluster, timeout_s: float = 30.0, silence_s: float = SILENCE_S
    ) -> None:
        """Prepares only. Raises ClusterError for certificates that cannot be used."""
        self.cluster = cluster
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._http = httpx.AsyncClient(
            base_url=cluster.server,
            transport=httpx.AsyncHTTPTransport(verify=cluster.verification()),
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=False,
            headers={"Accept": "application/json", "User-Agent": "stanch"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def get(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the object or list at a path. Raises KubeError."""
        return await self._bounded(self._ask("GET", path, parameters, None))

    async def send(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST or PUT an object; return the answer. Raises KubeError."""
        return await self._bounded(self._ask(method, path, None, body))

    async def _bounded(self, asking: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asking
        except TimeoutError:
            raise KubeError(f"no whole answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise _unreached(error) from error

    async def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        headers = self.cluster.headers()
        async with self._http.stream(
            method, path, params=parameters, json=body, headers=headers
        ) as response:
            if response.status_code >= 300:
                raise await _refusal(response)
            data = bytearray()
            async for part in response.aiter_bytes():
                data += part
                if len(data) > MAX_BODY_BYTES:
                    raise KubeError(f"{path} answers with more than {MAX_BODY_BYTES:,} bytes")
        return _object(bytes(data), path)

    async def watch(
        self, path: str, parameters: Mapping[str, str]
    ) -> AsyncIterator[dict[str, Any] | None]:
        """Give None once the server has agreed, then each event, until it ends the answer.

        Raises KubeError; one of status 410 when the version to resume from is too old.
        """
        timeout = httpx.Timeout(self._timeout_s, read=self._silence_s)
        try:
            async with self._http.stream(
                "GET",
                path,
                params={**parameters, "watch": "1"},
                headers=self.cluster.headers(),
                timeout=timeout,
            ) as response:
                if response.status_code != 200:
                    raise await _refusal(response)
                yield None
                pending = bytearray()
                async for part in response.aiter_bytes():
                    *lines, rest = (pending + part).split(b"\n")
                    pending = bytearray(rest)
                    if len(pending) > MAX_EVENT_BYTES:
                        raise KubeError(f"an event is larger than {MAX_EVENT_BYTES:,} bytes")
                    for line in lines:
                        if line.strip():
                            yield _event(_object(bytes(line), path))
        except httpx.ReadTimeout:
            return  # Silence: the watch resumes where it was.
        except httpx.HTTPError as error:
            raise _unreached(error) from error


def _event(event: dict[str, Any]) -> dict[str, Any]:
    """An event as it is. Raises KubeError for the type ERROR, whose object is a Status."""
    if event.get("type") != "ERROR":
        return event
    status = event.get("object")
    raise _error_of(status if isinstance(status, dict) else {}, 500, None)


async def _refusal(response: httpx.Response) -> KubeError:
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) > _MAX_REFUSAL_BYTES:
            break
    try:
        status = _object(bytes(data), "")
    except KubeError:
        status = {"message": data.decode("utf-8", "replace")}
    after = response.headers.get("Retry-After", "")
    return _error_of(status, response.status_code, float(after) if after.isdigit() else None)


def _error_of(status: Mapping[str, Any], code: int, after_s: float | None) -> KubeError:
    """The error that a Status object tells."""
    details = status.get("details")
    told = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    if after_s is None and isinstance(told, int) and told > 0:
        after_s = float(told)
    number = status.get("code")
    code = number if isinstance(number, int) and number else code
    message = " ".join(str(status.get("message", "")).split())[:300]
    return KubeError(f"refused with {code}: {message}", code, after_s, str(status.get("reason")))


def _object(data: bytes, path: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise KubeError(f"{path} answers with something else than JSON") from error
    if not isinstance(value, dict):
        raise KubeError(f"{path} answers with something else than an object")
    return value


def _unreached(error: httpx.HTTPError) -> KubeError:
    text = " ".join(str(error).split()) or type(error).__name__
    return KubeError(f"not reached: {text[:200]}")
