"""Tells what waits: over HTTP, many at once and few to each host, by one process of the whole installation.

A host that is slow keeps its own callbacks waiting and nobody else's: of each host there are so many in hand as it will
take in PATIENCE, by how long its answers took; what is beyond that is put off for about as long as its turn will take.
"""

import asyncio
import json
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta

import uvloop
from django.utils.timezone import now

from campaigns.callbacks import names, outbox, signing
from campaigns.callbacks.news import written
from campaigns.callbacks.outbox import Due, Told
from campaigns.callbacks.retry import Reply, judge
from campaigns.callbacks.urls import host_of, refuse_bad_url
from campaigns.callbacks.webhooks import refuse_unless_on
from campaigns.models import Callback, Webhook
from campaigns.models.callback import gives_up_at, new_key
from delivery import owner
from delivery.conf import conf
from delivery.core.answer import Answer, told_to_wait
from delivery.http import Call, Client, Unreachable
from delivery.worker import Database

logger = logging.getLogger(__name__)

SLICE = 15.0  # seconds of taking on what is due
CONNECT, ANSWER = 5.0, 10.0  # seconds: together the longest that one try takes
MOST = 64  # under way at once
OF_ONE_HOST = 8
CLAIMED = (40, 320)  # at once: few as long as it turns out that hosts are slow
PATIENCE = 5.0  # seconds
SUPPOSED = 0.25  # seconds that a host takes of which nothing is known
IN_HAND = 1000
SOON = 0.02  # seconds that results gather before they are written
RENEWED = 5.0  # seconds between two times that the turn is made longer
LOOK = 0.1  # seconds between two looks at what is due, while something is under way
READ = 16 * 1024  # octets of an answer
# A try that begins later than this after its claim might end after it.
GOOD_FOR = outbox.CLAIMED_FOR.total_seconds() - 2 * (CONNECT + ANSWER)
PUT_OFF = (0.2, 60.0)  # seconds: the least and the most
LISTED_WORDS = 200


def send_due(
    *, seconds: float = SLICE, should_stop: Callable[[], bool] = lambda: False, beat: Callable[[], None] = lambda: None
) -> bool:
    """Sends what is due, for so long at most, unless another process does. True when there is more. `beat` is called
    again and again meanwhile."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_send_due(seconds, should_stop, beat))


async def _send_due(seconds: float, should_stop: Callable[[], bool], beat: Callable[[], None]) -> bool:
    database = Database()
    me = owner.name()
    try:
        if not await database.ask(outbox.take_turn, me):
            return False
        client = _client()
        try:
            await Sender(database, client, me, should_stop, beat).run(seconds)
        finally:
            await client.close()
            await database.ask(outbox.end_turn, me)
        return await database.ask(outbox.due) is not None
    finally:
        await database.close()


def _client() -> Client:
    from delivery.http.transport import AiohttpTransport  # aiohttp takes a third of a second and 20 MB

    return Client(AiohttpTransport(conf().allowed_networks, max_answer=READ), connect=CONNECT)


class _Host:
    """One of those that are told: how many callbacks are in hand for it, and how long it takes for one."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(OF_ONE_HOST)
        self.in_hand = 0
        self._behind = 0  # put off, and not seen again so far
        self._seconds = SUPPOSED

    def took(self, seconds: float) -> None:
        """The last ones count the most."""
        self._seconds = (self._seconds + seconds) / 2

    def take(self) -> None:
        """One more is in hand."""
        self.in_hand += 1
        self._behind = max(0, self._behind - 1)

    def put_off(self, count: int) -> float:
        """So many more wait. In how many seconds it may be their turn."""
        self._behind += count
        least, most = PUT_OFF
        return min(most, max(least, (self.in_hand + self._behind) * self._seconds / OF_ONE_HOST))

    @property
    def has_room(self) -> bool:
        return self.in_hand < OF_ONE_HOST * max(1.0, PATIENCE / max(self._seconds, 0.001))


class Sender:
    """One turn of sending. Claims what is due and tries it; what came of it is written by group commit."""

    def __init__(
        self,
        database: Database,
        client: Client,
        me: str,
        should_stop: Callable[[], bool] = lambda: False,
        beat: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._client = client
        self._me = me
        self._should_stop = should_stop
        self._beat = beat
        self._rng = rng or random.Random()  # noqa: S311 - it spreads waits
        self._places = asyncio.Semaphore(MOST)
        self._hosts: dict[str, _Host] = defaultdict(_Host)
        self._claims = CLAIMED[0]
        self._under_way: set[asyncio.Task[None]] = set()
        self._told: list[Told] = []
        self._back: list[Due] = []
        self._ending = self._ended = False

    async def run(self, seconds: float) -> None:
        """Returns when nothing is due and nothing under way, when so many seconds have passed, or when it is told to
        stop; what is being tried then is waited for."""
        writing = asyncio.get_running_loop().create_task(self._keep_writing())
        try:
            await self._take_on(time.monotonic() + seconds, writing)
            self._ending = True  # what has not begun is put back
            while self._under_way:
                self._beat()
                await asyncio.wait(self._under_way, timeout=LOOK)
        finally:
            self._ended = True
            await writing

    async def _take_on(self, ends_at: float, writing: asyncio.Task[None]) -> None:
        renews_at = time.monotonic() + RENEWED
        while time.monotonic() < ends_at and not self._should_stop() and not writing.done():
            self._beat()
            if time.monotonic() > renews_at:
                if not await self._database.ask(outbox.take_turn, self._me):
                    return
                renews_at = time.monotonic() + RENEWED
            taken = await self._take() if len(self._under_way) < IN_HAND else False
            if not taken and not self._under_way:
                return
            if not taken:
                await asyncio.wait(self._under_way, timeout=LOOK)

    async def _take(self) -> bool:
        """Claims what is due, and tries it or puts it off. Whether there was anything."""
        claimed, claimed_at = await self._database.ask(outbox.claim, self._claims), time.monotonic()
        too_many: dict[_Host, list[Due]] = defaultdict(list)
        for each in claimed:
            host = self._hosts[host_of(each.url)]
            if not host.has_room:
                too_many[host].append(each)
                continue
            host.take()
            task = asyncio.get_running_loop().create_task(self._try(each, host, claimed_at))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        self._claims = CLAIMED[0] if too_many else min(CLAIMED[1], 2 * self._claims)
        for host, some in too_many.items():
            later = timedelta(seconds=host.put_off(len(some)) * self._rng.uniform(0.5, 1))
            await self._database.ask(outbox.put_off, some, now() + later)
        return bool(claimed)

    async def _try(self, due: Due, host: _Host, claimed_at: float) -> None:
        try:
            async with host.places, self._places:
                if self._ending or time.monotonic() - claimed_at > GOOD_FOR:
                    self._back.append(due)
                    return
                reply = await ask(self._client, due)
                host.took(reply.seconds)
            at = now()
            self._told.append(Told(due, reply, judge(reply, due.attempts + 1, due.gives_up_at, at, self._rng), at))
        finally:
            host.in_hand -= 1

    async def _keep_writing(self) -> None:
        while not self._ended:
            await asyncio.sleep(SOON)
            await self._write()
        await self._write()

    async def _write(self) -> None:
        told, self._told = self._told, []
        back, self._back = self._back, []
        if told:
            await self._database.commit(outbox.settle, told)
        if back:
            await self._database.ask(outbox.put_off, back, now())


async def ask(client: Client, due: Due) -> Reply:
    """What comes of one try."""
    if due.trouble:
        return Reply(None, due.trouble)
    try:
        refuse_bad_url(due.url)
    except ValueError as refusal:
        return Reply(None, str(refusal), hopeless=True)
    body = due.body.encode()
    headers = {"Content-Type": "application/json"} | signing.headers(due.keys, due.key, now(), body)
    begun = time.monotonic()
    try:
        answer = await client.exchange(Call("POST", due.url, headers, body), ANSWER)
    except Unreachable as trouble:
        return Reply(None, str(trouble), round(time.monotonic() - begun, 4), hopeless=trouble.hopeless)
    wait = None if answer.is_success else told_to_wait(answer.headers, now(), ("retry-after",))
    return Reply(answer.status, _words(answer), round(time.monotonic() - begun, 4), wait)


def _words(answer: Answer) -> str:
    if 300 <= answer.status <= 399:
        return "It leads elsewhere, and is not followed: enter the URL where it leads."
    return answer.words()[:LISTED_WORDS]


def ping(webhook: Webhook) -> Callback:
    """Tells a webhook that it is there, now, and once. Returns what came of it. Raises CallbackRefused for one that is
    switched off, SecretUnreadable."""
    refuse_unless_on(webhook)
    body = written(names.PING, {"webhook": {"id": webhook.pk, "name": webhook.name}})
    keys = signing.signing(webhook.secrets, now())
    due = Due(0, "", new_key(), webhook.url, body, 0, gives_up_at(), webhook.pk, keys)
    reply = asyncio.run(_ask_once(due))
    return outbox.record_ping(webhook, due, reply, now())


async def _ask_once(due: Due) -> Reply:
    client = _client()
    try:
        return await ask(client, due)
    finally:
        await client.close()


def shown(body: str) -> object:
    """The body of a callback as data."""
    return json.loads(body)
