"""The block of samples: its rows come in the order of the table, and say what the profiles said."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.store.decoder import gather, gather_lists, order
from stanch.store.record import Numbers, Payload, Record
from stanch.store.rows import Decoding, decode_payloads
from stanch.store.sampleblock import rolled_block, samples_block
from stanch.store.schema import ROLLED, SAMPLES, Table
from stanch.store.sqlstore import SqlStore, open_store
from tests.store.pprofs import heap_bytes

HOUR_MS = 3_600_000
START_MS = 500_000 * HOUR_MS

row_keys = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**128 - 1)), max_size=200)


def ordered(keys: Sequence[tuple[int, int]]) -> list[int]:
    """The rows' numbers in the order of groups and stacks, each row a piece of its own."""
    stacks = [stack.to_bytes(16, "little") for _, stack in keys]
    places = np.frombuffer(order([group for group, _ in keys], 6, stacks), np.uint64)
    assert not (places & 0xFFFFFFFF).any()
    return (places >> 32).tolist()


@given(row_keys, st.randoms(use_true_random=False))
def test_rows_are_ordered_by_group_and_stack(
    keys: list[tuple[int, int]], chance: random.Random
) -> None:
    """As Python sorts them, and rows that are alike stay as they came."""
    keys += chance.choices(keys, k=len(keys)) if keys else []
    assert ordered(keys) == sorted(range(len(keys)), key=lambda row: keys[row])


def test_stacks_that_are_chosen_alike_take_no_more_time_than_others() -> None:
    """Names with the same first bits, backwards: each row comes once, whatever the order."""
    count = 200_000
    alike = [(0, (7 << 95) + number) for number in reversed(range(count))]
    assert sorted(ordered(alike)) == list(range(count))


def test_columns_that_do_not_fit_are_refused() -> None:
    """An order of other rows, or ends beyond the values, are an error and not a stray read."""
    with pytest.raises(ValueError, match="groups"):
        order([], 1, [bytes(16)])
    for group in (-1, 1):
        with pytest.raises(ValueError, match="not below 1"):
            order([group], 1, [bytes(16)])
    places = order([0, 0], 1, [bytes(32), bytes(16)])
    assert gather(places, [b"aaaabbbb", b"cccc"], 4) == b"aaaabbbbcccc"
    for column in ([b"aaaabbbb"], [b"aaaa", b"cccc"], [b"aaaabbbb", b"ccc"]):
        with pytest.raises(ValueError, match="not of these rows"):
            gather(places, column, 4)
    with pytest.raises(ValueError, match="not 3"):
        gather(places, [b"", b""], 3)
    one, two, most = (number.to_bytes(8, "little") for number in (1, 2, 2**63))
    assert gather_lists(places, [one + two, one], [b"ab", b"c"], 1) == (
        one + two + (3).to_bytes(8, "little") + b"abc"
    )
    for ends in ([one + two, two], [two + one, one], [one + most, one], [one, one], [one]):
        with pytest.raises(ValueError, match=r"not of these rows|pieces have ends"):
            gather_lists(places, ends, [b"ab", b"c"], 1)


def batch() -> list[Decoding]:
    """Profiles of some services, instances and hours in no order, some with the same stacks."""
    chance = random.Random(3)
    decoded = []
    for number in range(40):
        sizes = {f"f{chance.randrange(30)}": chance.randrange(1, 10**6) for _ in range(12)}
        data = heap_bytes(sizes, time_s=number)
        record = Record(
            service=chance.choice(("shop", "Shop", "büro", "a")),
            instance=chance.choice(("b-1", "b-10", "b-2", "ä")),
            life=chance.randrange(5),
            unix_ms=START_MS + chance.randrange(2 * HOUR_MS),
            age_s=60.0,
            numbers=Numbers(),
            payloads=(Payload(f"{number:032x}", "heap", data),),
            rolled=number % 3 == 0,
        )
        decoded.append(decode_payloads(record, set()))
    return decoded


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A store with tables that keep rows as they come."""
    directory: Path = tmp_path_factory.mktemp("store")
    with open_store("chdb", directory) as opened:
        for table in (SAMPLES, ROLLED):
            opened.engine.command(
                f"CREATE TABLE stanch.{table.name}_came AS stanch.{table.name} ENGINE = Memory"
            )
        yield opened


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (SAMPLES, "service, toStartOfHour(time), stack, instance, time"),
        (ROLLED, "service, life, stack, time"),
    ],
)
def test_rows_come_in_the_order_of_their_table(store: SqlStore, table: Table, key: str) -> None:
    """So the engine need not sort them; and each has the values of its stack."""
    assert key == table.order
    decoded = batch()
    block = (samples_block if table is SAMPLES else rolled_block)(decoded)
    assert block is not None
    store.engine.insert(replace(table, name=f"{table.name}_came"), block, "one")
    came = store.engine.query(f"SELECT {key} FROM {table.name}_came")
    expected = store.engine.query(f"SELECT {key} FROM {table.name}_came ORDER BY {key}")
    assert came == expected
    kept = [one for one in decoded if table is SAMPLES or one.record.rolled]
    stored = store.engine.query(
        "SELECT service, instance, life, toUnixTimestamp64Milli(time), stack, live_bytes,"
        f" arraySum(birth_bytes) FROM {table.name}_came"
    )
    wanted = [
        (one.record.service, one.record.instance, one.record.life, one.record.unix_ms, *values)
        for one in kept
        for values in values_of(one)
    ]
    assert sorted(stored) == sorted(wanted)
    assert len(stored) > 100


def values_of(one: Decoding) -> list[tuple[int, int, int]]:
    """Of each row the stack, the live bytes, and the live bytes that have a birth."""
    (rows,) = one.rows
    ends = [0, *np.frombuffer(rows.birth_ends, np.uint64).astype(int)]
    born = np.frombuffer(rows.birth_bytes, np.uint64)
    live = np.frombuffer(rows.live_bytes, np.uint64)
    return [
        (
            int.from_bytes(rows.stacks[16 * row : 16 * row + 16], "little"),
            int(live[row]),
            int(born[ends[row] : ends[row + 1]].sum()),
        )
        for row in range(rows.count)
    ]
