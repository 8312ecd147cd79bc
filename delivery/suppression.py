"""The door to suppressions: how an address gets there. The gate stands in `delivery.queue.outcomes.mark`."""

from collections.abc import Collection

from django.db import connection

from delivery.addresses import identity, normalise
from delivery.models import Suppression, SuppressionReason
from delivery.queue.dialect import is_postgres, table, values


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


def suppressed_among(identities: Collection[str]) -> tuple[set[str], set[str]]:
    """Which of these get no mail at all, and which others none of some scope."""
    if not identities:
        return set(), set()
    source, parameters = values("v", {"identity": str}, [(identity,) for identity in identities])
    wanted = f"{table(Suppression)} AS s WHERE s.identity = v.identity"
    if is_postgres():
        # One look into the index for each, whatever the planner believes of the table. OFFSET 0 keeps it so.
        joined = f"{source} CROSS JOIN LATERAL (SELECT s.identity, s.scope FROM {wanted} OFFSET 0) AS s"  # noqa: S608
    else:
        joined = f"{source} CROSS JOIN {wanted}"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT s.identity, s.scope FROM {joined}", parameters)  # noqa: S608
        rows = set(cursor.fetchall())
    from_all = {identity for identity, scope in rows if not scope}
    return from_all, {identity for identity, _ in rows} - from_all
