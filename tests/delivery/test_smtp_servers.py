"""Servers that others wrote: aiosmtpd always, Postfix's smtp-sink where there is one (with CI=true it must be there).

smtp-sink is looked for on the PATH, or in SMTP_SINK (a copy unpacked from Debian's postfix package will do).
"""

import asyncio
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from delivery.core.envelope import Envelope, Frame, Kind, Mailbox
from delivery.engines.smtp import SmtpEngine, SmtpSettings
from tests.servers import await_port, free_port

pytestmark = pytest.mark.once

FRAME = Frame(Mailbox("news@shop.example"), "bounces@shop.example")
SMTP_SINK = os.environ.get("SMTP_SINK") or shutil.which("smtp-sink", path=os.environ["PATH"] + ":/usr/sbin")


def envelope(recipient):
    return Envelope("key", "id@x", FRAME, Mailbox(recipient), "Hi", "hello", "", datetime(2026, 1, 2, tzinfo=UTC))


def build(envelope):
    return f"To: {envelope.recipient.address}\r\n\r\n.hello\r\n..\r\n.\r\nend\r\n".encode()


def send(settings, recipients, run=asyncio.run):
    async def story():
        engine = SmtpEngine(settings, build)
        answers = await asyncio.gather(*(engine.send([envelope(each)]) for each in recipients))
        await engine.close()
        return [outcome for [outcome] in answers]

    return run(asyncio.wait_for(story(), 30))


class Mailboxes:
    """A handler of aiosmtpd that keeps what it takes and refuses one recipient."""

    def __init__(self):
        self.taken = {}

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server, session, envelope):
        self.taken[envelope.rcpt_tos[0]] = (envelope.mail_from, envelope.content)
        return "250 2.0.0 Ok: queued as 1A"


@pytest.fixture
def mailboxes():
    return Mailboxes()


def aiosmtpd(handler, **options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Controller(handler, hostname="127.0.0.1", port=port, **options)


def settings(controller, **changes):
    return SmtpSettings(**{"host": "127.0.0.1", "port": controller.port, "security": "none"} | changes)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_aiosmtpd_gets_each_mail_as_it_was_built(mailboxes, run):
    recipients = [f"user{number}@y.example" for number in range(30)] + ["nobody@y.example"]
    controller = aiosmtpd(mailboxes)
    controller.start()
    try:
        outcomes = send(settings(controller, max_connections=4), recipients, run)
    finally:
        controller.stop()

    assert [outcome.kind for outcome in outcomes] == [Kind.ACCEPTED] * 30 + [Kind.RECIPIENT]
    assert (outcomes[0].provider_id, outcomes[-1].hard) == ("1A", True)
    assert mailboxes.taken == {
        each: ("bounces@shop.example", build(envelope(each))) for each in recipients if not each.startswith("nobody")
    }


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize(("password", "kind"), [("right", Kind.ACCEPTED), ("wrong", Kind.ENGINE)])
@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_aiosmtpd_judges_the_login(mailboxes, mechanism, password, kind):
    def authenticate(server, session, envelope, mechanism, login):
        return AuthResult(success=(login.login, login.password) == (b"user", b"right"), handled=False)

    controller = aiosmtpd(mailboxes, authenticator=authenticate, auth_require_tls=False, auth_required=True)
    controller.start()
    try:
        wanted = settings(controller, username="user", password=password, auth=mechanism)
        [outcome] = send(wanted, ["one@y.example"])
    finally:
        controller.stop()

    assert outcome.kind is kind


def test_aiosmtpd_refuses_a_mail_larger_than_it_announced(mailboxes):
    controller = aiosmtpd(mailboxes, data_size_limit=10)
    controller.start()
    try:
        [outcome] = send(settings(controller), ["one@y.example"])
    finally:
        controller.stop()

    assert outcome.kind is Kind.MESSAGE
    assert mailboxes.taken == {}


@pytest.mark.parametrize(("international", "kind"), [(True, Kind.ACCEPTED), (False, Kind.MESSAGE)])
def test_aiosmtpd_takes_an_international_address_if_it_says_so(mailboxes, international, kind):
    controller = aiosmtpd(mailboxes, enable_SMTPUTF8=international)
    controller.start()
    try:
        [outcome] = send(settings(controller), ["jürgen@bücher.example"])
    finally:
        controller.stop()

    assert outcome.kind is kind
    assert list(mailboxes.taken) == ["jürgen@xn--bcher-kva.example"] * international


needs_sink = pytest.mark.skipif(
    SMTP_SINK is None and os.environ.get("CI") != "true",
    reason="smtp-sink of Postfix is not installed, and SMTP_SINK names none",
)


@contextmanager
def smtp_sink(counts, *switches):
    """Postfix's sink with these switches, for as long as the block lasts: its port."""
    port = free_port()
    libraries = Path(SMTP_SINK).parent.parent / "lib" / "postfix"
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [SMTP_SINK, *user, *switches, "-c", f"127.0.0.1:{port}", "100"]
    with counts.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "LD_LIBRARY_PATH": str(libraries)}
        )
    try:
        await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def taken(counts):
    """How many mails a sink has counted."""
    return int(counts.read_text().rpartition("mesg=")[2].strip() or 0)


@needs_sink
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("switches", [(), ("-p",), ("-e",)], ids=["all", "no pipelining", "no ESMTP"])
def test_smtp_sink_takes_a_thousand_mails(switches, run, tmp_path):
    counts = tmp_path / "counts"
    with smtp_sink(counts, *switches) as port:
        outcomes = send(
            SmtpSettings("127.0.0.1", port, security="none"), [f"u{each}@y.example" for each in range(1000)], run
        )

    assert {outcome.kind for outcome in outcomes} == {Kind.ACCEPTED}
    assert taken(counts) == 1000


@needs_sink
@pytest.mark.parametrize(
    ("switches", "kind"),
    [
        (("-f", "RCPT", "-B", "550 5.1.1 no such user"), Kind.RECIPIENT),
        (("-f", "RCPT", "-B", "550 5.7.1 relaying denied"), Kind.ENGINE),
        (("-f", "RCPT", "-B", "552 5.2.2 mailbox full"), Kind.TRANSIENT),
        (("-r", "RCPT", "-b", "450 4.2.1 receiving mail too quickly"), Kind.THROTTLED),
        (("-r", "RCPT"), Kind.TRANSIENT),
        (("-f", "MAIL", "-B", "553 5.1.8 sender rejected"), Kind.ENGINE),
        (("-r", "MAIL", "-b", "421 4.7.0 too many connections"), Kind.THROTTLED),
        (("-r", "DATA"), Kind.TRANSIENT),
        (("-f", "DATA", "-B", "554 5.6.0 content refused"), Kind.MESSAGE),
        (("-r", "."), Kind.TRANSIENT),
        (("-f", ".", "-B", "554 5.6.0 content refused"), Kind.MESSAGE),
        (("-f", "EHLO,HELO"), Kind.ENGINE),
        (("-q", "MAIL"), Kind.TRANSIENT),
        (("-q", "RCPT"), Kind.TRANSIENT),
        (("-q", "DATA"), Kind.TRANSIENT),
        (("-q", "."), Kind.UNKNOWN),
        (("-q", "CONNECT"), Kind.TRANSIENT),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
@pytest.mark.parametrize("pipelining", [True, False])
def test_whatever_smtp_sink_refuses_is_told_apart(switches, kind, pipelining, tmp_path):
    counts = tmp_path / "counts"
    with smtp_sink(counts, *switches, *([] if pipelining else ["-p"])) as port:
        patient = SmtpSettings("127.0.0.1", port, security="none", max_connections=2)
        outcomes = send(patient, [f"u{each}@y.example" for each in range(3)])

    # What stood pipelined behind a connection's end was certainly not taken, and says so.
    assert outcomes[0].kind is kind
    assert {outcome.kind for outcome in outcomes} <= {kind, Kind.TRANSIENT}
    if "." not in switches:
        assert taken(counts) == 0
    if kind is Kind.UNKNOWN:
        # It hangs up after the final dot, and has the mail: that is why such an outcome is never guessed.
        assert taken(counts) == sum(outcome.kind is Kind.UNKNOWN for outcome in outcomes)
