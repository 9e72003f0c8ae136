"""Targets that are asked by address and have a certificate for a name, as pods do."""

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.collect import FetchError, FixedTargets, parse_target
from stanch.collect.fetch import Connection
from stanch.server.recycling import TargetClients
from tests.kube.apiserver import ApiServer, Running
from tests.kube.samples import PATIENCE_S

PATH = "/api/v1/pods"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A TLS server at 127.0.0.1 whose certificate is for shop.internal; its URL and CA."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=shop", "-addext", "subjectAltName=DNS:shop.internal"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    running = Running(ApiServer(), context)
    try:
        yield f"{running.api.url} ca={certificate}"
    finally:
        running.stop()


async def _get(text: str) -> bytes:
    async with Connection(parse_target(text), PATIENCE_S) as connection:
        return await connection.get(PATH)


def test_the_name_is_what_the_certificate_must_be_for(served: str) -> None:
    """A scrape and a recycler's client verify it alike; another name is refused."""
    assert b"PodList" in asyncio.run(_get(f"{served} tls_name=shop.internal"))
    for wrong in ("", " tls_name=other.internal"):
        with pytest.raises(FetchError, match="certificate"):
            asyncio.run(_get(served + wrong))
    target = parse_target(f"{served} tls_name=shop.internal instance=shop-1")
    with TargetClients(FixedTargets((target,))).client("shop-1") as client:
        assert client.get(PATH).status_code == 200
