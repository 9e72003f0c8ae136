"""Schemathesis asks a real server, with a token, whatever its OpenAPI document allows, and what it
does not: each answer is one that the document tells, and none is the server's own fault."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema

from stanch.collect.received import Receiver
from stanch.profile.wire import bytes_field
from stanch.server.configuration import ServerConfiguration
from stanch.server.openapi import document
from stanch.server.pages.application import make_application
from stanch.server.tokens import Tokens
from stanch.store.sqlstore import open_store
from tests.server.serving import PATIENCE_S, serving_application
from tests.store.pprofs import heap_bytes

EXAMPLES = 20
"""Of each operation, good and bad ones; they are the same in each run."""
OPERATIONS = [(path, method) for path, methods in document()["paths"].items() for method in methods]


def push_request(heap: bytes) -> bytes:
    """push.v1.PushRequest, as Grafana Alloy sends it."""
    label = bytes_field(1, b"service_name") + bytes_field(2, b"alloy")
    return bytes_field(1, bytes_field(1, label) + bytes_field(2, bytes_field(1, heap)))


HEAPS = st.integers(1, 1000).map(lambda size: heap_bytes({"f": size * 1000}, time_s=1.7e9))
# No schema tells a profile from other bytes; what is none is in test_openapi.py and the fuzzers.
schemathesis.openapi.media_type("application/octet-stream", HEAPS)
schemathesis.openapi.media_type("application/proto", HEAPS.map(push_request))
# Queries and headers that the document does not name are passed over. Text in base64, and a profile
# whose query calls it collapsed stacks, are what the schema allows and yet no profile.
OFF = {"enabled": False}
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {"negative_data_rejection": OFF},
        "operations": [
            {"include-operation-id": name, "checks": {"positive_data_acceptance": OFF}}
            for name in ("pyroscope_push", "pyroscope_ingest")
        ],
    }
)


@dataclass(frozen=True)
class Asked:
    """The schema of a running server, how to reach it and its token."""

    schema: BaseSchema
    url: str
    session: requests.Session
    headers: dict[str, str]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A server over a store that holds a profile, which asks for tokens and limits nothing."""
    directory = tmp_path_factory.mktemp("data")
    tokens = Tokens(directory)
    headers = {"Authorization": f"Bearer {tokens.make('boss', 'admin')}"}
    configuration = ServerConfiguration(
        directory,
        sender_rate=0.0,
        token_rate=0.0,
        service_rate=0.0,
        sender_services=0,
        require_tokens=True,
    )
    with open_store("chdb", directory) as store, requests.Session() as session:
        application = make_application(store, Receiver(store, time.time), configuration, tokens)
        with serving_application(application) as url:
            schema = schemathesis.openapi.from_url(
                f"{url}/openapi.json", config=CONFIG, headers=headers
            )
            pushed = heap_bytes({"f": 1000}, time_s=time.time())
            named = {**headers, "X-Stanch-Service": "0"}
            session.post(
                f"{url}/api/v1/push", data=pushed, headers=named, timeout=PATIENCE_S
            ).raise_for_status()
            store.flush()
            yield Asked(schema, url, session, headers)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_as_its_document_says(asked: Asked, path: str, method: str) -> None:
    """Status, media type, body, and a refusal without a token, of each operation."""
    operation = asked.schema[path][method.upper()]
    seen = set()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(
            operation.as_strategy(GenerationMode.POSITIVE),
            operation.as_strategy(GenerationMode.NEGATIVE),
        )
    )
    def ask(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(asked.url, asked.session, asked.headers, timeout=PATIENCE_S)
        seen.add(answer.status_code)

    ask()
    assert seen & {200, 400, 404}
