"""`stanch list`: finding the source, and what is printed where it cannot be found."""

import os
from pathlib import Path

import pytest

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode
from tests.cli.command import stanch

SOURCE = "\n".join(f"line {number}" for number in range(1, 41))


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile of /app/shop/cart.py: a function from line 20 that holds memory at line 22."""
    function = Function("Cart.add", filename="/app/shop/cart.py", start_line=20)
    caller = Function("checkout", filename="/app/shop/cart.py")
    stack = (Location(lines=(Line(function, 22),)), Location(lines=(Line(caller, 31),)))
    path = tmp_path / "heap.pb.gz"
    path.write_bytes(encode(Profile((ValueType("space", "bytes"),), (Sample(stack, (2048,)),))))
    return path


def test_the_source_is_found_by_the_end_of_its_path(profile: Path, tmp_path: Path) -> None:
    """A checkout elsewhere than in the container serves, and the listing starts at the `def`."""
    checkout = tmp_path / "src" / "shop"
    checkout.mkdir(parents=True)
    (checkout / "cart.py").write_text(SOURCE)
    lines = stanch("list", "Cart", f"-source_path={tmp_path / 'src'}", profile).out.splitlines()
    assert lines[:3] == [
        "Total: 2kB",
        "ROUTINE ======================== Cart.add in /app/shop/cart.py",
        "       2kB        2kB (flat, cum)   100% of Total",
    ]
    assert [line.split() for line in lines[3:]] == [
        [
            "2kB" if number == 22 else ".",
            "2kB" if number == 22 else ".",
            f"{number}:line",
            f"{number}",
        ]
        for number in range(20, 28)
    ]


def test_a_prefix_can_be_trimmed(profile: Path, tmp_path: Path) -> None:
    """-trim_path cuts the beginning off, and the rest is looked for in the source path."""
    (tmp_path / "cart.py").write_text(SOURCE)
    outcome = stanch(
        "list", "checkout", f"-source_path={tmp_path}", "-trim_path=/app/shop", profile
    )
    assert "         .        2kB     31:line 31" in outcome.out


def test_missing_source_leaves_the_numbers(profile: Path, tmp_path: Path) -> None:
    """Without the source, the lines that hold something are listed all the same."""
    out = stanch("list", "Cart", f"-source_path={tmp_path}", profile).out
    assert "No source file /app/shop/cart.py here or below" in out
    assert "       2kB        2kB     22:" in out


def test_another_version_of_the_source_is_told(profile: Path, tmp_path: Path) -> None:
    """A file too short for the profile's lines is not shown as if it fitted."""
    (tmp_path / "cart.py").write_text("line 1\n")
    out = stanch("list", "Cart", f"-source_path={tmp_path}", profile).out
    assert "The source found has 1 lines, so it is another version" in out


def test_what_is_no_regular_file_is_not_read(profile: Path, tmp_path: Path) -> None:
    """A profile that names a pipe as its source cannot make the report wait for ever."""
    os.mkfifo(tmp_path / "cart.py")
    out = stanch("list", "Cart", f"-source_path={tmp_path}", profile).out
    assert "No source file /app/shop/cart.py" in out


def test_recursion_counts_once_in_the_total_of_a_function(tmp_path: Path) -> None:
    """A recursive function's cum is at most the total, though each line has its own."""
    function = Function("walk", filename="walk.py")
    stack = tuple(Location(lines=(Line(function, line),)) for line in (3, 4, 3, 4))
    path = tmp_path / "heap.pb.gz"
    path.write_bytes(encode(Profile((ValueType("space", "bytes"),), (Sample(stack, (1024,)),))))
    out = stanch("list", "walk", path).out
    assert "       1kB        1kB (flat, cum)   100% of Total" in out
    assert "         .        1kB      4:" in out
