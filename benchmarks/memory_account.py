"""CPU time of one account of the memory, and of a scrape of the metrics.

    python -m benchmarks.memory_account

Each host is a process of its own: empty, 1 GB of small objects, 1 GB of blocks from malloc, half of
these freed again one by one (a million free blocks, the worst for mallinfo2), and 1,000 mappings.
Printed per host: the parts of an account and the whole, and /proc/self/smaps for comparison, which
is not read. Then a scrape, in the endpoint's own thread: of a sampled host with 300 mappings, with
an account for each (as when scraped every ten seconds or less often) and with the last one.
"""

import subprocess
import sys

HOSTS = {
    "empty": "pass",
    "1 GB of objects": "kept = [bytes(67) for _ in range(9_500_000)]; gc.freeze()",
    "1 GB of malloc": "kept = blocks()",
    "1M free blocks": "kept = blocks(); [libc.free(block) for block in kept[::2]]",
    "1,000 mappings": "kept = [mmap.mmap(-1, 4096, prot=1 + n % 2 * 2) for n in range(1000)]",
}
_HOST = """
import ctypes, gc, mmap, sys, time
from pathlib import Path
from stanch import sampler
from stanch.agent import memory
from stanch.sampler import _core
from stanch.sampler.memory import heap_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def blocks():
    made = [libc.malloc(500) for _ in range(2_000_000)]
    for block in made:
        ctypes.memset(block, 1, 500)
    return made

def milliseconds(work):
    spent = []
    for _ in range(9):
        began = time.thread_time()
        work()
        spent.append(time.thread_time() - began)
    return sorted(spent)[4] * 1e3

sampler.start()
exec(sys.argv[1])
gc.disable()
parts = (
    lambda: Path("/proc/self/status").read_text(),
    lambda: _core.mappings(0),
    _core.malloc_figures,
    _core.live_figures,
    memory._own_account,
    lambda: Path("/proc/self/smaps").read_bytes(),
)
print(*(f"{milliseconds(part):.2f}" for part in parts))
"""
_SCRAPED = """
import gc, mmap, time
from stanch import sampler
from stanch.agent.endpoint import Endpoint, EndpointOptions
from stanch.agent.exposition import container_families, exposition
from stanch.agent.metrics import RequestMeter

sampler.start()
kept = [mmap.mmap(-1, 4096, prot=1 + n % 2 * 2) for n in range(200)]
endpoint = Endpoint(EndpointOptions(listen="127.0.0.1:0"), requests=RequestMeter())
gc.disable()

def scrape(forget):
    if forget:
        endpoint._memory._last = None
    began = time.thread_time()
    exposition(endpoint._families())
    exposition(container_families())
    return time.thread_time() - began

for forget in (True, False):
    spent = sorted(scrape(forget) for _ in range(201))
    print(f"{spent[100] * 1e3:.2f}")
"""


def main() -> None:
    """Print the table."""
    print("ms of CPU          status  mappings  malloc  live   whole  (smaps)")
    for name, code in HOSTS.items():
        figures = _run(_HOST, code).split()
        print(f"{name:<18} {'   '.join(f'{figure:>5}' for figure in figures)}")
    anew, last = _run(_SCRAPED).split()
    print(f"a scrape: {anew} ms with a new account, {last} ms with the last one")


def _run(*code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", *code], check=True, capture_output=True, text=True
    )
    return answer.stdout


if __name__ == "__main__":
    main()
