"""Names of native code: from real libraries, and nothing from damaged or exchanged ones."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from stanch.sampler.symbols import Symbols
from stanch.sampler.tablefile import NativeFrame, TableMapping


def place(path: Path, function: str, build_id: str | None = None) -> NativeFrame:
    """Say where a function is, as binutils tell it, were the library mapped at 0x10000."""
    tools = [["nm", path], ["readelf", "-lW", path], ["readelf", "-nW", path]]
    symbols, programs, notes = (
        subprocess.run(tool, capture_output=True, text=True, check=True).stdout for tool in tools
    )
    line = next(one for one in symbols.splitlines() if one.endswith(f" {function}"))
    address = int(line.split()[0], 16)
    code = next(one.split() for one in programs.splitlines() if "LOAD" in one and " R E " in one)
    offset, start = int(code[1], 16), int(code[2], 16)
    if build_id is None:
        build_id = notes.partition("Build ID: ")[2].split()[0]
    mapping = TableMapping(0x10000, 0x20000, offset, str(path), build_id)
    return NativeFrame(mapping, address - start + 5)


@pytest.fixture
def library(blocks: Path, tmp_path: Path) -> Path:
    if shutil.which("readelf") is None:
        pytest.skip("no binutils here")
    return Path(shutil.copy(blocks, tmp_path / "library.so"))


def test_functions_are_named(library: Path) -> None:
    """Static and exported functions are named; a place between functions is not."""
    frames = [place(library, name) for name in ("make_node", "keep_nodes", "churn")]
    nowhere = NativeFrame(frames[0].mapping, 0xFFFF)
    names = Symbols().names([*frames, nowhere])
    assert [names[frame] for frame in frames] == ["make_node", "keep_nodes", "churn"]
    assert names[nowhere] is None


def test_a_stripped_library_names_what_it_exports(library: Path) -> None:
    """Without .symtab the dynamic symbols serve: static functions have no name then."""
    static, exported = place(library, "make_node"), place(library, "keep_nodes")
    subprocess.run(["strip", library], check=True)
    names = Symbols().names([static, exported])
    assert (names[static], names[exported]) == (None, "keep_nodes")


def test_another_file_of_the_same_name_names_nothing(library: Path) -> None:
    """A library that was upgraded, is gone, or has no build id gives no names at all."""
    frame = place(library, "churn")
    for build_id in ("", "00" * 20):
        assert Symbols().names([place(library, "churn", build_id)]) == {
            place(library, "churn", build_id): None
        }
    library.unlink()
    assert Symbols().names([frame]) == {frame: None}


def test_names_are_remembered(library: Path) -> None:
    """What was looked up once is known without the file."""
    frame, symbols = place(library, "churn"), Symbols()
    symbols.names([frame])
    library.unlink()
    assert symbols.names([frame]) == {frame: "churn"}


def test_damaged_files_raise_nothing(library: Path) -> None:
    """Whatever byte of the headers is wrong, and wherever the file ends, there is an answer."""
    good = library.read_bytes()
    frame = place(library, "churn")
    sections = struct.unpack_from("<Q", good, 40)[0]
    answers = set()
    for at in [*range(64), *range(64, 400, 7), *range(sections, len(good), 11)]:
        for value in (0, 0xFF):
            library.write_bytes(good[:at] + bytes([value]) + good[at + 1 :])
            answers.add(Symbols().names([frame])[frame])
    for end in range(0, len(good), 397):
        library.write_bytes(good[:end])
        answers.add(Symbols().names([frame])[frame])
    assert {None, "churn"} <= answers
    library.write_bytes(good)
    assert Symbols().names([frame])[frame] == "churn"


def test_no_regular_file(tmp_path: Path) -> None:
    """A directory, or a path with a NUL, is not a library and does not keep anybody waiting."""
    for path in (str(tmp_path), "/x\0y", "relative.so"):
        frame = NativeFrame(TableMapping(0, 1, 0, path, "ab"), 0)
        assert Symbols().names([frame]) == {frame: None}
