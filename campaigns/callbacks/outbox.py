"""What waits to be told: claimed by one sender, settled by what came of it, replayed by a person, thrown away when old.

A claim is a time and a token: nobody else takes a callback before the time, and an answer counts only for the token
that it was claimed with. What a sender had that died is due when the time has passed, or at once when its host sees it.
"""

import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q
from django.utils.timezone import now as clock

from campaigns.callbacks import signing, webhooks
from campaigns.callbacks.names import PING
from campaigns.callbacks.retry import GONE, Reply, Verdict
from campaigns.exceptions import CallbackRefused
from campaigns.models import Callback, CallbackAttempt, CallbackSender, CallbackState, Webhook
from campaigns.models.callback import KEEPS_TRYING
from delivery import owner
from delivery.exceptions import SecretUnreadable
from delivery.queue import database_now
from delivery.redaction import without_secrets

logger = logging.getLogger(__name__)

CLAIMED_FOR = timedelta(seconds=90)
TURN = timedelta(seconds=30)  # so long a sender that is silent keeps others off
KEPT = timedelta(days=30)
FORGOTTEN_AT_ONCE = 500
FORGETS = 20  # times in one tick
LONGEST_WORDS = 300
REMOVED = "Its webhook was deleted."


@dataclass(frozen=True, slots=True)
class Due:
    """A callback in a sender's hands. `keys` sign it; where they cannot be read, `trouble` says why."""

    id: int
    claim: str
    key: str
    url: str
    body: str = field(repr=False)
    attempts: int
    gives_up_at: datetime
    webhook: int | None
    keys: Sequence[str] = field(repr=False)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one try."""

    due: Due
    reply: Reply
    verdict: Verdict
    at: datetime


# ---- for a sender ----


def take_turn(name: str) -> bool:
    """Whether this process is the one that sends, for the next TURN."""
    now = database_now()
    take_back()
    free = Q(until=None) | Q(until__lte=now) | Q(owner=name)
    mine = CallbackSender.objects.filter(free, pk=1).update(owner=name, until=now + TURN)
    if not mine and not CallbackSender.objects.filter(pk=1).exists():
        CallbackSender.objects.bulk_create([CallbackSender(pk=1)], ignore_conflicts=True)
        return take_turn(name)
    return bool(mine)


def take_back() -> None:
    """What a sender of this host had whose process is gone is due at once: nobody else had anything."""
    holder = CallbackSender.objects.filter(pk=1).exclude(owner="").values_list("owner", flat=True).first()
    if holder is None or not owner.is_gone(holder):
        return
    now = database_now()
    with transaction.atomic():
        if CallbackSender.objects.filter(pk=1, owner=holder).update(owner="", until=None):
            claimed = Callback.objects.filter(state=CallbackState.WAITING, next_at__lte=now + CLAIMED_FOR)
            claimed.exclude(claim="").update(next_at=now, claim="")


def end_turn(name: str) -> None:
    """Another process may send."""
    CallbackSender.objects.filter(pk=1, owner=name).update(owner="", until=None)


def somebody_sends() -> bool:
    """Whether a process has the turn and lives, as far as is known."""
    sender = CallbackSender.objects.filter(pk=1, until__gt=database_now()).first()
    return sender is not None and not owner.is_gone(sender.owner)


def due(since: timedelta = timedelta()) -> int | None:
    """The callback that has been due the longest, and for so long at least: one look into an index."""
    rows = Callback.objects.filter(state=CallbackState.WAITING, next_at__lte=database_now() - since)
    return rows.order_by("next_at").values_list("pk", flat=True).first()


def claim(limit: int) -> list[Due]:
    """Up to `limit` of what is due, now in this sender's hands for CLAIMED_FOR. What belongs to a webhook that is
    switched off waits until that is switched on; to one that is deleted, is dead."""
    token, now = secrets.token_hex(8), database_now()
    with transaction.atomic():
        rows = Callback.objects.filter(state=CallbackState.WAITING, next_at__lte=now).order_by("next_at")
        ids = list(rows.select_for_update(skip_locked=True).values_list("pk", flat=True)[:limit])
        Callback.objects.filter(pk__in=ids).update(claim=token, next_at=now + CLAIMED_FOR)
    claimed = list(Callback.objects.filter(pk__in=ids, claim=token).order_by("pk"))
    hooks = Webhook.objects.in_bulk({each.webhook_id for each in claimed if each.webhook_id is not None})
    found, off, gone = [], [], []
    for each in claimed:
        hook = hooks.get(each.webhook_id)
        if each.webhook_id is not None and hook is None:
            gone.append(each.pk)
        elif hook is not None and not hook.enabled:
            off.append(each.pk)
        else:
            found.append(_due(each, hook, now))
    mine = Callback.objects.filter(claim=token)
    if off:
        mine.filter(pk__in=off).update(next_at=None, claim="")
    if gone:
        mine.filter(pk__in=gone).update(**_ended(CallbackState.DEAD, now), words=REMOVED)
    return found


def _due(callback: Callback, hook: Webhook | None, now: datetime) -> Due:
    keys, trouble = [], ""
    try:
        keys = signing.installation_secrets() if hook is None else signing.signing(hook.secrets, now)
    except SecretUnreadable as refusal:
        trouble = str(refusal)
    return Due(
        callback.pk,
        callback.claim,
        callback.key,
        callback.url if hook is None else hook.url,
        callback.body,
        callback.attempts,
        callback.gives_up_at,
        callback.webhook_id,
        keys,
        trouble,
    )


def put_off(claimed: Iterable[Due], until: datetime) -> None:
    """Callbacks that this sender has claimed and not tried are due at `until`, for anybody."""
    by_claim: dict[str, list[int]] = defaultdict(list)
    for each in claimed:
        by_claim[each.claim].append(each.id)
    for token, ids in by_claim.items():
        rows = Callback.objects.filter(pk__in=ids, claim=token, next_at__isnull=False)
        rows.update(next_at=until, claim="")


def settle(told: Sequence[Told]) -> None:
    """Writes what came of tries. Part of the caller's transaction; asking twice changes nothing."""
    mine = set()
    for token in {each.due.claim for each in told}:
        ids = [each.due.id for each in told if each.due.claim == token]
        rows = Callback.objects.filter(pk__in=ids, claim=token, state=CallbackState.WAITING)
        mine |= set(rows.select_for_update().order_by("pk").values_list("pk", flat=True))
    told = [each for each in told if each.due.id in mine]
    delivered = [each.due.id for each in told if each.verdict.state is CallbackState.DELIVERED]
    now = clock()
    Callback.objects.filter(pk__in=delivered).update(
        **_ended(CallbackState.DELIVERED, now), words="", attempts=F("attempts") + 1
    )
    for each in told:
        if each.verdict.state is not CallbackState.DELIVERED:
            _write_failure(each)
    CallbackAttempt.objects.bulk_create(_attempt(each) for each in told)
    _judge_webhooks(told, now)


def _write_failure(told: Told) -> None:
    words = said(told.reply)
    if told.verdict.state is CallbackState.DEAD:
        fields = _ended(CallbackState.DEAD, told.at)
        extra = {"callback": told.due.key, "attempts": told.due.attempts + 1}
        logger.warning("callback is dead: %s", words, extra=extra)
    else:
        fields = {"next_at": told.verdict.next_at, "claim": ""}
    Callback.objects.filter(pk=told.due.id).update(**fields, words=words, attempts=F("attempts") + 1)


def _ended(state: CallbackState, at: datetime) -> dict[str, object]:
    return {"state": state, "ended_at": at, "next_at": None, "claim": ""}


def _attempt(told: Told) -> CallbackAttempt:
    return CallbackAttempt(
        callback_id=told.due.id,
        at=told.at,
        seconds=told.reply.seconds,
        status=told.reply.status,
        words=without_secrets(told.reply.words)[:LONGEST_WORDS],
    )


def said(reply: Reply) -> str:
    """What came of a try, in a line."""
    words = f"{reply.status} {reply.words}" if reply.status is not None else reply.words
    return without_secrets(words.strip())[:LONGEST_WORDS]


def _judge_webhooks(told: Sequence[Told], now: datetime) -> None:
    """A success of any is a webhook's health; failures of all, and nothing but failures for long, its end."""
    well = {each.due.webhook for each in told if each.verdict.state is CallbackState.DELIVERED}
    failed = Counter(each.due.webhook for each in told if each.due.webhook not in well)
    webhooks.did_well(well - {None})
    for webhook_id, count in failed.items():
        if webhook_id is not None:
            webhooks.failed(webhook_id, count, now)
    for each in told:
        if each.reply.status == GONE and each.due.webhook is not None:
            webhooks.switch_off(each.due.webhook, why="It answered 410: nobody is there any more.")


def record_ping(hook: Webhook, due: Due, reply: Reply, at: datetime) -> Callback:
    """What came of a ping, which is tried once and before it is written down."""
    state = CallbackState.DELIVERED if reply.is_success else CallbackState.DEAD
    words = "" if reply.is_success else said(reply)
    told = {"key": due.key, "webhook": hook, "url": due.url, "type": PING, "body": due.body}
    with transaction.atomic():
        made = Callback.objects.create(**told, **_ended(state, at), words=words, attempts=1)
        CallbackAttempt.objects.bulk_create([_attempt(Told(replace(due, id=made.pk), reply, Verdict(state), at))])
    return made


# ---- for a person ----


def replay(ids: Collection[int], by: str) -> int:
    """Sends dead letters again, for another 24 hours, under their old keys. Returns how many. What belongs to a webhook
    that is switched off waits for it. Raises CallbackRefused when there is none among them that can be sent."""
    now = database_now()
    rows = Callback.objects.filter(pk__in=list(ids), state=CallbackState.DEAD)
    rows = rows.filter(Q(webhook=None) | Q(webhook__in=Webhook.objects.all()))
    fresh = {"state": CallbackState.WAITING, "attempts": 0, "ended_at": None, "next_at": now, "claim": ""}
    count = rows.update(**fresh, gives_up_at=now + KEEPS_TRYING)
    if not count:
        raise CallbackRefused("Only a dead letter is sent again, and only while its webhook is there.")
    logger.info("callbacks are sent again", extra={"count": count, "by": by})
    return count


# ---- for the tick ----


def sweep() -> None:
    """What a crash or a race left behind, and what is old."""
    take_back()
    parked = Callback.objects.filter(webhook__in=Webhook.objects.filter(enabled=True), state=CallbackState.WAITING)
    parked.filter(next_at=None, claim="").update(next_at=database_now())
    for _ in range(FORGETS):
        if not _forget():
            break


def _forget() -> int:
    old = Callback.objects.filter(state=CallbackState.DELIVERED, ended_at__lt=clock() - KEPT).order_by("ended_at")
    ids = list(old.values_list("pk", flat=True)[:FORGOTTEN_AT_ONCE])
    with transaction.atomic():
        CallbackAttempt.objects.filter(callback__in=ids).delete()
        Callback.objects.filter(pk__in=ids).delete()
    return len(ids)
