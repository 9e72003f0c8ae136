"""The server's file of settings, and when a server may run with it."""

from pathlib import Path

import pytest

from stanch.collect.configuration import ConfigurationError
from stanch.server.configuration import SETTINGS, ServerConfiguration, checked, read_server_file

ROOT = Path(__file__).parents[2]


def read(tmp_path: Path, text: str) -> ServerConfiguration:
    """What a file of this text gives."""
    file = tmp_path / "server.toml"
    file.write_text(text)
    return read_server_file(file, ServerConfiguration(tmp_path))


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    """Keys of the file become settings; the others keep their defaults."""
    more = 'every = "2m"\nlifetime = "1m"\n'
    found = read(tmp_path, f'listen = "[::1]:9"\ntargets = ["a", "b"]\n{more}')
    assert found.address == ("::1", 9)
    assert (found.targets, found.every_s, found.store) == (("a", "b"), 120.0, "chdb")
    assert (found.lifetime_s, found.name) == (60.0, "")
    assert not found.needs_token


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lisen = 'x'", "'lisen' is not known"),
        ("targets = 'x'", "expected a list"),
        ("require_tokens = 1", "expected true or false"),
        ("every = 'soon'", "every:"),
        ("listen = 3", "expected a text"),
        ("listen =", "is no TOML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, said: str) -> None:
    """A wrong key or value is told with the file's name."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        read(tmp_path, text)
    assert "server.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "has_tokens", "said"),
    [
        ({"listen": "0.0.0.0:1"}, False, r"needs TLS .* and a token"),
        ({"listen": "0.0.0.0:1"}, True, r"needs TLS"),
        ({"tls_cert": Path("c")}, True, "only one"),
        ({"require_tokens": True}, False, "there is no token"),
        ({"listen": "here"}, True, "expected HOST:PORT"),
        ({"every_s": 0.0}, True, "at least"),
        ({"lifetime_s": 1.0}, True, "at least 3s"),
        (
            {"lease": "stanch", "store": "https://me:secret@db:8443"},
            True,
            "those that share db:8443 divide the services",
        ),
    ],
)
def test_what_is_refused(
    tmp_path: Path, changes: dict[str, object], has_tokens: bool, said: str
) -> None:
    """A server that others could reach unasked, or that cannot be run, does not start."""
    configuration = ServerConfiguration(tmp_path, **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=said):
        checked(configuration, has_tokens)


def test_every_setting_is_documented() -> None:
    """docs/server.md has a row for each key, with its default."""
    lines = (ROOT / "docs/server.md").read_text().splitlines()
    for setting in SETTINGS:
        assert any(
            line.startswith(f"| `{setting.name}` | {setting.default} |") for line in lines
        ), setting.name
