"""What a person does to an engine while it runs: stop it for a while, and let it go on.

Workers see a hold at their next look at the engine, within a second or so. What they have in hand for it goes to
another engine of the pool, or back into the queue; what is being handed over at that moment still goes out.
"""

from datetime import datetime

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from delivery import queue
from delivery.exceptions import IllegalHold
from delivery.models import Engine, EngineEvent
from delivery.signals import engine_changed


def hold(engine: Engine, by: str, why: str, until: datetime | None = None) -> None:
    """Nothing goes through this engine until `until`, or until it is released. Raises IllegalHold when it is held
    already, when no reason is given, or when `until` is not in the future."""
    now, why = timezone.now(), why.strip()
    if not why:
        raise IllegalHold(f"Engine {engine.name} was not held: say why, for those who wonder whether to release it.")
    if until is not None and until <= now:
        raise IllegalHold(f"Engine {engine.name} was not held: {_shown(until)} is not in the future.")
    with transaction.atomic():
        free = Engine.objects.exclude(_held(now)).filter(pk=engine.pk)
        if not free.update(held=True, held_until=until, hold_reason=why[:200]):
            raise IllegalHold(f"Engine {engine.name} {_how(engine)}; release it first, to hold it in another way.")
        _record(engine, f"held until {_shown(until)}" if until else "held", by, why)
        engine_changed.send(Engine, engine_id=engine.pk, what="held", by=by, why=why, until=until)
    engine.refresh_from_db()


def release(engine: Engine, by: str, why: str = "") -> None:
    """Ends a hold: what had to wait for it may go again at once. Raises IllegalHold when the engine is not held."""
    with transaction.atomic():
        held = Engine.objects.filter(_held(timezone.now()), pk=engine.pk)
        if not held.update(held=False, held_until=None, hold_reason=""):
            raise IllegalHold(f"Engine {engine.name} {_how(engine)}: there is nothing to release.")
        _record(engine, "released", by, why.strip())
        engine_changed.send(Engine, engine_id=engine.pk, what="released", by=by, why=why.strip(), until=None)
        queue.hasten(engine.pools.values_list("pk", flat=True))
    engine.refresh_from_db()


def _held(now: datetime) -> Q:
    """`Engine.is_held` as a condition."""
    return Q(held=True) & (Q(held_until=None) | Q(held_until__gt=now))


def _how(engine: Engine) -> str:
    """How it stands, in words that follow its name."""
    engine.refresh_from_db()
    if engine.is_held(timezone.now()):
        until = f" until {_shown(engine.held_until)}" if engine.held_until else ""
        return f"is held{until} ({engine.hold_reason})"
    if engine.held:
        return f"is not held: its hold ended by itself at {_shown(engine.held_until)}"
    return "is not held"


def _record(engine: Engine, what: str, by: str, why: str) -> None:
    EngineEvent.objects.create(engine=engine, what=what, by=by[:150], why=why[:200])


def _shown(instant: datetime) -> str:
    return f"{timezone.localtime(instant):%Y-%m-%d %H:%M:%S %Z}"
