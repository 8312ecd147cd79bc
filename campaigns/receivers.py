"""What news from delivery means for a run."""

from django.dispatch import receiver

from campaigns.finish import finish
from campaigns.models import Run
from campaigns.wake import wake_pumps
from delivery.signals import batch_done, engine_back, reviewed


@receiver(batch_done)
def end_the_run(sender: object, *, batch_id: int, counts: dict[str, int], **kwargs: object) -> None:
    """Every delivery of a run has its end state."""
    run = Run.objects.filter(batch=batch_id).first()
    if run:
        finish(run, counts)


@receiver([engine_back, reviewed])
def send_what_waited(sender: object, **kwargs: object) -> None:
    """Workers that had nothing to do but wait for an engine, or for a person, have gone."""
    wake_pumps()
