"""Damaged and hostile table files, all through to what is made of them.

More of them by hand: pytest tests/core/test_tablefile_fuzz.py --longer 100
"""

import random
import struct
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.cli.autopsy import describe
from stanch.profile import encode, parse
from stanch.sampler import TableError, TableImage, read_table, table_profile, tablefile

MUTATIONS = 150
HEADER_WORDS = tablefile._FIXED.size // 4
SECTIONS_AT = tablefile._FIXED.size
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

VICTIM = """
    import os, signal, sys, threading
    from stanch import sampler
    sampler.start(interval_bytes=700, table=sys.argv[1], service="sh\\u00f6p")
    def work(depth):
        return [bytes(depth * 9)] + work(depth - 1) if depth else []
    kept = []
    threads = [threading.Thread(target=lambda: kept.extend(work(90))) for _ in range(3)]
    for each in threads:
        each.start()
        each.join()
    sampler.count_request()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give a small real table: its used parts, one after the other, as a snapshot has them."""
    path = tmp_path_factory.mktemp("fuzz") / "victim.stanch"
    program = textwrap.dedent(VICTIM)
    subprocess.run([sys.executable, "-c", program, path], timeout=120)
    whole = path.read_bytes()
    head, body = bytearray(whole[: tablefile.HEADER_BYTES]), bytearray()
    for number in range(len(tablefile._SECTIONS)):
        at = SECTIONS_AT + number * tablefile._SECTION.size
        offset, item_bytes, capacity, used, reserved = tablefile._SECTION.unpack_from(head, at)
        new = tablefile.HEADER_BYTES + len(body)
        body += whole[offset : offset + item_bytes * used]
        body += bytes(-len(body) % 8)
        tablefile._SECTION.pack_into(head, at, new, item_bytes, capacity, used, reserved)
    return bytes(head + body)


def use(data: bytes) -> TableImage | None:
    """Do with a table all that Stanch does; None when it is refused, and no other error."""
    try:
        image = read_table(data)
    except TableError as error:
        assert "\n" not in str(error)
        return None
    describe(image, Path("x.stanch"))
    profile = table_profile(image)
    assert parse(encode(profile)).samples == profile.samples
    return image


def test_the_table_that_is_damaged_below_is_whole(table: bytes) -> None:
    """Without the damage, all of it is read: also stacks near the victim's 90 calls, of which the
    very deepest may happen not to be sampled."""
    image = use(table)
    assert image is not None and image.torn == 0 and len(image.entries) > 50
    assert max(len(stack.frames) for stack in image.stacks) > 60


def test_words_changed_at_random(table: bytes, longer: int) -> None:
    """Words of the header and the sections, set to extremes or at random, one or several."""
    chance = random.Random(11)
    refused = 0
    for _ in range(MUTATIONS * longer):
        data = bytearray(table)
        for _ in range(chance.choice((1, 1, 2, 5))):
            words = HEADER_WORDS + 8 * 6 if chance.random() < 0.6 else len(data) // 4
            word = chance.choice((*EXTREMES, chance.getrandbits(32)))
            struct.pack_into("<I", data, 4 * chance.randrange(3, words), word)
        refused += use(bytes(data)) is None
    assert 0 < refused < MUTATIONS * longer


def test_each_bit_of_the_header(table: bytes, longer: int) -> None:
    """Each single bit of the header's numbers, flipped."""
    bits = range(0, 8 * (SECTIONS_AT + 8 * tablefile._SECTION.size), 1 if longer > 1 else 13)
    for bit in bits:
        data = bytearray(table)
        data[bit // 8] ^= 1 << bit % 8
        use(bytes(data))


def test_every_length(table: bytes, tmp_path: Path) -> None:
    """Cut off anywhere, as bytes and as a file, it is refused or, past its last item, read."""
    file = tmp_path / "cut.stanch"
    whole = use(table)
    lengths = (*range(0, 4200, 61), *range(4200, len(table), len(table) // 40))
    for length in lengths:
        cut = use(table[:length])
        assert cut is None or (length == lengths[-1] and cut == whole)
        file.write_bytes(table[:length])
        if cut is not None:
            assert read_table(file) == whole
            continue
        with pytest.raises(TableError):
            read_table(file)
    assert use(table + bytes(9000)) is not None


@settings(max_examples=60)
@given(data=st.data())
def test_parts_moved_about(table: bytes, data: st.DataObject) -> None:
    """Sections that overlap each other, the header and the end."""
    changed = bytearray(table)
    for number in range(len(tablefile._SECTIONS)):
        at = SECTIONS_AT + number * tablefile._SECTION.size
        offset, *rest = tablefile._SECTION.unpack_from(changed, at)
        if data.draw(st.booleans()):
            offset = data.draw(st.integers(0, len(table) + 100))
            rest[2] = data.draw(st.integers(0, 2000))
        tablefile._SECTION.pack_into(changed, at, offset, *rest)
    use(bytes(changed))


def test_claims_cost_no_more_than_the_file(table: bytes) -> None:
    """Many long stacks and texts that share their bytes are cut: memory stays in bounds."""
    stacks, functions = 20_000, 16_000
    head = bytearray(table[: tablefile.HEADER_BYTES])
    body = bytearray(b"x" * 65_536)
    sections = {"strings": (0, 65_536)}
    for name, item, count in (
        ("functions", tablefile._FUNCTION.pack(0, 0, 65_535, 65_535, 1), functions),
        ("frames", tablefile._FRAME.pack(1, 1), 1000),
        ("stack_frames", struct.pack("<I", 1), 1000),
        ("stacks", tablefile._STACK.pack(0, 1 << 31, 1.0, 1.0), stacks),
        ("entries", tablefile._ENTRY.pack(1, 1 << 46, 0, 0, 1, 1, 0, 0), 1000),
        ("mappings", tablefile._MAPPING.pack(0, 0, 0, 0, 0, 65_535, 65_535, 0), 2000),
        ("labels", tablefile._LABEL.pack(0, 0, 65_535, 65_535), 2000),
    ):
        sections[name] = (len(body), count)
        body += item * count
        body += bytes(-len(body) % 8)
    for number, name in enumerate(tablefile._SECTIONS):
        offset, count = sections[name]
        at = SECTIONS_AT + number * tablefile._SECTION.size
        item_bytes = tablefile._ITEM_BYTES[name]
        tablefile._SECTION.pack_into(
            head, at, offset + tablefile.HEADER_BYTES, item_bytes, count, count, count
        )
    tracemalloc.start()
    image = use(bytes(head + body))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image is not None and image.torn == 998
    assert sum(len(stack.frames) for stack in image.stacks) == 1000
    assert peak_bytes < 500 << 20, peak_bytes


def test_too_many_items_are_refused(table: bytes) -> None:
    """A section beyond any bound is refused before it is read."""
    head = bytearray(table[: tablefile.HEADER_BYTES])
    at = SECTIONS_AT + 7 * tablefile._SECTION.size
    count = tablefile.MAX_ITEMS + 1
    size = tablefile._LABEL.size
    tablefile._SECTION.pack_into(head, at, tablefile.HEADER_BYTES, size, count, count, count)
    with pytest.raises(TableError, match="section of labels"):
        read_table(bytes(head) + bytes(size * count))
