"""One kept connection: an asyncio protocol that drives a session over a socket.

Decides when to write (never while the transport is full), when silence has lasted too long, and whether the end of the
last block has left this process. It knows neither other connections nor who waits for an outcome.
"""

import asyncio
import socket
from dataclasses import fields
from typing import Protocol

from delivery.core.envelope import Outcome
from delivery.engines.smtp.events import Ended, Event, Finished, Ready, Transaction
from delivery.engines.smtp.handshake import Login, Profile, Refusal, StartTls
from delivery.engines.smtp.session import Session
from delivery.engines.smtp.settings import SmtpSettings, Timeouts

IN_FLIGHT = 2  # one envelope in its data phase, the next pipelined behind it


class Owner(Protocol):
    """Who hears of a connection's envelopes and of its end."""

    def finished(self, connection: "Connection", event: Finished) -> None: ...

    def expired(self, connection: "Connection") -> None:
        """The connection is idle and too old."""
        ...

    def ended(self, connection: "Connection", event: Ended) -> None: ...


class Connection(asyncio.Protocol):
    """A connection from its first byte to its end. The owner hears of every envelope submitted, exactly once.

    `milestone` is done when the handshake needs TLS, is over, or failed. `gone` is done when the connection is lost.
    `load` counts unfinished envelopes, `taken` all. `kept`: an envelope was answered here before.
    """

    def __init__(self, settings: SmtpSettings, owner: Owner) -> None:
        self.load = 0
        self.taken = 0
        self.kept = False
        self.timeouts = settings.timeouts
        self._settings = settings
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.milestone: asyncio.Future[Ready | Refusal | StartTls] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._most = settings.max_messages_per_connection or float("inf")
        self._old_at = self._loop.time() + settings.max_connection_age
        self._paused = False
        self._flush_due = False
        self._since = self._loop.time()  # of the last progress
        self._stuck_at = 0  # bytes that the server had not read then
        self._timer: asyncio.TimerHandle | None = None
        self._tick_every = _shortest(settings.timeouts) / 4

    @property
    def has_room(self) -> bool:
        """Whether another envelope may be submitted now."""
        return self.load < IN_FLIGHT and not self._session.over and not self.spent

    @property
    def spent(self) -> bool:
        """Whether it has carried as many envelopes, or lived as long, as one connection should."""
        return self.taken >= self._most or self._loop.time() >= self._old_at

    def submit(self, transaction: Transaction) -> Outcome | None:
        """Sends an envelope, whose outcome the owner hears; or tells at once why this server cannot have it."""
        refused = self._session.submit(transaction)
        if refused is None:
            self.load += 1
            self.taken += 1
            if not self._flush_due:
                self._flush()
        return refused

    def quit(self) -> None:
        """Says goodbye after the envelopes under way. The connection is lost soon after, whatever the server does."""
        self._session.quit()
        self._flush()

    def abort(self) -> None:
        """Drops the connection and what it has not written."""
        self._stop_timer()
        if self.transport is not None:
            self.transport.abort()

    def secured(self, transport: asyncio.Transport) -> None:
        """Goes on over TLS."""
        self.milestone = self._loop.create_future()
        self._use(transport)
        self._heed(self._session.tls_established())

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._use(transport)
        self._session = Session(_profile(self._settings, transport))
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._tick_every, self._tick)

    def data_received(self, data: bytes) -> None:
        answered = self._session.answered
        events = self._session.receive(data)
        if self._session.answered != answered:  # dripping bytes are no progress, a reply is
            self._since = self._loop.time()
        self._heed(events)

    def pause_writing(self) -> None:
        self._paused = True
        self._since = self._loop.time()
        self._stuck_at = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._paused = False
        self._since = self._loop.time()
        self._session.held_back = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        reason = f" ({exc})" if exc else ""
        self._heed(self._session.lost(f"the connection was lost{reason}"))
        if not self.gone.done():
            self.gone.set_result(None)

    # Events and blocks

    def _heed(self, events: list[Event]) -> None:
        if not events:
            self._flush()
            return
        self._flush_due = True
        kept = self.kept
        for event in events:
            if isinstance(event, Finished):
                self.load -= 1
                kept |= not event.hung_up
                self._owner.finished(self, event)
            elif isinstance(event, Ended):
                self.abort()
                self._owner.ended(self, event)
            elif not self.milestone.done():
                if isinstance(event, StartTls):
                    self.transport.pause_reading()
                self.milestone.set_result(event)
        self.kept = kept
        # Only after the tasks that these outcomes wake: the envelopes they bring next then share the block.
        self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_due = False
        self._flush()

    def _flush(self) -> None:
        session = self._session
        while not self._paused and not self.transport.is_closing():
            was_idle = session.stage is None
            block = session.data_to_send()
            if not block:
                return
            if was_idle:
                self._since = self._loop.time()
            self.transport.write(block)
            if self._paused:
                session.held_back = session.dot_is_last

    def _use(self, transport: asyncio.Transport) -> None:
        """The write buffer is held at nothing, so that a transport that is not paused has given all to the kernel.

        TLS transports pause at the limit and plain ones above it. Under TLS a last encrypted block may wait unseen
        below: its envelope then counts as UNKNOWN, the safe side.
        """
        self.transport = transport
        encrypted = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=1 if encrypted else 0, low=0)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Time

    def _tick(self) -> None:
        """One timer for the whole connection, as one per command would cost more than the command."""
        self._timer = self._loop.call_later(self._tick_every, self._tick)
        now = self._loop.time()
        stage = self._session.stage
        if self._paused:
            self._watch_buffer(now)
        elif stage is not None:
            limit = getattr(self.timeouts, stage.value)
            if now - self._since > limit:
                self._give_up(f"the server did not answer {stage.upper()} within {limit:g} s")
        elif now >= self._old_at and self.load == 0 and self.milestone.done():
            self._owner.expired(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _watch_buffer(self, now: float) -> None:
        size = self.transport.get_write_buffer_size()
        if size < self._stuck_at:
            self._stuck_at = size
            self._since = now
        elif now - self._since > self.timeouts.block:
            self._give_up(f"the server read nothing for {self.timeouts.block:g} s")

    def _give_up(self, why: str) -> None:
        self._heed(self._session.lost(why, hung_up=False))


def _shortest(timeouts: Timeouts) -> float:
    return min(getattr(timeouts, each.name) for each in fields(timeouts))


def _profile(settings: SmtpSettings, transport: asyncio.Transport) -> Profile:
    login = None
    if settings.username:
        login = Login(settings.username, settings.password, settings.auth, in_clear=settings.may_login_in_clear)
    return Profile(
        helo_name=settings.helo_name or _own_name(transport.get_extra_info("sockname")[0]),
        starttls=settings.security == "starttls",
        encrypted=settings.security == "tls",
        login=login,
    )


def _own_name(address: str) -> str:
    """How this host announces itself: by its name if that is a full one, else by its address (RFC 5321 §4.1.3).

    `socket.getfqdn` would ask the DNS, and wait for it.
    """
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = address.partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
