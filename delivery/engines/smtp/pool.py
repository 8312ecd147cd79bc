"""The kept connections to one server, and which of them carries the next envelope.

Decides when to open, keep and retire connections, and that a kept one that died before it had an envelope's final dot
does not count as an attempt. It knows no envelope, only jobs, and judges no reply.
"""

import asyncio
import ssl
from collections import deque

from delivery.core.envelope import Kind, Outcome
from delivery.engines.smtp.connection import IN_FLIGHT, Connection
from delivery.engines.smtp.events import Ended, Finished, Transaction
from delivery.engines.smtp.handshake import Refusal
from delivery.engines.smtp.opening import open_connection, tls_context
from delivery.engines.smtp.settings import SmtpSettings

ANY_NUMBER = 1_000_000
REFUSED_FOR = 0.5  # seconds: so long nobody tries to connect again where a limit is kept
ONE_EVENT = 1.0  # seconds in which several 421 tell of one thing, such as a restart


class ConnectionLimit:
    """How many connections a server allows, as far as it let on: halved by a 421, one more after each quiet period."""

    def __init__(self, most: int, quiet_period: float) -> None:
        self._most = most
        self._quiet_period = quiet_period
        self._base = most
        self._since = 0.0
        self._halved_at = float("-inf")

    def allowed(self, now: float) -> int:
        """The number of connections that may be open now."""
        if self._base == self._most:
            return self._most
        return min(self._most, self._base + int((now - self._since) / self._quiet_period))

    def halve(self, now: float) -> None:
        """The server wants fewer."""
        if now - self._halved_at < ONE_EVENT:
            self.lower(self._most, now)
        else:
            self.lower(self.allowed(now) // 2, now)
            self._halved_at = now

    def lower(self, number: int, now: float) -> None:
        """No more than that many could be had."""
        self._base = max(1, min(self.allowed(now), number))
        self._since = now


class Job(Transaction):
    """A transaction somebody waits for."""

    __slots__ = ("future",)

    def __init__(self, sender: str, recipient: str, content: bytes, future: "asyncio.Future[Outcome]") -> None:
        super().__init__(sender, recipient, content)
        self.future = future

    def resolve(self, outcome: Outcome) -> None:
        """Tells who waits, if anybody still does."""
        if not self.future.done():
            self.future.set_result(outcome)


class Pool:
    """Connections to one server, opened as the load asks for them. Lives in one event loop."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._limit = ConnectionLimit(settings.max_connections, settings.quiet_period)
        self._open: dict[Connection, None] = {}  # in the order in which they last had an outcome
        self._leaving: set[Connection] = set()  # those that say goodbye
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[Job] = deque()
        self._stranded: deque[Job] = deque()  # to be repeated on a new connection, each as its first
        self._wanting: set[asyncio.Future[None]] = set()  # who waits for room, and has no job yet
        self._context: ssl.SSLContext | Refusal | None = None
        self._has_context = False
        self._proven = False  # the last attempt to connect succeeded: several may be made at once
        self._barred: Outcome | None = None  # why nobody is to connect until `_barred_until`
        self._barred_until = 0.0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Takes a job; its future gets the outcome."""
        connection = self._least_busy()
        if connection is not None:
            self._hand_over(job, connection)
        elif self._is_barred():
            job.resolve(self._barred)
        else:
            self._waiting.append(job)
            self._open_more()

    @property
    def room(self) -> int:
        """How many more jobs would go out at once; any number while they would be refused at once."""
        if self._is_barred():
            return ANY_NUMBER
        return sum(IN_FLIGHT - each.load for each in self._open if each.has_room) - len(self._waiting)

    async def more_room(self) -> None:
        """Opens a connection if need be, and returns when there may be more room."""
        waiter = self._loop.create_future()
        self._wanting.add(waiter)
        try:
            self._open_more()
            await waiter
        finally:
            self._wanting.discard(waiter)

    def _is_barred(self) -> bool:
        return self._barred is not None and self._loop.time() < self._barred_until

    def _tell_of_room(self) -> None:
        for waiter in self._wanting:
            if not waiter.done():
                waiter.set_result(None)

    async def close(self) -> None:
        """Says goodbye everywhere, and waits for the answers no longer than the quit timeout."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        connections = [*self._open, *self._leaving]
        for connection in list(self._open):
            connection.quit()
        if connections:
            await asyncio.wait([each.gone for each in connections], timeout=self._settings.timeouts.quit)
        for connection in connections:
            connection.abort()

    # What connections report

    def finished(self, connection: Connection, event: Finished) -> None:
        """An envelope has its outcome, or has to be repeated where it never arrived."""
        if connection in self._open:
            # To the end: the tasks that outcomes wake come in this order with their next envelopes, each then finds the
            # connection that woke it, and its commands go into the block that is about to be written there.
            self._open[connection] = self._open.pop(connection)
        job = event.transaction
        # On a new connection, whose first it then is, this cannot happen to it again: `kept` would be False. Elsewhere
        # it can, but every kept connection has answered for another envelope, so that there is an end to it.
        if event.hung_up and connection.kept and not self._closed:
            self._stranded.append(job)
        else:
            job.resolve(event.outcome)
        self._fill(connection)
        too_many = len(self._open) > self._limit.allowed(self._loop.time())
        if connection.load == 0 and (connection.spent or too_many):
            self.expired(connection)
        self._tell_of_room()

    def expired(self, connection: Connection) -> None:
        """Retires a connection that has nothing to do."""
        if connection in self._open:
            del self._open[connection]
            self._leaving.add(connection)
            connection.quit()
            self._open_more()

    def ended(self, connection: Connection, event: Ended) -> None:
        """A connection is of no more use."""
        if event.by_421:
            self._limit.halve(self._loop.time())
        self._leaving.discard(connection)
        if connection in self._open:
            del self._open[connection]
            self._open_more()

    # Connections and jobs

    def _least_busy(self) -> Connection | None:
        best = None
        for connection in self._open:
            if connection.load < (best.load if best else IN_FLIGHT) and connection.has_room:
                best = connection
                if best.load == 0:
                    break
        return best

    def _fill(self, connection: Connection) -> None:
        if self._stranded and connection.taken == 0:
            self._hand_over(self._stranded.popleft(), connection)
        while self._waiting and connection.has_room:
            self._hand_over(self._waiting.popleft(), connection)

    def _hand_over(self, job: Job, connection: Connection) -> None:
        if job.future.cancelled():
            return
        refused = connection.submit(job)
        if refused is not None:
            job.resolve(refused)

    def _open_more(self) -> None:
        """Opens what the waiting jobs need and the limit allows; one alone until one has succeeded, as ten refused
        logins at once would lock an account."""
        wanted = len(self._waiting) + len(self._wanting)
        if self._closed or not (wanted or self._stranded):
            return
        needed = len(self._stranded) + -(-wanted // IN_FLIGHT) - len(self._opening)
        room = self._limit.allowed(self._loop.time()) - len(self._open) - len(self._opening)
        if not self._proven:
            room = min(room, 1 - len(self._opening))
        for _ in range(min(needed, room)):
            task = self._loop.create_task(self._open_one())
            self._opening.add(task)
            task.add_done_callback(self._opening_done)
        if not self._opening:
            self._make_do()

    def _make_do(self) -> None:
        """No new connection is to be had: any must do for the jobs that wanted one."""
        self._waiting.extendleft(reversed(self._stranded))
        self._stranded.clear()
        for connection in list(self._open):
            self._fill(connection)

    async def _open_one(self) -> Connection | Refusal:
        if not self._has_context:
            self._context = tls_context(self._settings)
            self._has_context = True
        if isinstance(self._context, Refusal):
            return self._context
        return await open_connection(self._settings, self, self._context)

    def _opening_done(self, task: "asyncio.Task[Connection | Refusal]") -> None:
        self._opening.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._break(error)
        elif isinstance(task.result(), Refusal):
            self._refused(task.result().outcome)
        else:
            self._proven = True
            self._barred = None
            self._open[task.result()] = None
            self._fill(task.result())
            self._open_more()
            self._tell_of_room()

    def _refused(self, outcome: Outcome) -> None:
        """No connection: those who wait go on waiting only while others are open or being opened."""
        self._proven = False
        if outcome.kind is Kind.ENGINE:
            self._barred = outcome
            self._barred_until = self._loop.time() + self._settings.login_pause
        elif self._open or self._opening:
            self._limit.lower(len(self._open) + len(self._opening), self._loop.time())
            if not self._opening:
                self._make_do()
            return
        elif self._wanting:
            self._barred, self._barred_until = outcome, self._loop.time() + REFUSED_FOR  # for those who have no job yet
        self._tell_of_room()
        for job in self._give_up_waiting():
            job.resolve(outcome)

    def _break(self, error: BaseException) -> None:
        """A defect of this code: nobody may wait for ever because of it."""
        for job in self._give_up_waiting():
            if not job.future.done():
                job.future.set_exception(error)
        for waiter in self._wanting:
            if not waiter.done():
                waiter.set_exception(error)

    def _give_up_waiting(self) -> list[Job]:
        jobs = [*self._stranded, *self._waiting]
        self._stranded.clear()
        self._waiting.clear()
        return jobs
