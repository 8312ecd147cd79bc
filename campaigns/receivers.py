"""What news from delivery means for a run."""

from django.dispatch import receiver

from campaigns.finish import finish
from campaigns.models import Run
from delivery.signals import batch_done


@receiver(batch_done)
def end_the_run(sender: object, *, batch_id: int, counts: dict[str, int], **kwargs: object) -> None:
    """Every delivery of a run has its end state."""
    run = Run.objects.filter(batch=batch_id).first()
    if run:
        finish(run, counts)
