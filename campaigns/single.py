"""One mail without a workflow: through a template, or with words that came with it. It is a delivery like every other,
in the standing batch of its day (`delivery.queue.singles`)."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from django.db import transaction
from django.utils import timezone

from campaigns import soon
from campaigns.conf import conf
from campaigns.exceptions import NotReady
from campaigns.freezing import SANDBOX, refuse_pool
from campaigns.models import Template
from delivery import queue
from delivery.composition import CompiledMessage
from delivery.core.envelope import Mailbox
from delivery.models import Message, Pool

# Words that come with a mail are no template: they are data of this one, and so all such mails share a message.
WORDS = {"subject": "{{ subject }}", "text": "{{ text }}", "html": "{{ html|safe }}"}
PARTS = ("subject", "text", "html")

_making = threading.Lock()  # a compiled message is one thread's at a time


@dataclass(frozen=True, slots=True)
class Sender:
    """From whom a mail comes, and where answers go."""

    address: str
    name: str = ""
    reply_to: str = ""


@dataclass(frozen=True, slots=True)
class Mail:
    """What is to be sent: a template with its data, or words (subject, text, html)."""

    to: Mailbox
    sender: Sender
    template: Template | None = None
    data: Mapping[str, object] | None = None
    words: Mapping[str, str] | None = None
    deadline: datetime | None = None


def usual_pool() -> Pool:
    """The pool that mails go through which name none: the only one there is. Raises NotReady."""
    pools = list(Pool.objects.exclude(slug=SANDBOX).order_by("slug")[:20])
    if len(pools) == 1:
        return pools[0]
    if not pools:
        raise NotReady("There is no pool to send through: make one, with an engine in it.")
    raise NotReady(f"Which pool? There is: {', '.join(pool.slug for pool in pools)}.")


def prepared(mail: Mail, pool: Pool, priority: int) -> tuple[int, int, queue.Single]:
    """Batch, message and what is to be written, once the mail was made and found right. Raises NotReady,
    TemplateProblem."""
    refuse_pool(pool, mail.sender.address.rpartition("@")[2].lower())
    content, data = _content(mail)
    batch_id = _batch(f"{timezone.now():%Y-%m-%d}", pool.pk, priority)
    message_id = _message(batch_id, tuple(sorted(content.items())))
    with _making:
        _compiled(message_id).envelope(0, mail.to, data, timezone.now())
    return batch_id, message_id, queue.Single(mail.to.address, mail.to.name, data, mail.deadline)


def send(batch_id: int, message_id: int, single: queue.Single) -> int:
    """Queues what was prepared. Returns the id of the delivery. Part of the caller's transaction."""
    delivery_id = queue.add_single(batch_id, message_id, single)
    transaction.on_commit(soon.pumps)
    return delivery_id


def _content(mail: Mail) -> tuple[dict[str, object], dict[str, object]]:
    """The columns of its message, and its data."""
    sender = {
        "from_name": mail.sender.name,
        "from_address": mail.sender.address,
        "reply_to": mail.sender.reply_to,
        "return_path": mail.sender.address,
        "unsubscribe": False,
    }
    if mail.template is None:
        given = {part: mail.words.get(part, "") for part in PARTS}
        used = {part: WORDS[part] if part == "subject" or given[part] else "" for part in PARTS}
        return sender | used, {part: given[part] for part in PARTS if used[part]}
    version = mail.template.latest
    if version is None:
        raise NotReady(f"Template {mail.template.slug} has no words yet: save it once.")
    return sender | {part: getattr(version, part) for part in PARTS}, dict(mail.data or {})


@lru_cache(maxsize=256)
def _batch(day: str, pool_id: int, priority: int) -> int:
    return queue.standing_batch(day, pool_id, priority)


@lru_cache(maxsize=256)
def _message(batch_id: int, content: tuple[tuple[str, object], ...]) -> int:
    return queue.message_of(batch_id, dict(content))


@lru_cache(maxsize=64)
def _compiled(message_id: int) -> CompiledMessage:
    return CompiledMessage(Message.objects.get(pk=message_id), conf().public_url)


def forget() -> None:
    """What is remembered of batches and messages is of another database."""
    for remembered in (_batch, _message, _compiled):
        remembered.cache_clear()
