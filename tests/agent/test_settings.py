"""The table of settings: parsing, errors, and that every row is documented."""

import dataclasses
import inspect
from pathlib import Path

import pytest

import stanch
from stanch.agent.settings import (
    LISTEN_AUTO,
    SETTINGS,
    SettingError,
    Settings,
    from_environment,
    from_keywords,
)

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def test_every_setting_is_documented() -> None:
    """docs/settings.md has one row of its table for each setting, with all three names."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `--")]
    assert len(rows) == len(SETTINGS)
    for setting in SETTINGS:
        metavar = setting.metavar.replace("|", "\\|")
        option = f"{setting.option} {metavar}".strip()
        start = f"| `{option}` | `{setting.variable}` | `{setting.keyword}` |"
        assert any(row.startswith(start) for row in rows), start


def test_one_table_serves_all_three_ways() -> None:
    """The rows, the fields of Settings and the keywords of stanch.start are the same."""
    names = [setting.keyword for setting in SETTINGS]
    assert names == [field.name for field in dataclasses.fields(Settings)]
    assert names == list(inspect.signature(stanch.start).parameters)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("STANCH_INTERVAL", "262144", "interval", 262144),
        ("STANCH_INTERVAL", "256KiB", "interval", 262144),
        ("STANCH_INTERVAL", " 0.5 mib ", "interval", 524288),
        ("STANCH_LISTEN", "127.0.0.1:6060", "listen", "127.0.0.1:6060"),
        ("STANCH_LISTEN", "unix:/x/y.sock", "listen", "unix:/x/y.sock"),
        ("STANCH_LISTEN", "", "listen", LISTEN_AUTO),
        ("STANCH_PUSH", "https://x.example/push?a=b", "push", "https://x.example/push?a=b"),
        ("STANCH_PUSH_EVERY", "5m", "push_every", 300.0),
        ("STANCH_PUSH_EVERY", "15", "push_every", 15.0),
        ("STANCH_REQUESTS", "off", "requests", False),
        ("STANCH_CMDLINE", "on", "cmdline", True),
        ("STANCH_SERVICE", "shop", "service", "shop"),
        ("STANCH_NATIVE", "1", "native", True),
        ("STANCH_NATIVE", "0", "native", False),
        ("STANCH_TABLE", "/", "table", Path("/")),
    ],
)
def test_good_values(variable: str, text: str, field: str, value: object) -> None:
    """A text becomes the value it says; an empty one leaves the default."""
    settings = from_environment({variable: text}, listen=LISTEN_AUTO)
    assert getattr(settings, field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("STANCH_INTERVAL", "0"),
        ("STANCH_INTERVAL", "-5"),
        ("STANCH_INTERVAL", "5GiB"),
        ("STANCH_INTERVAL", "nan"),
        ("STANCH_INTERVAL", "inf"),
        ("STANCH_INTERVAL", "1e400"),
        ("STANCH_TABLE", "/no/such/place/x.stanch"),
        ("STANCH_TABLE", "/proc/version"),
        ("STANCH_LISTEN", "unix:"),
        ("STANCH_LISTEN", "127.0.0.1:99999"),
        ("STANCH_TOKEN_FILE", "/no/such/file"),
        ("STANCH_PUSH", "x.example"),
        ("STANCH_PUSH", "http://x.example:99999/"),
        ("STANCH_PUSH", "https://user:secret@x.example/"),
        ("STANCH_PUSH", "http://x.example/a b"),
        ("STANCH_PUSH_EVERY", "0.1s"),
        ("STANCH_PUSH_EVERY", "nan"),
        ("STANCH_SERVICE", "a\nb"),
        ("STANCH_SERVICE", "x" * 121),
        ("STANCH_REQUESTS", "maybe"),
        ("STANCH_CMDLINE", "yes"),
    ],
)
def test_bad_values(variable: str, text: str) -> None:
    """A value that cannot be used is one sentence with the name, the value and what is expected."""
    with pytest.raises(SettingError) as caught:
        from_environment({variable: text}, listen=LISTEN_AUTO)
    message = str(caught.value)
    assert message.startswith(f"{variable} is {text!r}; expected ")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", "t\u00f6ken".encode(), b"x" * 5000])
def test_token_files_without_a_token(tmp_path: Path, content: bytes) -> None:
    """A token file that holds no usable token is refused."""
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingError, match="holds no token"):
        from_keywords({"token_file": tmp_path / "token"}, {})


def test_token_is_not_pushed_in_clear(tmp_path: Path) -> None:
    """A token goes over https or to this machine only."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    with pytest.raises(SettingError, match="in clear; use https"):
        from_keywords({"token_file": token, "push": "http://x.example/"}, {})
    for url in ("https://x.example/", "http://127.0.0.1:1/", "http://localhost/"):
        assert from_keywords({"token_file": token, "push": url}, {}).push == url


def test_keywords_win_and_take_plain_values() -> None:
    """Keywords take numbers, win over the environment, and name themselves in an error."""
    environ = {"STANCH_INTERVAL": "1", "STANCH_SERVICE": "shop"}
    settings = from_keywords({"interval": 4096, "push_every": 2.5, "service": ""}, environ)
    assert (settings.interval, settings.push_every, settings.service) == (4096, 2.5, "shop")
    assert settings.listen == "off"
    with pytest.raises(SettingError, match=r"^interval is '0'; expected bytes"):
        from_keywords({"interval": 0}, environ)
    with pytest.raises(SettingError, match=r"^STANCH_INTERVAL is 'x'"):
        from_keywords({}, {"STANCH_INTERVAL": "x"})
    with pytest.raises(SettingError, match="there is no setting colour"):
        from_keywords({"colour": "red"}, {})
