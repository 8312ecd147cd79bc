"""An SMTP client without I/O: bytes in, events and bytes out. No socket, no clock.

Theory of operation. The handshake runs first; after `Ready` transactions are submitted, at best two at a time: one in
its data phase, the next behind it. Replies are matched to commands by order alone, so whatever breaks the order ends
the session. With PIPELINING one block carries the content, its final dot and the next MAIL, RCPT and DATA (RFC 2920
§3.1: nothing may follow DATA before its reply); without it one command is written at a time.

The rule that all else serves: an envelope is UNKNOWN exactly while its final dot is out and unanswered. A driver that
still holds the end of the last block says so in `held_back`.
"""

from collections import deque
from dataclasses import replace

from delivery.core.classify import Stage, classify_reply
from delivery.core.envelope import Kind, Outcome
from delivery.engines.smtp import commands
from delivery.engines.smtp.commands import Capabilities, compose, dot_stuffed
from delivery.engines.smtp.events import Ended, Event, Finished, Ready, Transaction
from delivery.engines.smtp.handshake import Profile, Refusal, StartTls, Step, handshake
from delivery.engines.smtp.replies import NONSENSE, Reply, ReplyReader

BLOCK = 65536  # larger contents are written in such pieces, so that little is held back when a server stops reading
DO_WITHOUT = (500, 501, 502, 503, 504, 555)  # to MAIL: the server may not know what it announced

# Python 3.11 looks enum members up through a descriptor; these stand in the path of every reply.
MAIL, RCPT, DATA, DOT, RSET, QUIT = Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT, Stage.RSET, Stage.QUIT


class Session:
    """One SMTP conversation, from the greeting to the end.

    `answered` counts replies: the server makes progress while it grows. `over`: nothing more can come of it.
    """

    def __init__(self, profile: Profile) -> None:
        self.over = False
        self.answered = 0
        self.held_back = False
        self.server = Capabilities()
        self._reader = ReplyReader()
        self._steps = handshake(profile)
        self._opening = True
        self._securing = False  # STARTTLS was agreed on and TLS does not stand yet
        self._quitting = False
        self._expected: deque[tuple[Stage, Transaction | None]] = deque()  # whose replies are due, in order
        self._commands: deque[tuple[Stage, Transaction | None, bytes]] = deque()  # ready to be written, in order
        self._waiting: deque[Transaction] = deque()  # not started
        self._blocked = False  # from a transaction's start to the reply to its DATA no other may start
        self._to_fill: Transaction | None = None  # the server waits for this content
        self._unsent = memoryview(b"")  # the rest of a content that is written in pieces
        self._unclean = False  # a failed transaction may have left its MAIL behind
        self._take_step(next(self._steps))

    @property
    def stage(self) -> Stage | None:
        """What the next reply will answer; None when none is due."""
        return self._expected[0][0] if self._expected else None

    @property
    def dot_is_last(self) -> bool:
        """Whether the block handed out last ends with the final dot of the content that now awaits its answer."""
        return bool(self._expected) and self._expected[-1][0] is DOT and not self._unsent

    def submit(self, transaction: Transaction) -> Outcome | None:
        """Takes a transaction, to be `Finished` later; or tells at once why this server cannot have it."""
        composed = compose(transaction.sender, transaction.recipient, transaction.content, self.server)
        if isinstance(composed, Outcome):
            return composed
        transaction.commands = composed
        transaction.refusal = None
        transaction.again = False
        self._waiting.append(transaction)
        return None

    def quit(self) -> None:
        """Says goodbye once all that was submitted is finished."""
        self._quitting = True

    def tls_established(self) -> list[Event]:
        """Goes on after `StartTls`, keeping nothing of what was said before."""
        self._securing = False
        self._reader.forget()
        return self._advance(None)

    def receive(self, data: bytes) -> list[Event]:
        """What these bytes mean. What comes between the agreement on TLS and TLS itself is dropped unread, as anybody
        may have put it there (RFC 3207 §6)."""
        events: list[Event] = []
        for reply in self._reader.feed(data):
            if self.over or self._securing:
                break
            self._hear(reply, events)
        return events

    def lost(self, why: str, *, hung_up: bool = True) -> list[Event]:
        """Ends the session without a reply: the outcomes of all that is unfinished. `hung_up` is False when it was
        this side that gave up."""
        return [] if self.over else self._end(why, hung_up=hung_up)

    def data_to_send(self) -> bytes:
        """The next block to write, b"" when there is none for now. To be asked again after each write, and only while
        the driver is free to write."""
        if self.over:
            return b""
        if self._unsent:
            return self._next_piece()
        transaction, self._to_fill = self._to_fill, None
        if transaction is None:
            return self._next_commands()
        self._expected.append((DOT, transaction))
        if transaction.refusal is not None:
            return commands.LONE_DOT + self._next_commands()
        content = dot_stuffed(transaction.content)
        if len(content) <= BLOCK:
            return content + self._next_commands()
        self._unsent = memoryview(content)
        return self._next_piece()

    # Writing

    def _next_piece(self) -> bytes:
        piece, self._unsent = self._unsent[:BLOCK], self._unsent[BLOCK:]
        return bytes(piece)

    def _next_commands(self) -> bytes:
        """All commands that may be written now: a whole group with PIPELINING, else one."""
        one_by_one = not self.server.pipelining
        if one_by_one and self._expected:
            return b""
        if not self._commands and not self._blocked and not self._opening:
            self._start_next()
        group = b""
        while self._commands:
            stage, transaction, command = self._commands.popleft()
            self._expected.append((stage, transaction))
            group += command
            if one_by_one:
                break
        return group

    def _start_next(self) -> None:
        if self._waiting:
            self._blocked = True
            if self._unclean:
                self._unclean = False
                self._commands.append((RSET, None, commands.RSET))
            transaction = self._waiting.popleft()
            self._commands.append((MAIL, transaction, transaction.commands.mail))
            self._commands.append((RCPT, transaction, transaction.commands.rcpt))
            self._commands.append((DATA, transaction, commands.DATA))
        elif self._quitting and not self._expected:
            self._blocked = True
            self._commands.append((QUIT, None, commands.QUIT))

    # Reading

    def _hear(self, reply: Reply, events: list[Event]) -> None:
        code = reply.code
        if code == NONSENSE:
            events += self._end(f"the server sent something that is no reply: {reply.text[:80]!r}", hung_up=False)
        elif not self._expected:
            why = f"the server spoke out of turn: {code} {reply.words[:200]}"
            events += self._end(why, hung_up=code == 421, by_421=code == 421)
        else:
            self.answered += 1
            if self._opening:
                self._expected.popleft()
                events += self._advance(reply)
            elif code == 421:
                self._hear_421(reply, events)
            else:
                self._hear_answer(reply, events)

    def _hear_answer(self, reply: Reply, events: list[Event]) -> None:
        stage, transaction = self._expected[0]
        family = reply.code // 100
        failed = family in (4, 5)
        if not failed and family != (3 if stage is DATA else 2):
            why = f"the server answered {stage.upper()} with {reply.code} {reply.words[:200]}"
            events += self._end(why, hung_up=False)
            return

        self._expected.popleft()
        if transaction is None:
            if failed or stage is QUIT:
                events += self._end(f"the server ended at {stage.upper()}", hung_up=True)
        elif stage is DOT:
            self._conclude(transaction, reply, events)
        elif stage is DATA:
            self._hear_answer_to_data(transaction, reply, failed, events)
        elif failed and transaction.refusal is None:
            self._refuse(stage, transaction, reply, events)

    def _hear_answer_to_data(self, transaction: Transaction, reply: Reply, failed: bool, events: list[Event]) -> None:
        if failed:
            refusal = transaction.refusal or classify_reply(DATA, reply.code, reply.words)
            self._fail(transaction, refusal, events)
            return
        self._blocked = False
        self._to_fill = transaction
        self._unclean = transaction.refusal is not None

    def _refuse(self, stage: Stage, transaction: Transaction, reply: Reply, events: list[Event]) -> None:
        """MAIL or RCPT was refused. With PIPELINING the replies up to that to DATA are still to come."""
        transaction.refusal = classify_reply(stage, reply.code, reply.words)
        if stage is MAIL and reply.code in DO_WITHOUT and transaction.commands.optional:
            self.server = replace(self.server, size=None, eightbit=False)
            transaction.again = True
        if not self.server.pipelining:
            self._commands.clear()
            self._fail(transaction, transaction.refusal, events)

    def _fail(self, transaction: Transaction, refusal: Outcome, events: list[Event]) -> None:
        """The transaction ended without a content."""
        self._blocked = False
        self._unclean = True
        if transaction.again and self.submit(transaction) is None:
            self._waiting.rotate(1)
        else:
            events.append(Finished(transaction, refusal))

    def _conclude(self, transaction: Transaction, reply: Reply, events: list[Event]) -> None:
        """The final dot was answered."""
        outcome = transaction.refusal or classify_reply(DOT, reply.code, reply.words)
        if self._dot_is_out():
            # With the next MAIL already out, a RSET would come too late and is not needed: the dot ended the other.
            self._unclean |= outcome.kind is not Kind.ACCEPTED and not self._expected
            events.append(Finished(transaction, outcome))
            return
        if outcome.kind is Kind.ACCEPTED:
            outcome = Outcome(Kind.TRANSIENT, outcome.code, "the server accepted a mail before its end")
        events.append(Finished(transaction, outcome))
        # The server may take what is left of the content for commands.
        events += self._end("the server answered before the end of a mail", hung_up=True)

    # Ending

    def _hear_421(self, reply: Reply, events: list[Event]) -> None:
        """The first command that waits has its answer, and nothing else will."""
        stage, transaction = self._expected.popleft()
        if transaction is not None and transaction.refusal is None:
            dot_was_out = stage is DOT and self._dot_is_out()
            outcome = classify_reply(stage, reply.code, reply.words)
            events.append(Finished(transaction, outcome, hung_up=not dot_was_out))
        elif transaction is not None:
            events.append(Finished(transaction, transaction.refusal))
        why = f"the server ended the session: 421 {reply.words[:200]}"
        events += self._end(why, hung_up=True, by_421=True, without=transaction)

    def _end(self, why: str, *, hung_up: bool, by_421: bool = False, without: Transaction | None = None) -> list[Event]:
        """The outcomes of all that is unfinished, and the end."""
        self.over = True
        if self._opening:
            return [Refusal(Outcome(Kind.TRANSIENT, text=why), self.stage), Ended(by_421)]
        events: list[Event] = []
        for transaction in self._unfinished():
            if transaction is without:
                continue
            if transaction.refusal is not None:
                events.append(Finished(transaction, transaction.refusal))
            elif (DOT, transaction) in self._expected and self._dot_is_out():
                events.append(Finished(transaction, Outcome(Kind.UNKNOWN, text=why)))
            else:
                events.append(Finished(transaction, Outcome(Kind.TRANSIENT, text=why), hung_up=hung_up))
        events.append(Ended(by_421))
        return events

    def _dot_is_out(self) -> bool:
        return not (self._unsent or self.held_back)

    def _unfinished(self) -> list[Transaction]:
        found = [transaction for _, transaction in self._expected]
        found += [self._to_fill, *(transaction for _, transaction, _ in self._commands), *self._waiting]
        return [each for each in dict.fromkeys(found) if each is not None]

    # Opening

    def _advance(self, reply: Reply | None) -> list[Event]:
        try:
            step = self._steps.send(reply)
        except StopIteration as end:
            return self._opened(end.value)
        if isinstance(step, StartTls):
            self._securing = True
            return [step]
        self._take_step(step)
        return []

    def _opened(self, result: Capabilities | Refusal) -> list[Event]:
        self._opening = False
        if isinstance(result, Capabilities):
            self.server = result
            return [Ready(result)]
        self.over = True
        return [result, Ended(by_421=result.outcome.code.startswith("421"))]

    def _take_step(self, step: Step) -> None:
        if step.command:
            self._commands.append((step.stage, None, step.command))
        else:
            self._expected.append((step.stage, None))
