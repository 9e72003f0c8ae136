"""Who may read: wide addresses, tokens, TLS, Host headers, rates and one profile at a time."""

import logging
import ssl
import subprocess
from pathlib import Path
from shutil import which

import pytest

from stanch.agent.endpoint import EndpointError, EndpointOptions
from stanch.agent.exchange import AnswerError
from stanch.agent.security import Gate, RateLimit, check_listen, tls_context

from .serving import get, loopback, on_socket, serving

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    if which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return cert, key


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_wide_address_needs_token_and_tls(listen: str, token: str | None) -> None:
    """What other machines can reach is refused without a token and TLS, in a sentence."""
    with pytest.raises(EndpointError, match="TLS"):
        check_listen(EndpointOptions(listen=listen, token=token))


def test_a_wide_address_without_token_is_refused(certificate: tuple[Path, Path]) -> None:
    """TLS alone lets everybody read, and a short token nearly so: both are refused."""
    cert, key = certificate
    with pytest.raises(EndpointError, match="no token"):
        check_listen(EndpointOptions(listen="0.0.0.0:0", tls_cert=cert, tls_key=key))
    with pytest.raises(EndpointError, match="5 characters"):
        check_listen(EndpointOptions("0.0.0.0:0", token="short", tls_cert=cert, tls_key=key))


def test_a_wide_address_with_both_is_allowed(certificate: tuple[Path, Path]) -> None:
    """A token and TLS allow every interface."""
    cert, key = certificate
    options = EndpointOptions("0.0.0.0:0", token=TOKEN, tls_cert=cert, tls_key=key)
    assert check_listen(options).host == "0.0.0.0"


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/tmp/x.sock"])
def test_what_stays_on_this_machine_needs_neither(listen: str) -> None:
    """Loopback and unix sockets are allowed as they are."""
    check_listen(EndpointOptions(listen=listen))


@pytest.mark.parametrize("more", [{"token": " "}, {"tls_cert": Path("cert.pem")}])
def test_half_a_configuration_is_refused(more: dict[str, object]) -> None:
    """An empty token, and a certificate without its key, are errors even on loopback."""
    with pytest.raises(EndpointError):
        check_listen(loopback(**more))


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    """A file that is no certificate is one sentence that names it."""
    bad = tmp_path / "bad.pem"
    bad.write_text("not a certificate")
    with pytest.raises(EndpointError, match=r"bad\.pem"):
        tls_context(loopback(tls_cert=bad, tls_key=bad))


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_without_the_token_nothing_is_told(header: str | None) -> None:
    """A missing or wrong token is a 401 that says how to give it, whatever the path."""
    with serving(loopback(token=TOKEN)) as endpoint:
        for path in ("/debug/pprof/", "/metrics", "/nowhere"):
            reply = get(endpoint.address, path, {} if header is None else {"Authorization": header})
            assert reply.status == 401 and "Authorization: Bearer" in reply.text
            assert reply.headers["www-authenticate"].startswith("Bearer")


def test_the_token_opens() -> None:
    """The right token is let in."""
    with serving(loopback(token=TOKEN)) as endpoint:
        header = {"Authorization": f"Bearer {TOKEN}"}
        assert get(endpoint.address, "/metrics", header).status == 200


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost", 200),
        ("localhost:6060", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:6060", 200),
        ("evil.example", 403),
        ("evil.example:6060", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_a_name_that_is_not_ours_is_refused(name: str, status: int) -> None:
    """On loopback the Host header has to be local, so a rebound name of a web page is refused."""
    with serving(loopback()) as endpoint:
        assert get(endpoint.address, "/metrics", {"Host": name}).status == status


def test_pages_of_other_sites_are_refused() -> None:
    """A browser that asks for another site's page is refused."""
    with serving(loopback()) as endpoint:
        reply = get(endpoint.address, "/metrics", {"Sec-Fetch-Site": "cross-site"})
        assert reply.status == 403


def test_tls_serves_and_plain_text_is_not_answered(certificate: tuple[Path, Path]) -> None:
    """With a certificate the endpoint speaks TLS 1.2 or later and nothing else."""
    cert, key = certificate
    client = ssl.create_default_context(cafile=str(cert))
    with serving(loopback(token=TOKEN, tls_cert=cert, tls_key=key)) as endpoint:
        header = {"Authorization": f"Bearer {TOKEN}"}
        assert get(endpoint.address, "/metrics", header, tls=client).status == 200
        with pytest.raises(OSError):
            get(endpoint.address, "/metrics", header)
        context = tls_context(loopback(tls_cert=cert, tls_key=key))
        assert context is not None and context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_values_are_refused_where_other_machines_can_ask(certificate: tuple[Path, Path]) -> None:
    """A listener on every interface never shows keys of containers, with the token neither."""
    cert, key = certificate
    client = ssl.create_default_context(cafile=str(cert))
    options = EndpointOptions("0.0.0.0:0", token=TOKEN, tls_cert=cert, tls_key=key)
    with serving(options) as endpoint:
        address = f"127.0.0.1:{endpoint.address.rpartition(':')[2]}"
        header = {"Authorization": f"Bearer {TOKEN}"}
        reply = get(address, "/debug/stanch/retention?values=1", header, tls=client)
    assert (reply.status, "local machine only" in reply.text) == (403, True), reply


def test_a_unix_socket_speaks_plain_text(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """Relatives share their settings and ask each other without TLS, though the listener has it."""
    cert, key = certificate
    with serving(on_socket(tmp_path, tls_cert=cert, tls_key=key)) as endpoint:
        assert get(endpoint.address, "/metrics").status == 200


def test_reads_beyond_the_rate_wait() -> None:
    """The bucket lets a burst through, then as many as its rate refills by the clock given."""
    now = [0.0]
    limit = RateLimit(lambda: now[0], per_second=2.0, at_once=3)
    assert [limit.take() for _ in range(4)] == [True, True, True, False]
    now[0] += 1.0
    assert [limit.take() for _ in range(3)] == [True, True, False]
    now[0] -= 100.0
    assert not limit.take()
    now[0] += 1000.0
    assert [limit.take() for _ in range(4)] == [True, True, True, False]


def test_a_flood_of_reads_is_answered_with_429(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint refuses reads beyond its rate and says when to come again."""
    monkeypatch.setattr("stanch.agent.endpoint.READS_AT_ONCE", 2)
    monkeypatch.setattr("stanch.agent.endpoint.READS_PER_SECOND", 0.0)
    with serving(loopback()) as endpoint:
        replies = [get(endpoint.address, "/debug/pprof/") for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert replies[2].headers["retry-after"] == "1"


def test_one_snapshot_and_one_measurement_at_a_time() -> None:
    """A second one is refused with 429, a snapshot during a measurement is not."""
    gate = Gate(wait_s=0.0)
    with gate.measurement(30.0):
        with gate.snapshot(), pytest.raises(AnswerError) as busy, gate.snapshot():
            pass
        assert busy.value.answer.status == 429
        with pytest.raises(AnswerError) as running, gate.measurement(1.0):
            pass
        assert running.value.answer.headers["Retry-After"] == "2"
    with gate.measurement(1.0), gate.snapshot():
        pass


def test_every_read_is_audited_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Each read is a line of the log stanch.audit and counts in the metrics, refused ones too."""
    with caplog.at_level(logging.INFO, "stanch.audit"), serving(loopback(token=TOKEN)) as endpoint:
        assert get(endpoint.address, "/debug/pprof/heap").status == 401
        header = {"Authorization": f"Bearer {TOKEN}"}
        assert get(endpoint.address, "/debug/pprof/heap?gc=1", header).status == 503
        metrics = get(endpoint.address, "/metrics", header).text
    lines = [record.getMessage() for record in caplog.records if record.name == "stanch.audit"]
    assert len(lines) == 3 and lines[0].endswith("'/debug/pprof/heap' {}: 401")
    assert lines[1].endswith("{'gc': '1'}: 503") and lines[0].startswith("127.0.0.1 port ")
    assert 'path="/debug/pprof/heap",status="401"} 1\n' in metrics
