"""What a person changed in the settings of an engine, in words, for its history. Credentials are never shown."""

from collections.abc import Mapping

from django.db import transaction

from delivery import queue
from delivery.exceptions import SecretUnreadable
from delivery.models import Engine, EngineEvent
from delivery.redaction import HIDDEN, is_secret_name, without_secrets
from delivery.signals import engine_changed

# Fields, and what they are called; `enabled`, options, credentials and limits have words of their own.
FIELDS = {
    "name": "name",
    "slug": "slug",
    "sender_domains": "From domains",
    "fault_threshold": "faults that open the circuit",
    "cool_off_seconds": "cool-off (seconds)",
    "warmup_from": "first day of the warm-up",
    "warmup_caps": "mails on the first days",
    "warmup_growth": "growth of the warm-up",
    "warmup_target": "end of the warm-up (mails a day)",
}
LONGEST = 100  # characters shown of a value


class Snapshot:
    """An engine's settings as they stand in the database."""

    def __init__(self, engine_id: int) -> None:
        engine = Engine.objects.prefetch_related("limits").get(pk=engine_id)
        self.enabled = engine.enabled
        self.fields = {words: _shown(getattr(engine, name)) for name, words in FIELDS.items()}
        self.options = {name: _option(name, value) for name, value in engine.options.items()}
        self.limits = {limit.pk: f"{limit}, {limit.burst or 'default'} at once" for limit in engine.limits.all()}
        self.credentials = _opened(engine)


def record(engine: Engine, before: Snapshot | None, by: str) -> None:
    """Writes what changed since `before` into the engine's history (None: it is new). Part of the caller's
    transaction. One that was switched on gets at once what waited for it."""
    with transaction.atomic():
        if before is None:
            changes = ["added"]
        else:
            after = Snapshot(engine.pk)
            changes = changes_between(before, after)
            if after.enabled and not before.enabled:
                queue.hasten(engine.pools.values_list("pk", flat=True))
            if after.enabled != before.enabled:
                what = "switched_on" if after.enabled else "switched_off"
                engine_changed.send(Engine, engine_id=engine.pk, what=what, by=by, why="", until=None)
        EngineEvent.objects.bulk_create(EngineEvent(engine=engine, what=what[:300], by=by[:150]) for what in changes)


def changes_between(before: Snapshot, after: Snapshot) -> list[str]:
    """What is different, a sentence for each."""
    changes = []
    if before.enabled != after.enabled:
        changes.append("switched on" if after.enabled else "switched off")
    changes += _different(before.fields, after.fields)
    changes += _different(before.options, after.options)
    changes += _different(before.limits, after.limits, "limit")
    if before.credentials != after.credentials:
        changes.append("credentials changed")
    return changes


def _different(before: Mapping[object, str], after: Mapping[object, str], called: str = "") -> list[str]:
    """`called`: what each is called whose own name says nothing to a person."""
    pairs = ((name, before.get(name, "none"), after.get(name, "none")) for name in {**before, **after})
    return [f"{called or name}: {old} → {new}" for name, old, new in pairs if old != new]


def _shown(value: object) -> str:
    if value in (None, ""):
        return "none"
    text = " ".join(without_secrets(str(value)).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _option(name: str, value: object) -> str:
    return HIDDEN if is_secret_name(name) else _shown(value)


def _opened(engine: Engine) -> object:
    """The credentials, to compare and never to show; as they are stored when they cannot be read."""
    try:
        return engine.secrets.open()
    except SecretUnreadable:
        return engine.secrets.token
