"""Deliveries whose words are to be composed: what the tests of composing have in common."""

import itertools

from django.utils import timezone

from delivery import queue
from delivery.models import NO_DEADLINE, Batch, Composition, Delivery, Engine, Message, Pool
from delivery.models.batch import BatchState
from delivery.queue import composing

serials = itertools.count(1)


def composer(name="composer", kind="mock_composer", **fields):
    """A stored composer."""
    return Engine.objects.get_or_create(slug=name, defaults={"name": name, "kind": kind, **fields})[0]


def composed_batch(
    size=1, *, engine=None, review=False, prompt="Write to {{ first }}.", deadline=NO_DEADLINE, **fields
):
    """An open batch of so many deliveries that wait for their words."""
    serial = next(serials)
    pool, _ = Pool.objects.get_or_create(slug="pool", defaults={"name": "pool"})
    asked = {"engine": (engine or composer()).pk, "prompt": prompt, "review": review}
    batch = Batch.objects.create(label=f"Spring {serial}", reference=f"composed {serial}", pool=pool, **fields)
    message = Message.objects.create(
        batch=batch,
        token=f"composed{serial}",
        subject="Hi {{ first }}",
        text="The template for {{ first }}",
        from_address="a@shop.example",
        return_path="b@shop.example",
        composing=asked,
    )
    for number in range(size):
        address = f"person-{number}@example.test"
        Delivery.objects.create(
            batch=batch,
            message=message,
            address=address,
            identity=address,
            data={"first": f"Ann {number}"},
            state="waiting",
            pending=1,
            deadline=deadline,
        )
    rows = ids_of(batch)
    Batch.objects.filter(pk=batch.pk).update(
        state=BatchState.FILLING, total=size, first_id=min(rows, default=None), last_id=max(rows, default=None)
    )
    composing.want(rows, timezone.now())
    queue.open_for_sending(batch.pk)
    return batch


def ids_of(batch):
    return list(Delivery.objects.filter(batch=batch).order_by("pk").values_list("pk", flat=True))


def compositions(batch, *fields):
    """What is written of a batch's compositions, in the order of their deliveries."""
    rows = Composition.objects.filter(batch=batch).order_by("pk")
    return list(rows.values_list(*fields, flat=len(fields) == 1))


def states(batch):
    return compositions(batch, "state")


def deliveries(batch):
    """State and what is waited for, of each delivery."""
    return list(Delivery.objects.filter(batch=batch).order_by("pk").values_list("state", "pending"))
