"""TLS, certificates, logins and what `check` tells the operator, against a real server."""

import asyncio
import socket
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from delivery.core.envelope import Envelope, Frame, Kind, Mailbox
from delivery.engines.smtp import SmtpEngine, SmtpSettings, Timeouts, validate
from delivery.engines.smtp.settings import is_loopback
from tests.delivery.smtp_server import serving

pytestmark = pytest.mark.once

SECRET = "pass-5f1c7a"
ENVELOPE = Envelope(
    "key",
    "id@shop.example",
    Frame(Mailbox("news@shop.example"), "bounces@shop.example"),
    Mailbox("one@y.example"),
    "Hi",
    "hello",
    "",
    datetime(2026, 1, 2, tzinfo=UTC),
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Self-signed certificates by name, each its own authority: (certificate, key) files."""
    folder = tmp_path_factory.mktemp("certificates")
    return {name: _self_signed(folder, name) for name in ("localhost", "other.example")}


def _self_signed(folder, name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, *plain))
    return tuple(map(str, paths))


def settings(server, **changes):
    return SmtpSettings(**{"host": "localhost", "port": server.port, "security": "none"} | changes)


def send(settings, times=1, run=asyncio.run):
    async def story():
        engine = SmtpEngine(settings, lambda envelope: b"Subject: x\r\n\r\nhello\r\n")
        outcomes = await asyncio.gather(*(engine.send([ENVELOPE]) for _ in range(times)))
        await engine.close()
        return [outcome for [outcome] in outcomes]

    return run(asyncio.wait_for(story(), 30))


def check(settings):
    findings = asyncio.run(asyncio.wait_for(SmtpEngine(settings, lambda envelope: b"").check(), 30))
    return [finding.words for finding in findings]


def tls(certificates, name, security):
    certificate, key = certificates[name]
    return {"tls": security, "certificate": certificate, "key": key}


LOGIN = {"username": "user", "password": SECRET}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_goes_over_tls_with_a_login(certificates, security, run):
    with serving(auth="PLAIN", **LOGIN, **tls(certificates, "localhost", security)) as server:
        wanted = settings(server, security=security, ca_file=certificates["localhost"][0], **LOGIN)

        assert [outcome.kind for outcome in send(wanted, times=5, run=run)] == [Kind.ACCEPTED] * 5
        assert check(wanted) == []
        assert len(server.accepted) == 5
        assert server.lines("login")[0]["right"] is True
        if security == "starttls":
            assert [line.partition(" ")[0] for line in server.commands()[:4]] == ["EHLO", "STARTTLS", "EHLO", "AUTH"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_large_mail_goes_over_tls(certificates, security):
    content = b"Subject: x\r\n\r\n" + b"line\r\n" * 500_000

    async def run(wanted):
        engine = SmtpEngine(wanted, lambda envelope: content)
        outcomes = await engine.send([ENVELOPE])
        await engine.close()
        return outcomes[0].kind

    with serving(**tls(certificates, "localhost", security)) as server:
        wanted = settings(server, security=security, verify=False)

        assert asyncio.run(asyncio.wait_for(run(wanted), 30)) is Kind.ACCEPTED
        assert [line["content"] for line in server.accepted] == [content]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_nobody_vouches_for_stops_the_engine(certificates, security):
    with serving(auth="PLAIN", **LOGIN, **tls(certificates, "localhost", security)) as server:
        wanted = settings(server, security=security, **LOGIN)

        [outcome] = send(wanted)
        [problem] = check(wanted)

        assert outcome.kind is Kind.ENGINE
        assert problem == outcome.text
        assert "self-signed certificate" in problem
        assert server.lines("login") == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_for_another_host_stops_the_engine_and_its_name_is_told(certificates, security):
    with serving(auth="PLAIN", **LOGIN, **tls(certificates, "other.example", security)) as server:
        wanted = settings(server, security=security, ca_file=certificates["other.example"][0], **LOGIN)

        [outcome] = send(wanted)
        [problem] = check(wanted)

        assert outcome.kind is Kind.ENGINE
        assert "Hostname mismatch" in problem
        assert problem.endswith("It is valid for other.example.")
        assert server.lines("login") == []


def test_an_unverified_certificate_may_be_accepted_by_setting(certificates):
    with serving(**tls(certificates, "other.example", "starttls")) as server:
        assert send(settings(server, security="starttls", verify=False))[0].kind is Kind.ACCEPTED


def test_without_starttls_nothing_is_sent_in_clear():
    with serving(auth="PLAIN", **LOGIN) as server:
        wanted = settings(server, security="starttls", **LOGIN)

        [outcome] = send(wanted)

        assert (outcome.kind, outcome.faults_engine) == (Kind.TRANSIENT, True)
        assert check(wanted) == ["The server does not offer STARTTLS."]
        assert {line.partition(" ")[0] for line in server.commands()} == {"EHLO"}


def test_a_refused_starttls_is_transient(certificates):
    faults = [{"at": "starttls", "say": "454 4.7.0 TLS not available\r\n"}]
    with serving(faults=faults, **tls(certificates, "localhost", "starttls")) as server:
        wanted = settings(server, security="starttls", verify=False)

        assert send(wanted)[0].kind is Kind.TRANSIENT
        assert check(wanted)[0].endswith("offers STARTTLS but refused it: 454 4.7.0 TLS not available")


def test_replies_injected_before_tls_are_dropped(certificates):
    faults = [{"at": "starttls", "say": "220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"}]
    with serving(faults=faults, **tls(certificates, "localhost", "starttls")) as server:
        [outcome] = send(settings(server, security="starttls", verify=False))

        # Either they came with the 220 and were forgotten, or they spoil the TLS handshake.
        assert outcome.kind in (Kind.ACCEPTED, Kind.TRANSIENT)
        assert len(server.accepted) == (outcome.kind is Kind.ACCEPTED)
        assert [line for line in server.commands() if line.startswith("AUTH")] == []


@pytest.mark.parametrize("offered", ["PLAIN LOGIN", "LOGIN", "XOAUTH2"])
def test_a_login_takes_what_the_server_offers(offered):
    with serving(auth=offered, **LOGIN) as server:
        assert send(settings(server, **LOGIN))[0].kind is Kind.ACCEPTED
        assert [line["mechanism"] for line in server.lines("login")] == [offered.split()[0]]


@pytest.mark.parametrize("offered", ["PLAIN", "LOGIN", "XOAUTH2"])
def test_a_refused_login_is_tried_once_for_all_and_shows_no_secret(offered, caplog):
    with serving(auth=offered, username="user", password="another") as server:
        wanted = settings(server, **LOGIN)

        outcomes = send(wanted, times=30)
        problem = check(wanted)

        assert {outcome.kind for outcome in outcomes} == {Kind.ENGINE}
        assert {outcome.code for outcome in outcomes} == {"535 5.7.8"}
        assert len(server.lines("login")) == 2  # one for thirty envelopes, one for the check
        assert problem[0].startswith(f"localhost:{server.port} refused the login of “user”: 535 5.7.8 wrong: ")
        shown = repr((outcomes, problem, wanted)) + caplog.text
        assert SECRET not in shown
        assert "AHVzZXIA" not in shown  # how PLAIN's base64 begins for this user


def test_a_refused_login_is_not_tried_again_during_its_pause():
    async def run(wanted):
        engine = SmtpEngine(wanted, lambda envelope: b"")
        kinds = [(await engine.send([ENVELOPE]))[0].kind for _ in range(3)]
        await engine.close()
        return kinds

    with serving(auth="PLAIN", username="user", password="another") as server:
        assert asyncio.run(run(settings(server, **LOGIN))) == [Kind.ENGINE] * 3
        assert len(server.lines("login")) == 1

        assert asyncio.run(run(settings(server, login_pause=0, **LOGIN))) == [Kind.ENGINE] * 3
        assert len(server.lines("login")) == 4


@pytest.mark.parametrize("auth", [{}, {"auth": "CRAM-MD5"}])
def test_a_server_without_a_usable_login_stops_the_engine(auth):
    with serving(**auth) as server:
        [outcome] = send(settings(server, **LOGIN))

        assert outcome.kind is Kind.ENGINE
        assert "no usable login" in outcome.text


def test_check_names_what_is_wrong_with_the_way_to_the_server():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        refused = SmtpSettings("127.0.0.1", port, security="none")

        assert check(refused) == [f"127.0.0.1:{port} refused the connection."]
        assert (send(refused)[0].kind, send(refused)[0].faults_engine) == (Kind.TRANSIENT, True)
    unknown = SmtpSettings("nowhere.invalid", 25, security="none")
    assert check(unknown)[0].startswith("The host name nowhere.invalid was not found")
    assert (send(unknown)[0].kind, send(unknown)[0].faults_engine) == (Kind.TRANSIENT, True)


def test_check_tells_a_server_that_does_not_begin_with_tls():
    with serving() as server:
        [problem] = check(settings(server, security="tls"))

        assert problem.endswith("does not begin with TLS; the setting starttls may be the one it wants.")


def test_check_repeats_what_a_server_has_against_this_host():
    with serving(faults=[{"at": "greeting", "say": "554 5.7.1 not from there\r\n", "drop": True}]) as server:
        wanted = settings(server)

        assert check(wanted) == [f"localhost:{server.port} does not take mail from this host: 554 5.7.1 not from there"]
        assert send(wanted)[0].kind is Kind.ENGINE


def test_an_authority_file_that_is_none_is_told(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    wanted = SmtpSettings("localhost", 1, security="tls", ca_file=str(tmp_path / "ca.pem"))

    assert check(wanted)[0].startswith(f"The file of certificate authorities {tmp_path}/ca.pem cannot be used")
    assert send(wanted)[0].kind is Kind.ENGINE


# Settings alone

GOOD = SmtpSettings("smtp.example.com", username="user", password=SECRET)


def test_good_settings_have_no_problems():
    assert validate(GOOD) == []
    assert validate(replace(GOOD, host="127.0.0.1", security="none")) == []
    assert validate(replace(GOOD, security="none", allow_insecure_auth=True)) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"host": ""}, "host name is missing"),
        ({"host": "smtp://x"}, "not a host name"),
        ({"host": "a b"}, "not a host name"),
        ({"host": "a" * 64}, "not a host name"),
        ({"port": 0}, "between 1 and 65535"),
        ({"port": 65536}, "between 1 and 65535"),
        ({"security": "ssl"}, "starttls"),
        ({"auth": "cram-md5"}, "xoauth2"),
        ({"password": ""}, "password of the user “user” is missing"),
        ({"username": ""}, "no user name"),
        ({"username": "a\0b"}, "NUL"),
        ({"security": "none"}, "clear text"),
        ({"ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem does not exist"),
        ({"helo_name": "a b"}, "EHLO"),
        ({"helo_name": "a\r\nRSET"}, "EHLO"),
        ({"max_connections": 0}, "At least one connection"),
        ({"max_messages_per_connection": -1}, "0 is no limit"),
        ({"max_connection_age": 0}, "max connection age"),
        ({"quiet_period": 0}, "quiet period"),
        ({"login_pause": -1}, "login pause"),
        ({"timeouts": Timeouts(dot=0)}, "dot timeout"),
    ],
)
def test_each_impossible_setting_gets_one_sentence(change, word):
    [problem] = validate(replace(GOOD, **change))

    assert word in problem
    assert problem.endswith(".")
    assert SECRET not in problem


def test_no_setting_shows_the_password():
    assert SECRET not in repr(GOOD)
    assert {each.name for each in fields(SmtpSettings) if not each.repr} == {"password"}


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("a.b", False),
    ],
)
def test_a_loopback_host_is_told_by_its_name(host, loopback):
    assert is_loopback(host) is loopback
