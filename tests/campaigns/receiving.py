"""Somebody who is told: a web server on loopback, and a webhook or a run's callback_url that leads there.

Signatures are verified by the library that Standard Webhooks gives to receivers.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from standardwebhooks import Webhook as Verifier

from campaigns.callbacks import signing, webhooks
from campaigns.models import Webhook
from tests.campaigns.list_api import serving_here
from tests.delivery.http_server import Conduct, Received, Server, answer

Respond = Callable[[Received], bytes]


def yes(request: Received) -> bytes:
    return answer(204, b"")


@dataclass
class Receiver:
    """What was received, and how it is answered from now on."""

    server: Server
    respond: Respond = yes
    arrived: list[Received] = field(default_factory=list)
    most_at_once: int = 0

    @property
    def url(self) -> str:
        return f"{self.server.url}hook"

    @property
    def types(self) -> list[str]:
        return [self.said(n)["type"] for n in range(len(self.arrived))]

    def said(self, number: int = -1) -> dict[str, object]:
        return json.loads(self.arrived[number].body)

    def verified(self, secret: str, number: int = -1) -> dict[str, object]:
        """The message, as a receiver with this secret reads it. Raises WebhookVerificationError."""
        return Verifier(secret).verify(self.arrived[number].body, self.arrived[number].headers)


@contextmanager
def receiving(conduct: Conduct | None = None) -> Iterator[Receiver]:
    """A receiver for as long as the block lasts. It answers by `respond`, or behaves by `conduct`."""
    lock, at_once = threading.Lock(), 0

    async def conducted(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once
        with lock:
            receiver.arrived.append(request)
            at_once += 1
            receiver.most_at_once = max(receiver.most_at_once, at_once)
        try:
            if conduct:
                await conduct(request, writer)
            else:
                writer.write(receiver.respond(request))
                await writer.drain()
        finally:
            at_once -= 1

    with serving_here(conducted) as server:
        receiver = Receiver(server)
        yield receiver


def webhook(url: str, *events: str, name: str = "shop") -> tuple[Webhook, str]:
    """A webhook that hears of these, and its secret."""
    hook = Webhook(name=name, url=url, events=list(events or ["*"]))
    webhooks.check(hook)
    return hook, webhooks.add(hook, "tester")


def run_secret() -> str:
    """What signs the callbacks of runs."""
    return signing.installation_secrets()[0]
