"""Which source files are shown beside a profile, and that no name in a profile opens another."""

import os
from pathlib import Path

import pytest

from stanch.server.pages.source import Sources

TEXT = "one\ntwo\n\tthree\nfour\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory of source with what must not be shown in it and beside it."""
    root = tmp_path / "checkout"
    for name in ("shop/kept.py", "shop/.hidden.py", ".git/hook.py", "settings.toml", "shop/id_rsa"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TEXT)
    (tmp_path / "beside.py").write_text("secret\n")
    (root / "out.py").symlink_to(tmp_path / "beside.py")
    (root / "inside.py").symlink_to(root / "shop/kept.py")
    (root / "renamed.py").symlink_to(root / "settings.toml")
    (root / "hooked.py").symlink_to(root / ".git/hook.py")
    (root / "large.py").write_bytes(b"#" * 1_100_000)
    os.mkfifo(root / "pipe.py")
    return root


def texts(root: Path, file: str, first: int = 1, last: int = 99) -> list[str]:
    """What is shown of a file."""
    return [line.text for line in Sources([root / "gone", root]).lines(file, first, last)]


@pytest.mark.parametrize(
    "file", ["shop/kept.py", "/srv/app/shop/kept.py", "/checkout/kept/shop/kept.py", "inside.py"]
)
def test_a_file_is_found_by_ever_shorter_ends_of_its_name(root: Path, file: str) -> None:
    """A program seldom lies where it was deployed; lines are numbered from 1."""
    assert texts(root, file) == ["one", "two", "    three", "four"]
    assert [line.number for line in Sources([root]).lines(file, -3, 2)] == [1, 2]
    assert texts(root, file, 3, 3) == ["    three"]
    assert texts(root, file, 9, 12) == []


@pytest.mark.parametrize(
    "file",
    [
        "",
        "/",
        "kept.py",
        "shop",
        "../beside.py",
        "shop/../../beside.py",
        "shop/../shop/kept.py",
        "out.py",
        "renamed.py",
        "hooked.py",
        ".git/hook.py",
        "shop/.hidden.py",
        "settings.toml",
        "shop/id_rsa",
        "large.py",
        "pipe.py",
        "/etc/passwd",
        "a\0b.py",
        "x" * 5000 + ".py",
        "/".join(["deep"] * 2000) + "/shop/none.py",
    ],
)
def test_nothing_else_is_read(root: Path, file: str) -> None:
    """Names that lead out, hidden files, what is no source, what is too large or no file."""
    assert texts(root, file) == []


def test_at_most_some_lines_are_shown(root: Path) -> None:
    """A range that a profile claims is cut."""
    (root / "long.py").write_text("x\n" * 5000)
    assert len(texts(root, "long.py", 1, 10**9)) == 80
