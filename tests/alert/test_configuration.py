"""The file of alarms: what it may say, and what is refused in which words."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stanch.alert.configuration import (
    RECEIVER_SETTINGS,
    SETTINGS,
    make_receivers,
    read_configuration,
)
from stanch.alert.lifecycle import Policy
from stanch.alert.receivers import DeliveryError
from stanch.collect.configuration import ConfigurationError
from tests.alert.test_messenger import message

ROOT = Path(__file__).resolve().parents[2]
WHOLE = """
fire_at = "probable"
hold = "30s"
resolve_after = "5m"
worse_factor = 3
worse_after = "1h"
link = "https://stanch.example/{service}"

[[receiver]]
type = "alertmanager"
url = "http://127.0.0.1:9093"

[[receiver]]
name = "shop's channel"
type = "webhook"
url_file = "URL_FILE"
services = ["shop", "pay*"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "alarms.toml"
    (tmp_path / "url").write_text("https://hooks.example/secret\n")
    path.write_text(text.replace("URL_FILE", str(tmp_path / "url")))
    return path


def test_all_keys_are_read(tmp_path: Path) -> None:
    """Policy, receivers and their services come out as written."""
    read = read_configuration(written(tmp_path, WHOLE))
    assert read.policy == Policy("probable", 30.0, 300.0, 86_400.0, 3.0, 3600.0)
    assert read.receivers_of("shop") == ("alertmanager", "shop's channel")
    assert read.receivers_of("payments") == ("alertmanager", "shop's channel")
    assert read.receivers_of("cart") == ("alertmanager",)
    assert read.receivers[1].url == "https://hooks.example/secret"
    assert "secret" not in repr(read)
    assert set(make_receivers(read, lambda: 0.0)) == {"alertmanager", "shop's channel"}


def test_an_empty_file_has_the_defaults(tmp_path: Path) -> None:
    """Nobody is told, and alarms are kept all the same."""
    read = read_configuration(written(tmp_path, ""))
    assert read.policy == Policy()
    assert read.receivers_of("shop") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "is no TOML"),
        ("fire_at = 'sure'", "fire_at is 'sure'; expected one of suspect, probable, confirmed"),
        ("hold = 'long'", "hold: 'long' is not a duration"),
        ("worse_factor = 1", "worse_factor is 1; expected a number above 1"),
        ("worse_factor = true", "worse_factor is True"),
        ("reciever = 1", "'reciever' is not known; expected fire_at"),
        ("receiver = 1", "receivers are [[receiver]] tables"),
        ("[[receiver]]\nurl = 'x'", "type is None; expected one of alertmanager"),
        ("[[receiver]]\ntype = 'webhook'", "receiver webhook: expected one of url and url_file"),
        ("[[receiver]]\ntype = 'webhook'\nurl = 'x'", "must begin with http"),
        ("[[receiver]]\ntype = 'webhook'\nurl_file = '/no/such'", "cannot read /no/such"),
        ("[[receiver]]\ntype = 'webhook'\nurl = 'http://x'\nlevel = 1", "receiver: 'level'"),
        ("[[receiver]]\ntype = 'webhook'\nurl = 'http://x'\nservices = 'a'", "a list of names"),
        ("[[receiver]]\ntype = 'webhook'\nurl = 'http://x'\n" * 2, "two receivers are called"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    """It names the file, the key and what is expected."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as error:
        read_configuration(path)
    assert str(error.value).startswith((f"{path}: ", f"{path} is"))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("type = 'apprise'\nurl = 'nonsense://x'", "receiver apprise: apprise cannot use this"),
        ("type = 'webhook'\nurl = 'https://x'\nca = '/no/such'", "receiver webhook: cannot use ca"),
        ("type = 'webhook'\nurl = 'https://x'\ntoken_file = '/no/such'", "cannot read /no/such"),
    ],
)
def test_receivers_that_cannot_be_made(tmp_path: Path, lines: str, says: str) -> None:
    """What only shows when they are made is said with the receiver's name."""
    read = read_configuration(written(tmp_path, f"[[receiver]]\n{lines}"))
    with pytest.raises(ConfigurationError) as error:
        make_receivers(read, lambda: 0.0)
    assert says in str(error.value)


def test_a_rotated_token_is_taken_up(tmp_path: Path) -> None:
    """The token file is read for each message, and one that is gone is a failed delivery."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        token = tmp_path / "token"
        token.write_text("first\n")
        lines = f"type = 'webhook'\nurl = 'http://127.0.0.1:{server.server_port}/'\n"
        path = written(tmp_path, f"[[receiver]]\n{lines}token_file = '{token}'")
        (receiver,) = make_receivers(read_configuration(path), lambda: 0.0).values()
        receiver.send(message(), uncertain=False)
        token.write_text("second\n")
        receiver.send(message(), uncertain=False)
        token.unlink()
        with pytest.raises(DeliveryError, match=r"cannot read .*token"):
            receiver.send(message(), uncertain=False)
        receiver.close()
        server.shutdown()
        thread.join(30)
    assert seen == ["Bearer first", "Bearer second"]


def test_every_key_is_documented() -> None:
    """docs/alarms.md has a row for each key, with its default."""
    lines = (ROOT / "docs/alarms.md").read_text().splitlines()
    for setting in (*SETTINGS, *RECEIVER_SETTINGS):
        assert any(
            line.startswith(f"| `{setting.name}` | {setting.default} | {setting.help} |")
            or (
                not setting.default and line.startswith(f"| `{setting.name}` |  | {setting.help} |")
            )
            for line in lines
        ), setting.name
