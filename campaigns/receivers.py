"""What news from delivery means for a run."""

from collections.abc import Sequence
from datetime import datetime

from django.dispatch import receiver

from campaigns.callbacks import news
from campaigns.finish import finish
from campaigns.models import Run
from campaigns.wake import wake_pumps
from delivery.queue import Heard
from delivery.signals import (
    batch_cut,
    batch_done,
    deliveries_ended,
    deliveries_heard,
    engine_back,
    engine_changed,
    reviewed,
)


@receiver(batch_done)
def end_the_run(sender: object, *, batch_id: int, counts: dict[str, int], **kwargs: object) -> None:
    """Every delivery of a run has its end state."""
    run = Run.objects.filter(batch=batch_id).first()
    if run:
        finish(run, counts)


@receiver(deliveries_ended)
def tell_what_ended(sender: object, *, ended: Sequence[news.Ended], **kwargs: object) -> None:
    news.deliveries_ended(ended)


@receiver(batch_cut)
def tell_what_was_cut(sender: object, *, batch_id: int, at: datetime, counts: dict[str, int], **kwargs: object) -> None:
    news.batch_cut(batch_id, at, counts)


@receiver(deliveries_heard)
def tell_what_was_heard(sender: object, *, heard: Sequence[Heard], **kwargs: object) -> None:
    news.heard(heard)


@receiver(engine_changed)
def tell_of_the_engine(
    sender: object, *, engine_id: int, what: str, by: str, why: str, until: datetime | None, **kwargs: object
) -> None:
    news.engine_changed(engine_id, what, by, why, until)


@receiver([engine_back, reviewed])
def send_what_waited(sender: object, **kwargs: object) -> None:
    """Workers that had nothing to do but wait for an engine, or for a person, have gone."""
    wake_pumps()
