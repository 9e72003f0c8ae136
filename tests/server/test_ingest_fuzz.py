"""Mutated profiles of Go against each route that takes profiles.

STANCH_FUZZ_ROUNDS mutates each golden profile so often (4) instead; the seed is fixed.
"""

import base64
import gzip
import os
import random
import time
import zlib
from collections.abc import Iterator

import httpx
import pytest

from stanch.collect.received import Receiver
from stanch.profile.wire import bytes_field
from stanch.server.ingest import ingest_routes
from stanch.store.history import TimeRange
from stanch.store.sqlstore import open_store
from tests.profile.golden import PROFILES
from tests.server.serving import PATIENCE_S, serving
from tests.store.pprofs import heap_bytes

pytest.importorskip("chdb", reason="needs the extra stanch[server]")

ROUNDS = int(os.environ.get("STANCH_FUZZ_ROUNDS", "4"))


def mutated(plain: bytes, dice: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled or set to what ends and what overflows a number."""
    data = bytearray(plain)
    for _ in range(dice.choice((1, 1, 1, 1, 2, 32))):
        at = dice.randrange(len(data) + 1)
        length = dice.choice((1, 1, 1, 5, 40))
        part = bytes(data[at : at + length])
        change = dice.choice((0, 0, 0, 1, 2, 3))
        if change == 0:
            data[at : at + length] = dice.randbytes(length)
        elif change == 1:
            del data[at : at + length]
        elif change == 2:
            data[at:at] = part
        else:
            data[at : at + length] = dice.choice((b"\x00", b"\x7f", b"\xff" * 9 + b"\x01"))
    return bytes(data)


def requests() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Path, body and headers, the same in each run."""
    dice = random.Random(20260301)
    for path in PROFILES:
        plain = gzip.decompress(path.read_bytes())
        for number in range(ROUNDS):
            body = mutated(plain, dice)
            if number % 2:
                body = zlib.compress(body, 1, wbits=31)
                body = mutated(body, dice) if number % 4 == 1 else body
            yield "/api/v1/push", body, {"X-Stanch-Service": "fuzz"}
            yield "/ingest?name=fuzz&format=pprof", body, {}
            yield "/ingest?name=fuzz&format=folded", body, {}
            sample = bytes_field(1, body)
            series = bytes_field(1, bytes_field(2, sample))
            yield "/push.v1.PusherService/Push", series, {"Content-Type": "application/proto"}
            yield "/push.v1.PusherService/Push", mutated(series, dice), {}
            text = b'{"series":[{"labels":[],"samples":[{"rawProfile":"%s"}]}]}'
            json = text % base64.b64encode(body[:3000])
            told = {"Content-Type": "application/json"}
            yield "/push.v1.PusherService/Push", mutated(json, dice), told


def test_mutated_profiles_are_taken_or_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each is kept or refused with a sentence, never an error of the server; what was kept gets
    into the tables, and so does a good profile after it."""
    answers: dict[int, int] = {}
    with open_store("chdb", tmp_path_factory.mktemp("store")) as store:
        receiver = Receiver(store, time.time)
        with (
            serving([*ingest_routes(receiver)]) as url,
            httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
        ):
            for path, body, headers in requests():
                answer = client.post(path, content=body, headers=headers)
                assert answer.status_code in (200, 400), (path, answer.text, body[:4000].hex())
                assert answer.status_code == 200 or len(answer.text.strip()) > 10
                answers[answer.status_code] = answers.get(answer.status_code, 0) + 1
            good = heap_bytes({"remember": 5000}, time_s=time.time())
            headers = {"X-Stanch-Service": "good"}
            assert client.post("/api/v1/push", content=good, headers=headers).json()["taken"]
        store.flush()
        now_s = time.time()
        (row,) = store.history.profiles("good", TimeRange(now_s - 600, now_s + 60))
        assert row.live_bytes == 5000.0
    # The mutations are neither so mild nor so wild that one path alone is tested.
    assert min(answers[200], answers[400]) >= 30
