"""E-mail, chat and PagerDuty by way of apprise, against local servers."""

import base64
import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from typing import Any

import apprise
import numpy as np
import pytest

from stanch.alert.alarm import Alarm
from stanch.alert.lifecycle import Policy, follow
from stanch.alert.message import Message, message_from_json, message_to_json
from stanch.alert.picture import memory_chart
from stanch.alert.receivers import DeliveryError
from stanch.alert.receivers.messenger import MessengerReceiver, card_text
from tests.alert.samples import leak, webhook


def message(news: str = "firing", picture: bytes = b"") -> Message:
    """A message about a leak in the shop."""
    alarm, _ = follow(None, leak(), None, 1.7e9, Policy())
    assert isinstance(alarm, Alarm)
    alarm = replace(alarm, picture=base64.b64encode(picture).decode(), link="http://stanch/f/1")
    return Message("key-1-1", news, alarm, 1.7e9 + 90, "")  # type: ignore[arg-type]


@dataclass
class Mailbox:
    """A local SMTP server; `refuse` is what it answers to a recipient, when set."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    refuse: str = ""


@contextmanager
def smtp() -> Iterator[Mailbox]:
    """Serve as much of SMTP as a client needs to deliver, on loopback."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 localhost")
            while line := self.rfile.readline().decode().strip():
                verb = line.split()[0].upper()
                if verb == "DATA":
                    self.say("354 go on")
                    self.take()
                    self.say("250 taken")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                elif verb == "RCPT" and box.refuse:
                    self.say(box.refuse)
                else:
                    self.say("250 localhost")

        def take(self) -> None:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.removeprefix(b"."))
            mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            box.mails.append(mail)

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    box = Mailbox()
    with Server(("127.0.0.1", 0), Handler) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield box
        server.shutdown()
        thread.join(30)


def mail_url(box: Mailbox) -> str:
    return f"mailto://127.0.0.1:{box.port}?from=stanch@shop.example&to=ann@shop.example"


def chart() -> bytes:
    seconds = np.arange(0.0, 60.0, 2.5)
    drawn = memory_chart(seconds, 5e7 + 1e6 * seconds, 1.6e8, 110.0)
    assert drawn is not None
    return drawn


def test_an_e_mail_has_the_sentence_the_link_and_the_chart() -> None:
    """Subject, text, link and PNG arrive, and the key as a header."""
    with smtp() as box:
        MessengerReceiver(mail_url(box)).send(message(picture=chart()), uncertain=False)
    (mail,) = box.mails
    assert "leak (confirmed) in shop" in mail["Subject"]
    assert mail["X-Stanch-Key"] == "key-1-1"
    body = mail.get_body(("plain", "html"))
    assert body is not None
    text = body.get_content()
    assert "at its limit in 47 s" in text
    assert "http://stanch/f/1" in text
    assert "repetition" not in text
    pictures = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert [part.get_content() for part in pictures] == [chart()]


def test_a_repetition_says_so() -> None:
    """Where nobody can tell whether a message arrived before, its first line says that."""
    with smtp() as box:
        MessengerReceiver(mail_url(box)).send(message("resolved"), uncertain=True)
    body = box.mails[0].get_body(("plain", "html"))
    assert body is not None
    assert "Perhaps a repetition" in body.get_content()
    assert "It is over after 90 s" in body.get_content()


def test_what_is_refused_is_an_error_without_secrets() -> None:
    """A refusal and a server that is away are DeliveryErrors that do not show the URL."""
    with smtp() as box:
        box.refuse = "550 no such user"
        receiver = MessengerReceiver(f"{mail_url(box)}&user=bob&pass=topsecret")
        with pytest.raises(DeliveryError) as refused:
            receiver.send(message(), uncertain=False)
    with pytest.raises(DeliveryError) as away:
        receiver.send(message(), uncertain=False)
    for error in (refused.value, away.value):
        assert "topsecret" not in str(error)
        assert not error.final


def test_a_json_hook_by_apprise() -> None:
    """Any of apprise's services is told by its URL."""
    with webhook() as hook:
        url = hook.url.replace("http://", "json://")
        MessengerReceiver(url).send(message(), uncertain=False)
        MessengerReceiver(url).send(message("marked"), uncertain=False)
    assert [posted.body["type"] for posted in hook.posted] == ["failure", "info"]
    assert hook.posted[0].body["title"].startswith("[FIRING] leak")


def test_pagerduty_in_europe_and_what_the_url_says_itself() -> None:
    """What a URL says counts, but for the dedup key and what is to be done with it."""
    url = "pagerduty://integration123456789012@apikey1234567890/node-7?region=eu&dedup=x&click=y"
    service: Any = apprise.Apprise.instantiate(MessengerReceiver(url)._for(message("resolved")))
    assert service.dedup == f"stanch-{leak().fingerprint}-1"
    assert (service.action, service.region_name) == ("resolve", "eu")
    assert (service.source, service.click, service.class_id) == ("node-7", "y", "leak")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("shop/the_app.py __init__", r"shop/the_app.py \_\_init\_\_"),
        ("one\ntwo\n\nthree", "one\n\ntwo\n\nthree"),
        ("def *args and `x`", r"def \*args and \`x\`"),
        ("http://stanch/f_1?a=b", "[http://stanch/f_1?a=b](http://stanch/f_1?a=b)"),
    ],
)
def test_a_card_shows_a_text_as_it_is(text: str, shown: str) -> None:
    """Names with underscores are no emphasis, each line is a line, and a link is one."""
    assert card_text(text) == shown


def test_a_url_that_apprise_does_not_know_is_refused_without_showing_it() -> None:
    """The error names the scheme only."""
    with pytest.raises(ValueError, match="nonsense://") as error:
        MessengerReceiver("nonsense://secret-token/")
    assert "secret-token" not in str(error.value)


def test_a_message_is_the_same_after_json() -> None:
    """What lies in the outbox comes back equal."""
    assert message_from_json(message_to_json(message(picture=b"png"))) == message(picture=b"png")


@pytest.mark.parametrize(
    ("seconds", "memory", "drawn"),
    [
        ([], [], False),
        ([1.0], [5.0], False),
        ([1.0, 2.0], [float("nan"), 5.0], False),
        ([1.0, 1.0], [5.0, 5.0], False),
        ([1.0, 2.0], [0.0, 0.0], True),
        ([1.0, 2.0, 3.0], [5.0, float("nan"), 7.0], True),
    ],
)
def test_a_chart_needs_two_points(seconds: list[float], memory: list[float], drawn: bool) -> None:
    """Too little to draw is no picture rather than an error."""
    png = memory_chart(np.array(seconds), np.array(memory), None, None)
    assert (png is not None) is drawn
    assert png is None or png.startswith(b"\x89PNG")
