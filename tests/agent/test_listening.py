"""A host that closes the endpoint's descriptors keeps its own files whole, and the endpoint."""

import subprocess
import sys
from pathlib import Path

import pytest

# A daemon closes what it inherited; its next files get the numbers of the endpoint's descriptors.
DAEMON = """
import os, sys
from pathlib import Path
from stanch.agent.endpoint import Endpoint, EndpointOptions

socket, action = Path(sys.argv[1]), sys.argv[2]
endpoint = Endpoint(EndpointOptions(f"unix:{socket}"), requests=None)
endpoint.start()
os.closerange(3, 64)
ours = [os.open(socket.with_name(f"host{n}"), os.O_CREAT | os.O_RDWR) for n in range(16)]
if action == "pause":
    endpoint.pause()
    endpoint.resume()
elif action == "close":
    endpoint.close()
elif os.fork() == 0:
    endpoint.abandon()
    print([os.fstat(descriptor).st_size for descriptor in ours], flush=True)
    os._exit(0)
else:
    os.wait()
print([os.fstat(descriptor).st_size for descriptor in ours])
"""


@pytest.mark.parametrize("action", ["pause", "close", "abandon"])
def test_files_with_the_numbers_of_our_descriptors_are_left_alone(
    tmp_path: Path, action: str
) -> None:
    """Pausing, closing and forking write nothing to the host's files and close none of them."""
    result = subprocess.run(
        [sys.executable, "-Wignore", "-c", DAEMON, str(tmp_path / "s"), action],
        capture_output=True,
        text=True,
        timeout=60,
    )
    untouched = f"{[0] * 16}\n"
    expected = untouched * 2 if action == "abandon" else untouched
    assert (result.stdout, result.stderr, result.returncode) == (expected, "", 0)


RETURNS = """
import os, socket, sys, time
from stanch.agent.endpoint import Endpoint, EndpointOptions

endpoint = Endpoint(EndpointOptions(f"unix:{sys.argv[1]}"), requests=None)
endpoint.start()
os.closerange(3, 64)
deadline = time.monotonic() + 60
answer = b""
while not answer and time.monotonic() < deadline:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        try:
            connection.connect(sys.argv[1])
            connection.sendall(b"GET /debug/pprof/ HTTP/1.0\\r\\n\\r\\n")
            answer = connection.recv(12)
        except OSError:
            time.sleep(0.1)
print(answer.decode())
"""


def test_the_endpoint_comes_back(tmp_path: Path) -> None:
    """An endpoint whose descriptors the host has closed listens at the same address again."""
    result = subprocess.run(
        [sys.executable, "-c", RETURNS, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("HTTP/1.1 200\n", "", 0)
