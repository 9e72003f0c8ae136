"""The arithmetic of an account: rows that add up to RSS, whatever the sources claim."""

import json

from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.breakdown import SORTS, breakdown, from_json, to_json, total
from stanch.sampler.memory import Estimate, HeapMemory, MallocMemory, ProcessMemory

MIB = 1 << 20

_SIZES = st.integers(0, 1 << 44)
_ESTIMATES = st.builds(Estimate, st.floats(0, 1e13), st.floats(0, 1e12))
_PROCESSES = st.builds(
    ProcessMemory, _SIZES, _SIZES, _SIZES, _SIZES, st.none() | _SIZES, st.none() | _SIZES
)
_HEAPS = st.builds(
    HeapMemory,
    _ESTIMATES,
    _ESTIMATES,
    st.none() | _ESTIMATES,
    _SIZES,
    st.none() | st.builds(MallocMemory, _SIZES, _SIZES, _SIZES),
)


@given(_PROCESSES, st.none() | _HEAPS, st.none() | _SIZES)
def test_rows_always_add_up(
    process: ProcessMemory, heap: HeapMemory | None, native: int | None
) -> None:
    """Whatever the sources claim, no row is negative and their sum is RSS; JSON keeps it all."""
    account = breakdown(process, heap, native)
    assert all(row.bytes >= 0 for row in account.rows)
    assert sum(row.bytes for row in account.rows) == account.rss_bytes == process.rss_bytes
    assert account.overshoot_bytes >= 0 and account.untouched_bytes >= 0
    kinds = [row.kind for row in account.rows]
    assert kinds == [kind for kind in SORTS if kind in kinds]
    assert ("native_live" in kinds) == (heap is not None and native is not None)
    assert from_json(json.loads(json.dumps(to_json(account)))) == account
    both = total([account, account])
    assert both.rss_bytes == 2 * account.rss_bytes == sum(row.bytes for row in both.rows)


def test_native_samples_are_told_apart_from_the_rest_of_malloc() -> None:
    """With native samples their blocks have a row, and the other one is what they leave."""
    heap = HeapMemory(
        small=Estimate(0, 0),
        large=Estimate(10 * MIB, 0),
        native=Estimate(25 * MIB, MIB),
        arena_bytes=0,
        malloc=MallocMemory(40 * MIB, 5 * MIB, 0),
    )
    process = ProcessMemory(60 * MIB, 0, 0, 0, 0, 45 * MIB)
    sizes = {row.kind: row.bytes // MIB for row in breakdown(process, heap, 25 * MIB).rows}
    assert (sizes["python_live"], sizes["native_live"], sizes["malloc_live"]) == (10, 25, 5)
    assert (sizes["malloc_free"], sizes["other"]) == (5, 15)


def test_an_estimate_beyond_what_there_is_is_cut_and_told() -> None:
    """Where the estimate claims more than there is memory, the excess is told, not hidden."""
    heap = HeapMemory(Estimate(80 * MIB, 0), Estimate(0, 0), None, 50 * MIB, None)
    account = breakdown(ProcessMemory(60 * MIB, 0, 0, 0), heap)
    sizes = {row.kind: row.bytes // MIB for row in account.rows}
    assert sizes["python_live"] == 60 and sizes["python_free"] == sizes["other"] == 0
    assert account.overshoot_bytes == 20 * MIB
