"""One connection over a transport that is scripted: what has left the process, and what has not."""

import asyncio

import pytest

from delivery.core.envelope import Kind
from delivery.engines.smtp.connection import Connection
from delivery.engines.smtp.events import Transaction
from delivery.engines.smtp.settings import SmtpSettings

pytestmark = pytest.mark.once

CONTENT = b"Subject: x\r\n\r\nhello\r\n"


class Socket:
    """Takes any option."""

    def setsockopt(self, *option):
        pass


class Transport(asyncio.Transport):
    """Takes what is written while `room` is left, in bytes, and holds the rest, as asyncio's do."""

    def __init__(self, protocol):
        super().__init__({"sockname": ("127.0.0.1", 1), "socket": Socket()})
        self.protocol = protocol
        self.blocks = []
        self.room = 1_000_000
        self.limits = None
        self.aborted = False

    def write(self, data):
        self.blocks.append(data)
        self.room -= len(data)
        if self.room < 0:
            self.protocol.pause_writing()

    def drain(self):
        self.room = 1_000_000
        self.protocol.resume_writing()

    def set_write_buffer_limits(self, high=None, low=None):
        self.limits = (high, low)

    def get_write_buffer_size(self):
        return max(0, -self.room)

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


class Listener:
    """An owner that keeps what it hears."""

    def __init__(self):
        self.outcomes = {}
        self.ends = []

    def finished(self, connection, event):
        self.outcomes[event.transaction.recipient] = event.outcome.kind

    def expired(self, connection):
        raise AssertionError("nothing here lives long")

    def ended(self, connection, event):
        self.ends.append(event)


async def about_to_send_content(*recipients):
    """A connection whose next bytes from the server, a 354, make it write the first content."""
    listener = Listener()
    connection = Connection(SmtpSettings("127.0.0.1", security="none", helo_name="me.example"), listener)
    transport = Transport(connection)
    connection.connection_made(transport)
    connection.data_received(b"220 hi\r\n")
    connection.data_received(b"250-mx\r\n250 PIPELINING\r\n")
    await connection.milestone
    await asyncio.sleep(0)  # the flush that the milestone put off
    for recipient in recipients:
        connection.submit(Transaction("s@x", recipient, CONTENT))
    connection.data_received(b"250 ok\r\n250 ok\r\n")
    return connection, transport, listener


@pytest.mark.parametrize(
    ("room", "drained", "kind"), [(5, False, Kind.TRANSIENT), (5, True, Kind.UNKNOWN), (1000, False, Kind.UNKNOWN)]
)
def test_a_dot_counts_as_out_only_once_the_transport_has_let_go_of_it(room, drained, kind):
    async def story():
        connection, transport, listener = await about_to_send_content("a@y")
        transport.room = room
        connection.data_received(b"354 go\r\n")
        if drained:
            transport.drain()
        connection.connection_lost(None)
        return transport, listener

    transport, listener = asyncio.run(story())

    assert transport.blocks[-1] == CONTENT + b".\r\n"
    assert listener.outcomes == {"a@y": kind}


def test_a_dot_with_commands_behind_it_may_be_out_while_they_are_held():
    async def story():
        connection, transport, listener = await about_to_send_content("a@y", "b@y")
        transport.room = 5
        connection.data_received(b"354 go\r\n")
        connection.connection_lost(None)
        return listener

    assert asyncio.run(story()).outcomes == {"a@y": Kind.UNKNOWN, "b@y": Kind.TRANSIENT}


def test_nothing_is_written_while_the_transport_is_full():
    async def story():
        connection, transport, _ = await about_to_send_content("a@y")
        transport.room = 0
        connection.data_received(b"354 go\r\n")
        before = list(transport.blocks)
        connection.submit(Transaction("s@x", "b@y", CONTENT))
        meanwhile = list(transport.blocks)
        transport.drain()
        connection.abort()
        return before, meanwhile, transport

    before, meanwhile, transport = asyncio.run(story())

    assert meanwhile == before
    assert transport.blocks == [*before, b"MAIL FROM:<s@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"]
    assert transport.limits == (0, 0)


def test_an_answer_while_the_dot_is_held_back_accepts_nothing():
    async def story():
        connection, transport, listener = await about_to_send_content("a@y")
        transport.room = 5
        connection.data_received(b"354 go\r\n")
        connection.data_received(b"250 2.0.0 Ok\r\n")
        return transport, listener

    transport, listener = asyncio.run(story())

    assert listener.outcomes == {"a@y": Kind.TRANSIENT}
    assert (transport.aborted, len(listener.ends)) == (True, 1)


def test_the_next_envelope_of_a_woken_task_shares_the_block_with_the_content_before():
    async def story():
        connection, transport, _ = await about_to_send_content("a@y", "b@y")
        connection.data_received(b"354 go\r\n")
        del transport.blocks[:]
        connection.data_received(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        connection.submit(Transaction("s@x", "c@y", CONTENT))
        await asyncio.sleep(0)
        connection.abort()
        return transport.blocks

    assert asyncio.run(story()) == [CONTENT + b".\r\nMAIL FROM:<s@x>\r\nRCPT TO:<c@y>\r\nDATA\r\n"]
