"""Single mails: each is one delivery more in a standing batch, of which there is one for a day, a pool and a priority.

So the queue, the limits, the suppressions and the log are those of every other mail, and a mail costs one row.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from delivery.addresses import identity
from delivery.models import NO_DEADLINE, Batch, Delivery, Message
from delivery.models.batch import BatchState
from delivery.queue import batches

SCOPE = "messages"  # unsubscribed from these: a scope of suppressions
CLOSED_AFTER = timedelta(days=2)  # whoever began to write on its day has written


@dataclass(frozen=True, slots=True)
class Single:
    """One mail: to whom, with which data for its message, and until when it should be gone."""

    address: str
    name: str
    data: Mapping[str, object]
    deadline: datetime | None = None


def standing_batch(day: str, pool_id: int, priority: int) -> int:
    """The id of the open batch that takes the single mails of a day, written as 2026-12-24."""
    reference = f"messages-{day}-{pool_id}-{priority}"
    batch, _ = Batch.objects.get_or_create(
        reference=reference,
        defaults={
            "label": f"Single messages of {day}",
            "scope": SCOPE,
            "pool_id": pool_id,
            "priority": priority,
            "state": BatchState.OPEN,
            "standing": True,
        },
    )
    return batch.pk


def message_of(batch_id: int, content: Mapping[str, object]) -> int:
    """The id of the message with these fields in the batch: mails of the same words share it."""
    words = "\0".join(f"{name}={content[name]}" for name in sorted(content))
    token = sha256(f"{batch_id}\0{words}".encode()).hexdigest()[:16]
    message, _ = Message.objects.get_or_create(token=token, defaults={"batch_id": batch_id, **content})
    return message.pk


def add(batch_id: int, message_id: int, single: Single) -> int:
    """Writes one mail, ready to go. Returns the delivery's id. Part of the caller's transaction, near its end: all who
    write to the batch wait for each other from here."""
    delivery = Delivery.objects.create(
        batch_id=batch_id,
        message_id=message_id,
        address=single.address,
        identity=identity(single.address),
        key=secrets.token_urlsafe(12),  # the same person may get the same words again
        name=single.name[:200],
        data=single.data,
        deadline=single.deadline or NO_DEADLINE,
    )
    batches.grew(batch_id, [delivery.pk])
    return delivery.pk


def close_standing(now: datetime) -> None:
    """Takes no more into the batches of days that are over: they are done when their last mail is."""
    over = Batch.objects.filter(standing=True, created_at__lt=now - CLOSED_AFTER)
    for batch_id in over.values_list("pk", flat=True):
        Batch.objects.filter(pk=batch_id).update(standing=False)
        batches.finish_if_done(batch_id)
