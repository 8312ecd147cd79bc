"""The door to suppressions: how an address gets there. The gate stands in `delivery.queue.outcomes.mark`."""

from delivery.addresses import identity, normalise
from delivery.models import Suppression, SuppressionReason


def suppress(address: str, reason: SuppressionReason, *, scope: str = "", source: str = "") -> bool:
    """From now on `address` gets no mail: none at all, or none of `scope`. False when that was so already.

    Raises ImpossibleAddress.
    """
    plain = normalise(address)
    _, made = Suppression.objects.get_or_create(
        identity=identity(plain),
        scope=scope,
        defaults={"address": plain, "reason": reason, "source": source[:200]},
    )
    return made
