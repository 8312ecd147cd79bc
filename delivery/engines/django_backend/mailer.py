"""One backend object and its connection, opened once and kept between mails. Used by one thread; blocks.

A connection that the server closed meanwhile is opened again, and the mail tried once more, if it certainly had not
been handed over. Nothing else is tried twice here, and nothing that a server has refused.
"""

import contextlib
import smtplib
from collections.abc import Callable
from datetime import UTC, datetime

from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.db import close_old_connections, connections

from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.engines.django_backend.failures import not_opened, not_sent, result_of
from delivery.engines.django_backend.message import build_message

# After a refusal of this mail alone the connection is as it was.
_STILL_GOOD = (Kind.RECIPIENT, Kind.MESSAGE)


class Mailer:
    """See the module. `make` makes the backend; `most`: mails on one connection, 0 for any number; `timeout`: seconds,
    for a backend that would wait for ever."""

    def __init__(self, make: Callable[[], BaseEmailBackend], most: int, timeout: float) -> None:
        self._make = make
        self._most = most
        self._timeout = timeout
        self._backend: BaseEmailBackend | None = None
        self._is_open = False
        self._sent = 0
        self._handed = True

    def send(self, envelope: Envelope) -> Outcome:
        """What came of the mail. Raises nothing."""
        close_old_connections()  # some backends write to the database
        if self._most and self._sent >= self._most:
            self.close()
        was_open = self._is_open
        outcome = self._try(envelope)
        is_lost = was_open and not self._handed and outcome.kind is Kind.TRANSIENT and not outcome.code
        return self._try(envelope) if is_lost else outcome

    def open(self) -> Outcome | None:
        """Opens the connection; what came of it when that failed."""
        try:
            if self._backend is None:
                self._backend = self._make()
                if getattr(self._backend, "timeout", 0) is None:
                    self._backend.timeout = self._timeout
            self._backend.open()
        except Exception as error:
            self.close()
            return not_opened(error, datetime.now(UTC))
        self._is_open, self._sent = True, 0
        self._watch()
        return None

    def close(self) -> None:
        """Ends the connection in order, as far as that goes. Raises nothing."""
        self._is_open = False
        if self._backend is not None:
            with contextlib.suppress(Exception):
                self._backend.close()

    def leave(self) -> None:
        """Closes everything that this thread has opened."""
        self.close()
        connections.close_all()

    def _try(self, envelope: Envelope) -> Outcome:
        if not self._is_open and (failure := self.open()):
            return failure
        try:
            message = build_message(envelope, over_smtp=isinstance(self._backend, SmtpBackend))
        except ValueError as error:
            return Outcome(Kind.MESSAGE, text=f"The mail cannot be built: {error}")
        self._handed = not self._is_watched
        try:
            outcome = result_of(self._backend.send_messages([message]), message)
        except Exception as error:
            outcome = not_sent(error, message, datetime.now(UTC), handed=self._handed)
            if outcome.kind not in _STILL_GOOD:
                self.close()
        self._sent += 1
        return outcome

    @property
    def _is_watched(self) -> bool:
        return isinstance(getattr(self._backend, "connection", None), smtplib.SMTP)

    def _watch(self) -> None:
        """Notes when smtplib begins with the content of a mail: its exception for a lost connection does not say
        whether that was before or after, and everything hangs on it."""
        if not self._is_watched:
            return
        smtp: smtplib.SMTP = self._backend.connection  # type: ignore[union-attr]
        data = smtp.data

        def watched(content: bytes | str) -> tuple[int, bytes]:
            self._handed = True
            return data(content)

        smtp.data = watched  # type: ignore[method-assign]
