"""What goes into a session and what comes out of it: a transaction, and the events that tell of its fate."""

from typing import NamedTuple

from delivery.core.envelope import Outcome
from delivery.engines.smtp.commands import Capabilities, Commands
from delivery.engines.smtp.handshake import Refusal, StartTls


class Transaction:
    """One envelope on its way through a session: one sender, one recipient, one content.

    The session notes in `refusal` what was said at MAIL or RCPT while later replies are still to come, and in
    `again` that the same envelope can be tried with fewer parameters.
    """

    __slots__ = ("again", "commands", "content", "recipient", "refusal", "sender")

    def __init__(self, sender: str, recipient: str, content: bytes) -> None:
        self.sender = sender
        self.recipient = recipient
        self.content = content
        self.commands: Commands | None = None
        self.refusal: Outcome | None = None
        self.again = False


class Ready(NamedTuple):
    """The handshake is over and envelopes may be submitted."""

    server: Capabilities


class Finished(NamedTuple):
    """What came of a transaction. `hung_up`: the server ended the session before it had this envelope's final dot,
    and had said nothing of the envelope itself."""

    transaction: Transaction
    outcome: Outcome
    hung_up: bool = False


class Ended(NamedTuple):
    """The session is over and its connection of no more use. `by_421`: the server asked for a pause."""

    by_421: bool = False


Event = Ready | Refusal | StartTls | Finished | Ended
