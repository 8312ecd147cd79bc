"""Webhooks: set up, switched off and on, removed; each deed is in its history. One that nobody answers for a day is
switched off, and says so."""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from campaigns.callbacks import names, signing, subscriptions
from campaigns.callbacks.urls import refuse_bad_url
from campaigns.exceptions import CallbackRefused
from campaigns.models import Callback, CallbackState, Webhook, WebhookEvent
from campaigns.models.callback import KEEPS_TRYING
from delivery.queue import database_now
from delivery.redaction import without_secrets

logger = logging.getLogger(__name__)

STEADY = timedelta(hours=24)  # of nothing but failures
LEAST_FAILURES = 20


def check(webhook: Webhook) -> None:
    """Raises ValidationError, by field, for what cannot work or is there already."""
    webhook.full_clean(exclude=["events", "url"])
    refusals = {}
    for field, refuse in (("url", refuse_bad_url), ("events", names.refuse_bad_patterns)):
        try:
            refuse(getattr(webhook, field))
        except ValueError as refusal:
            refusals[field] = str(refusal)
    if refusals:
        raise ValidationError(refusals)


def add(webhook: Webhook, by: str) -> str:
    """Writes a new webhook, checked before. Returns its secret, which is not shown again."""
    webhook.secrets = signing.fresh()
    with transaction.atomic():
        webhook.save()
        _record(webhook.pk, "added", by)
    return signing.current(webhook.secrets)


def change(webhook: Webhook, by: str) -> None:
    """Writes what was changed in a webhook, checked before. One that is switched on is sent what waited for it."""
    with transaction.atomic():
        before = Webhook.objects.select_for_update().get(pk=webhook.pk)
        webhook.save(update_fields=["name", "url", "events", "changed_at"])
        for field in ("name", "url", "events"):
            old, new = getattr(before, field), getattr(webhook, field)
            if old != new:
                _record(webhook.pk, f"{field}: {_shown(old)} → {_shown(new)}"[:300], by)
        if webhook.enabled and not before.enabled:
            switch_on(webhook.pk, by)
        elif before.enabled and not webhook.enabled:
            switch_off(webhook.pk, by)


def rotate(webhook: Webhook, by: str) -> str:
    """A new secret; the old one signs beside it for a day. Returns the new one, which is not shown again."""
    with transaction.atomic():
        webhook = Webhook.objects.select_for_update().get(pk=webhook.pk)
        webhook.secrets = signing.replaced(webhook.secrets, database_now())
        webhook.save(update_fields=["secrets", "changed_at"])
        _record(webhook.pk, "secret replaced", by)
    return signing.current(webhook.secrets)


def switch_on(webhook_id: int, by: str) -> None:
    """Tells it again, and what waited for it, for another 24 hours."""
    now = database_now()
    with transaction.atomic():
        off = Webhook.objects.filter(pk=webhook_id, enabled=False)
        if off.update(enabled=True, failing_since=None, failures=0, switched_off_why="", changed_at=now):
            waiting = Callback.objects.filter(webhook=webhook_id, state=CallbackState.WAITING, next_at=None)
            waiting.update(next_at=now, claim="", attempts=0, gives_up_at=now + KEEPS_TRYING)
            _record(webhook_id, "switched on", by)


def switch_off(webhook_id: int, by: str = "", why: str = "") -> bool:
    """Tells it nothing any more; what waits for it is kept. Without `by` it is this installation that does so, and says
    why. False when it was off already."""
    with transaction.atomic():
        on = Webhook.objects.filter(pk=webhook_id, enabled=True)
        if not on.update(enabled=False, switched_off_why=why, changed_at=database_now()):
            return False
        Callback.objects.filter(webhook=webhook_id, state=CallbackState.WAITING).update(next_at=None)
        _record(webhook_id, "switched off", by, why)
        if not by:
            name = Webhook.objects.values_list("name", flat=True).get(pk=webhook_id)
            transaction.on_commit(lambda: logger.error("webhook %s is switched off: %s", name, why))
    return True


def remove(webhook: Webhook, by: str) -> None:
    """Deletes a webhook. What it was told is kept; what waits for it is dead."""
    from campaigns.callbacks.outbox import REMOVED  # imports this module

    with transaction.atomic():
        waiting = Callback.objects.filter(webhook=webhook.pk).exclude(state=CallbackState.DELIVERED)
        waiting.filter(state=CallbackState.WAITING).update(ended_at=database_now())
        waiting.update(state=CallbackState.DEAD, next_at=None, claim="", words=REMOVED)
        name = webhook.name
        webhook.delete()
        transaction.on_commit(subscriptions.forget)
        transaction.on_commit(lambda: logger.info("webhook %s is deleted", name, extra={"by": by}))


# ---- what its answers say of it ----


def did_well(webhook_ids: Collection[int]) -> None:
    """Each of these took what it was told."""
    if webhook_ids:
        failing = Webhook.objects.filter(pk__in=webhook_ids, failing_since__isnull=False)
        failing.update(failing_since=None, failures=0)


def failed(webhook_id: int, count: int, now: datetime) -> None:
    """So many more attempts failed, and none did not. After STEADY of it, and LEAST_FAILURES, it is switched off."""
    hook = Webhook.objects.filter(pk=webhook_id)
    hook.update(failing_since=Coalesce("failing_since", now), failures=F("failures") + count)
    if hook.filter(enabled=True, failing_since__lte=now - STEADY, failures__gte=LEAST_FAILURES).exists():
        switch_off(webhook_id, why=f"Nothing that it was told for {STEADY.total_seconds() / 3600:.0f} hours arrived.")


def refuse_unless_on(webhook: Webhook) -> None:
    """Raises CallbackRefused for one that is switched off."""
    if not webhook.enabled:
        raise CallbackRefused(f"Webhook {webhook.name} is switched off: switch it on first.")


def _record(webhook_id: int, what: str, by: str, why: str = "") -> None:
    WebhookEvent.objects.create(webhook_id=webhook_id, what=what, by=by[:150], why=why[:300])
    subscriptions.forget()
    transaction.on_commit(subscriptions.forget)


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else without_secrets(str(value))
