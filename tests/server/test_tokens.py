"""Tokens: made, found, expired, taken back; nothing of the secret on the disk."""

import json
import stat
from pathlib import Path

import pytest

from stanch.server.tokens import FILE_NAME, ROLES, TokenError, Tokens, allows


def test_token_is_found_again(tmp_path: Path) -> None:
    """Another object over the same directory knows a token and its role."""
    text = Tokens(tmp_path).make("shop-agents", "push")
    found = Tokens(tmp_path).find(text)
    assert found is not None
    assert (found.name, found.role) == ("shop-agents", "push")


def test_secret_is_not_kept(tmp_path: Path) -> None:
    """The file has only a hash, and only its owner may read it."""
    text = Tokens(tmp_path).make("a", "admin")
    file = tmp_path / FILE_NAME
    assert text.split("_", 2)[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", lambda t: "", str.upper])
def test_wrong_token_is_not_found(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    """A token that differs in anything is unknown."""
    tokens = Tokens(tmp_path)
    assert tokens.find(change(tokens.make("a", "view"))) is None


def test_token_expires(tmp_path: Path) -> None:
    """A token is good until its time is over."""
    now = [1000.0]
    tokens = Tokens(tmp_path, lambda: now[0])
    text = tokens.make("a", "view", 60.0)
    now[0] = 1059.0
    assert tokens.find(text) is not None
    now[0] = 1060.0
    assert tokens.find(text) is None


def test_revoked_by_another_process(tmp_path: Path) -> None:
    """A token that is taken back elsewhere stops working in a server that runs."""
    running, other = Tokens(tmp_path), Tokens(tmp_path)
    text = other.make("a", "view")
    assert running.find(text) is not None
    assert other.take_back("a")
    assert running.find(text) is None
    assert not other.take_back("a")


def test_names(tmp_path: Path) -> None:
    """A name is used once, and one that would not be read back is refused."""
    tokens = Tokens(tmp_path)
    tokens.make("a", "view")
    for name in ("a", "", "a_b", "A", "x" * 64, "a b"):
        with pytest.raises(TokenError):
            tokens.make(name, "view")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"tokens": [{}]}', json.dumps({"tokens": [{"name": 1}]})]
)
def test_damaged_file(tmp_path: Path, content: str) -> None:
    """A damaged file lets nobody in, and the error names it."""
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(TokenError, match=FILE_NAME):
        Tokens(tmp_path)


def test_roles() -> None:
    """Admin may all; push and view may only what they are for."""
    allowed = {(role, wanted) for role in ROLES for wanted in ROLES if allows(role, wanted)}
    assert allowed == {
        ("push", "push"),
        ("view", "view"),
        ("admin", "push"),
        ("admin", "view"),
        ("admin", "admin"),
    }
