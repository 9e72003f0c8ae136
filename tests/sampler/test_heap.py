"""What the heap profile says of programs whose memory is known."""

import gzip
import json
import math
import sysconfig
from pathlib import Path

import pytest

from stanch.profile import parse
from stanch.sampler import default_interval, sample_weight

from .conftest import RunPython

INTERVAL = 16384
KNOWN = """
    import json
    from stanch import sampler
    from stanch.profile import parse

    sampler.start(interval_bytes=16384)

    def kept(count, size):
        return [bytes(size) for _ in range(count)]

    class Session:
        def __init__(self):
            self.items = [None] * 100

    def sessions(count):
        return [Session() for _ in range(count)]

    a, b = kept(50_000, 200), sessions(10_000)
    del b[5_000:]
    for _ in range(3):
        kept(20_000, 100)
    profile = parse(sampler.heap_profile())
    live, allocated = {}, {}
    for sample in profile.samples:
        for location in sample.locations:
            line = location.lines[0]
            if line.function.name in ("kept", "Session.__init__"):
                key = f"{line.function.name}:{line.line}"
                live[key] = live.get(key, 0) + sample.values[3]
                allocated[key] = allocated.get(key, 0) + sample.values[1]
                break
    print(json.dumps([live, allocated, [t.type for t in profile.sample_types], profile.period]))
"""


ALLOCATORS = ["pymalloc", "malloc", "pymalloc_debug"]
if sysconfig.get_config_var("WITH_MIMALLOC"):
    ALLOCATORS.append("mimalloc")  # 3.13 and later


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_sites_are_named_with_their_line_and_bytes(run_python: RunPython, allocator: str) -> None:
    """Each site's live and allocated bytes come out within five deviations, at its own line."""
    answer = run_python(KNOWN, PYTHONMALLOC=allocator)
    live, allocated, types, period = json.loads(answer.stdout)
    assert types == ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]
    assert period == INTERVAL

    def close(found: float, truth: float) -> bool:
        return abs(found - truth) < 5 * math.sqrt(INTERVAL * truth)

    blocks, churned = 50_000 * 233, 3 * 20_000 * 133
    assert close(live["kept:9"], blocks + 8 * 50_000)
    assert close(live["Session.__init__:13"], 5_000 * 856)
    assert close(allocated["Session.__init__:13"], 10_000 * 856)
    # A growing list allocates a few times its final size in all.
    assert blocks + churned < allocated["kept:9"] < 2 * (blocks + churned)


def test_births_split_what_is_alive(run_python: RunPython) -> None:
    """Blocks alive are split into bands of five seconds by their birth since the start."""
    answer = run_python(
        """
        import dataclasses
        from stanch import sampler
        sampler.start(interval_bytes=4096)
        keep = [bytes(1000) for _ in range(5000)]
        image = sampler.snapshot()
        aged = dataclasses.replace(image, entries=tuple(
            dataclasses.replace(e, birth_ns=e.birth_ns + 12_000_000_000) for e in image.entries))
        for each in image, aged:
            profile = sampler.table_profile(each)
            print({s.num_labels for s in profile.samples if s.values[3]})
        """
    )
    assert answer.stdout.splitlines() == [
        "{(('birth', 0, 'seconds'),)}",
        "{(('birth', 10, 'seconds'),)}",
    ]


def test_names_of_any_script_survive(run_python: RunPython) -> None:
    """Names outside ASCII and angle brackets reach the profile whole."""
    answer = run_python(
        """
        from stanch import sampler
        from stanch.profile import parse
        sampler.start(interval_bytes=1024)
        def größe_数据():
            return (lambda: [bytes(1000) for _ in range(1000)])()
        keep = größe_数据()
        names = {line.function.name for s in parse(sampler.heap_profile()).samples
                 for location in s.locations for line in location.lines}
        print({"größe_数据", "größe_数据.<locals>.<lambda>", "<module>"} <= names)
        """,
        PYTHONUTF8="1",
    )
    assert answer.stdout == "True\n"


def test_interval_follows_the_limit() -> None:
    """The mean interval is limit / 4096 within 128 to 512 KiB, and 512 KiB without a limit."""
    assert default_interval(None) == 512 << 10
    assert default_interval(256 << 20) == 128 << 10
    assert default_interval(1 << 30) == 256 << 10
    assert default_interval(64 << 30) == 512 << 10


def test_weights_are_inverse_probabilities() -> None:
    """A block far larger than the interval counts once, a small one for interval / size."""
    assert sample_weight(1 << 30, 1 << 19) == 1.0
    assert sample_weight(64, 1 << 19) == pytest.approx((1 << 19) / 64, rel=1e-3)


def test_profile_is_gzip_of_pprof(run_python: RunPython, tmp_path: Path) -> None:
    """The bytes given are a gzip member that the profile model reads."""
    out = tmp_path / "heap.pb.gz"
    run_python(
        """
        import sys
        from stanch import sampler
        sampler.start(interval_bytes=1000, service="shop")
        keep = [bytes(100) for _ in range(1000)]
        open(sys.argv[1], "wb").write(sampler.heap_profile())
        """,
        out,
    )
    assert gzip.decompress(out.read_bytes())
    assert "service=shop" in parse(out.read_bytes()).comments
