"""Mails for the engines that are HTTP APIs, and a provider's engine with a server of the test's own behind it."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import httpx

from delivery.core.answer import Answer
from delivery.core.envelope import Attachment, Envelope, Frame, Mailbox, Outcome
from delivery.engines.aws_signature import Credentials
from delivery.engines.brevo import Brevo
from delivery.engines.mailgun import Mailgun, basic_token
from delivery.engines.postmark import Postmark
from delivery.engines.provider import Provider, ProviderEngine
from delivery.engines.resend import Resend
from delivery.engines.sendgrid import SendGrid
from delivery.engines.ses import Ses
from delivery.http import Call

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATE = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))

SENDER = Mailbox("news@shop.example", "Shop & Söhne")
REPLY_TO = Mailbox("help@shop.example")
ANN = Mailbox("ann@mail.example", "Ann Álvarez")
UNSUBSCRIBE = (
    ("List-Unsubscribe", "<https://shop.example/u/t1>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
)
PDF = Attachment("price list.pdf", "application/pdf", b"%PDF-1.7\n\0\xff")
LOGO = Attachment("logo.png", "image/png", b"\x89PNG\r\n", content_id="logo@shop.example")


def frame(**changes: object) -> Frame:
    given = {"sender": SENDER, "return_path": "bounce@shop.example", "reply_to": REPLY_TO, **changes}
    return Frame(**given)


def envelope(number: int = 1, **changes: object) -> Envelope:
    """A mail with everything that a campaign's mail has; of the same number always the same, whatever the time."""
    mail = Envelope(
        key=f"00ff00ff00ff00ff.{number:x}",
        message_id=f"00ff00ff00ff00ff.{number:x}@shop.example",
        frame=FRAME,
        recipient=ANN,
        subject=f"Offer № {number}",
        text=f"Hello {number}\n",
        html=f"<p>Hello {number}</p>",
        date=DATE,
        headers=UNSUBSCRIBE,
    )
    return mail._replace(**changes)


FRAME = frame(headers=(("X-Campaign", "spring"),))
PLAIN = frame(reply_to=None)

SECRETS = {
    "sendgrid": "SG.abcdefghijklmnopqrstuv.wxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ012",
    "ses": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "mailgun": "0123456789abcdef0123456789abcdef-01234567-89abcdef",
    "postmark": "4a6e3f0c-0c3f-4b53-9f0e-2f9d1c6f7a10",
    "resend": "re_AbCdEfGh_IjKlMnOpQrStUvWxYz0123",
    "brevo": "xkeysib-0123456789abcdef-AbCdEf",
}
PROVIDERS: dict[str, Provider] = {
    "sendgrid": SendGrid(SECRETS["sendgrid"]),
    "ses": Ses(Credentials("AKIAIOSFODNN7EXAMPLE", SECRETS["ses"]), "eu-west-1"),
    "mailgun": Mailgun(SECRETS["mailgun"], "mg.shop.example"),
    "postmark": Postmark(SECRETS["postmark"], "broadcast"),
    "resend": Resend(SECRETS["resend"]),
    "brevo": Brevo(SECRETS["brevo"]),
}
TAKES_SEVERAL = ("postmark", "resend", "brevo")


def written(provider: Provider, *envelopes: Envelope) -> object:
    """The JSON that the provider would send for these."""
    return json.loads(provider.call(envelopes, NOW).content)


def answer(status: int, body: object = b"", **headers: str) -> Answer:
    """An answer with a JSON body, or with these very octets."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def outcomes(provider: Provider, answer: Answer, count: int = 1) -> list[Outcome]:
    """What an answer to `count` mails means."""
    return provider.read(answer, [envelope(number) for number in range(count)], NOW)


def engine(provider: Provider, handler: Callable[[httpx.Request], httpx.Response], *secrets: str) -> ProviderEngine:
    """The provider's engine, whose calls `handler` answers."""
    transport = httpx.MockTransport(handler)
    return ProviderEngine(provider, concurrency=1, timeout=5, secrets=secrets, transport=transport, now=lambda: NOW)


def send(provider: Provider, handler: Callable[[httpx.Request], httpx.Response], *envelopes: Envelope) -> list[Outcome]:
    return asyncio.run(engine(provider, handler).send(envelopes))


def findings(provider: Provider, answers: dict[str, httpx.Response], *domains: str) -> list[tuple[str, bool]]:
    """What `check` finds when the paths are answered so; any other path is not there."""

    def handler(request: httpx.Request) -> httpx.Response:
        return answers.get(f"{request.method} {request.url.path}", httpx.Response(404))

    return [tuple(each) for each in asyncio.run(engine(provider, handler).check(frozenset(domains)))]


def secrets_of(slug: str) -> list[str]:
    """What must not appear anywhere, for each provider."""
    return [SECRETS[slug], *([basic_token(SECRETS[slug])] if slug == "mailgun" else [])]


def same(call: Call) -> tuple[str, str, bytes, dict[str, str]]:
    """A call by what counts: its headers are hidden from comparison otherwise."""
    return call.method, call.url, call.content, dict(call.headers)
