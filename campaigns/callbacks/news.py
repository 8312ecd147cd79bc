"""What is told, written down in the transaction that makes it true: then it is told, or it did not happen.

A run's own callback_url hears of its pauses and its end; webhooks hear of what they ask for. Deliveries are many, so a
callback lists up to LISTED of them. Where many end in one statement, because a run is cancelled, the first MOST_LISTED
are listed, and of the rest is said how many there are.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Protocol

from django.utils.timezone import now
from rest_framework.utils.encoders import JSONEncoder

from campaigns.callbacks import names, subscriptions
from campaigns.callbacks.subscriptions import Subscription
from campaigns.models import Callback, Run
from delivery.models import OPEN_STATES, Batch, Delivery, Engine, Message
from delivery.queue import Heard
from delivery.redaction import without_addresses, without_secrets

LISTED = 500
MOST_LISTED = 10_000

Fields = dict[str, object]


class Ended(Protocol):
    """A delivery that has just ended."""

    id: int
    batch: int
    state: str


# ---- runs ----


def run_moved(run_id: int, state: str, callback_url: str = "") -> None:
    """A run has come into this state. Part of the transaction that moves it."""
    name = f"run.{state}"
    told = subscriptions.wanting({name})
    own = callback_url if name in names.OF_A_RUN else ""
    if not told and not own:
        return
    body = written(name, _run(run_id))
    callbacks = [Callback(webhook_id=each.webhook, url=each.url, type=name, body=body, run_id=run_id) for each in told]
    if own:
        callbacks.append(Callback(url=own, type=name, body=body, run_id=run_id))
    Callback.objects.bulk_create(callbacks)


def _run(run_id: int) -> Fields:
    """The run as the API shows it."""
    from campaigns.api.runs import RunSerializer  # imports what moves runs

    return dict(RunSerializer(Run.objects.select_related("workflow", "batch").get(pk=run_id)).data)


# ---- deliveries ----


def deliveries_ended(ended: Sequence[Ended]) -> None:
    """These deliveries have come to an end. Part of the transaction that writes it."""
    told = subscriptions.wanting([f"delivery.{state}" for state in {each.state for each in ended}])
    if not told:
        return
    rows = {row["id"]: row for row in _deliveries([each.id for each in ended])}
    for each in told:
        # What came back in the same transaction has not ended.
        wanted = [row for row in rows.values() if f"delivery.{row['state']}" in each.wanted]
        _list(each, names.ENDED, wanted)


def batch_cut(batch_id: int, at: datetime, counts: dict[str, int]) -> None:
    """So many deliveries of a batch have ended in one statement, at this instant. Part of its transaction."""
    for each in subscriptions.wanting({f"delivery.{state}" for state in counts}):
        states = [state for state in counts if f"delivery.{state}" in each.wanted]
        rows = Batch.objects.get(pk=batch_id).rows().filter(settled_at=at, state__in=states)
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[:MOST_LISTED])
        more = sum(counts[state] for state in states) - len(ids)
        parts = (ids[start : start + LISTED] for start in range(0, len(ids), LISTED))
        _list(each, names.ENDED, (row for part in parts for row in _deliveries(part)), more)


def heard(events: Sequence[Heard]) -> None:
    """This was heard of deliveries after they were accepted. Part of the transaction that writes it."""
    told = subscriptions.wanting({f"delivery.{each.kind}" for each in events})
    if not told:
        return
    rows = {row["id"]: row for row in _deliveries({each.delivery for each in events})}
    for each in told:
        _list(
            each,
            names.LISTENED,
            (
                {name: rows[event.delivery][name] for name in ("id", "run", "step", "address")}
                | {"kind": event.kind.value, "at": event.at}
                for event in events
                if event.delivery in rows and f"delivery.{event.kind}" in each.wanted
            ),
        )


def _deliveries(ids: Iterable[int]) -> Iterator[Fields]:
    """Deliveries as they are told."""
    fields = ("id", "batch_id", "message_id", "address", "state", "code", "words", "settled_at")
    ended = Delivery.objects.filter(pk__in=list(ids)).exclude(state__in=OPEN_STATES)
    found = list(ended.order_by("pk").values(*fields))
    runs = dict(Run.objects.filter(batch__in={row["batch_id"] for row in found}).values_list("batch", "pk"))
    messages = Message.objects.filter(pk__in={row["message_id"] for row in found})
    steps = dict(messages.values_list("pk", "position"))
    for row in found:
        yield {
            "id": row["id"],
            "run": runs.get(row["batch_id"]),  # a single message belongs to none
            "step": steps.get(row["message_id"]),
            "address": row["address"],
            "state": row["state"],
            "code": row["code"],
            "words": without_secrets(row["words"]),
            "at": row["settled_at"],
        }


def _list(told: Subscription, kind: str, rows: Iterable[Fields], more: int = 0) -> None:
    """Callbacks to one webhook that list these deliveries; `more`: how many are not listed."""
    left = iter(rows)
    while some := list(islice(left, LISTED)):
        body = written(kind, {"deliveries": some, "more": more})
        Callback.objects.create(webhook_id=told.webhook, url=told.url, type=kind, body=body)


# ---- engines ----


def engine_changed(engine_id: int, what: str, by: str, why: str, until: datetime | None) -> None:
    """Somebody, or its own trouble, has changed how an engine is used."""
    name = f"engine.{what}"
    told = subscriptions.wanting({name})
    engine = Engine.objects.filter(pk=engine_id).values("id", "slug", "name", "kind").first() if told else None
    if engine is None:
        return
    why = without_addresses(without_secrets(why))
    body = written(name, {"engine": engine, "by": by, "why": why, "until": until})
    Callback.objects.bulk_create(Callback(webhook_id=each.webhook, url=each.url, type=name, body=body) for each in told)


def written(kind: str, data: Fields, clock: Callable[[], datetime] = now) -> str:
    """The body of a callback."""
    return json.dumps({"type": kind, "timestamp": clock(), "data": data}, cls=JSONEncoder, separators=(",", ":"))
