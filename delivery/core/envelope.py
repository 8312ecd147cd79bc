"""The two values that cross the seam between the queue and an engine: Envelope in, Outcome out.

Decides nothing and knows no provider, no database and no clock. Everything an engine needs to hand one mail over is
on the Envelope; everything the queue needs to go on is on the Outcome.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

NOTHING: Mapping[str, object] = MappingProxyType({})


class Mailbox(NamedTuple):
    """An address with an optional display name. The address is normalised (see `delivery.addresses`)."""

    address: str
    name: str = ""

    @property
    def domain(self) -> str:
        """What follows the last `@`, in lower case."""
        return self.address.rpartition("@")[2].lower()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with every envelope of a message. With a `content_id` it is shown inline (`cid:`)."""

    filename: str
    content_type: str
    content: bytes
    content_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What all envelopes of one message share. Compared by identity, so that an engine can compile it once and keep it.

    `return_path` is the SMTP envelope sender (MAIL FROM), where bounces go. `headers` are extra header fields as
    (name, value) pairs, unencoded text, the same for every recipient.
    """

    sender: Mailbox
    return_path: str
    reply_to: Mailbox | None = None
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()


class Envelope(NamedTuple):
    """One rendered mail for one recipient. Immutable: every attempt, by whatever engine, hands over these very words.
    (A tuple: one is made for each mail.)

    `key` is the idempotency key, for providers that honour one; `message_id` (without angle brackets) is derived from
    it. Both stay the same however often the envelope is tried. `text` is never empty unless `html` is the only part;
    `html` is "" when there is none. `headers` are this recipient's own header fields, beside the frame's. `data` is
    what the mail was rendered from, for engines that pass on records rather than mails.
    """

    key: str
    message_id: str
    frame: Frame
    recipient: Mailbox
    subject: str
    text: str
    html: str
    date: datetime
    headers: tuple[tuple[str, str], ...] = ()
    data: Mapping[str, object] = NOTHING

    def __repr__(self) -> str:
        """What a log may say of it: nothing about its recipient."""
        return f"Envelope({self.key!r})"


class Kind(StrEnum):
    """What came of an attempt. The classes are those of providers.md §0; who is to blame is part of the meaning."""

    ACCEPTED = "accepted"  # the engine took it
    RECIPIENT = "recipient"  # this address will not work: ends the delivery, never the engine's fault, no failover
    MESSAGE = "message"  # this content will not work at this engine: ends the delivery, suppresses nobody
    ENGINE = "engine"  # nothing works here until a person acts: opens the circuit, fails over
    THROTTLED = "throttled"  # slow down: not a failure and not an attempt
    TRANSIENT = "transient"  # trouble for now, certainly not accepted: tried again
    UNKNOWN = "unknown"  # handed over, no answer read: may have been accepted, never guessed


# PostgreSQL keeps no NUL, no database half of a surrogate pair, and no reader needs the other control characters.
UNKEPT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")
MAX_WORDS = 500  # of the provider's own text that are kept, in characters


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one engine said of one envelope.

    `code` is the provider's own ("550 5.1.1", "429"), `text` its own words (cut at MAX_WORDS), never a credential; what
    no database keeps is taken out of both.
    `provider_id` is its id of an accepted mail. `retry_after` is how long it asked us to wait.
    `hard` (RECIPIENT only): the address is dead, not merely unwilling: it is to be suppressed.
    `faults_engine` (TRANSIENT only): the trouble is the engine's and counts for its breaker; False when it concerns
    this recipient alone (a full mailbox, greylisting).
    `shared` (RECIPIENT and MESSAGE only): the whole call was refused, none of its envelopes was taken, and the answer
    does not say which of them is to blame.
    """

    kind: Kind
    code: str = ""
    text: str = ""
    provider_id: str = ""
    retry_after: timedelta | None = None
    hard: bool = False
    faults_engine: bool = True
    shared: bool = False

    def __post_init__(self) -> None:
        if not (self.code.isprintable() and self.text.isprintable() and self.provider_id.isprintable()):
            for name in ("code", "text", "provider_id"):
                object.__setattr__(self, name, UNKEPT.sub(" ", getattr(self, name)))
        if len(self.text) > MAX_WORDS:
            object.__setattr__(self, "text", self.text[: MAX_WORDS - 1] + "…")
