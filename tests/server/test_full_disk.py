"""A full disk under a real server; on its own, as a process has one directory of chDB at a time."""

import time
from pathlib import Path

import httpx
import pytest

from stanch.collect.received import Receiver
from stanch.server.ingest import RETRY_AFTER_S, ingest_routes
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import open_store
from tests.server.serving import PATIENCE_S, serving
from tests.store.pprofs import heap_bytes


@pytest.mark.parametrize("small_disk", [40], indirect=True)
def test_a_full_disk_is_said_and_gets_well(small_disk: Path) -> None:
    """On a full disk a push is refused with the remedy; when there is room again, it is taken."""
    bounds = IntakeBounds(seconds=0.1)
    with (
        open_store("chdb", small_disk / "data", bounds=bounds) as store,
        serving([*ingest_routes(Receiver(store, time.time))]) as url,
    ):
        taken = 0

        def push() -> httpx.Response:
            data = heap_bytes({"a": 1000 + taken}, time_s=time.time())
            return httpx.post(f"{url}/api/v1/push", content=data, timeout=PATIENCE_S)

        assert push().status_code == 200
        taken += 1
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        until = time.monotonic() + PATIENCE_S
        while (answer := push()).status_code == 200:
            taken += 1
            assert time.monotonic() < until
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == str(RETRY_AFTER_S)
        assert "full" in answer.text
        ballast.unlink()
        while push().status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        taken += 1
        store.flush()
        ((stored,),) = store.engine.query("SELECT count() FROM profiles")
        assert stored == taken
