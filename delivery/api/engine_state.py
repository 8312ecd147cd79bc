"""What the workers know of an engine at this moment, as data."""

from datetime import datetime

from rest_framework import serializers

from delivery.catalogue import StoredCatalogue
from delivery.core.breaker import State
from delivery.engine_desk import EngineDesk
from delivery.models import Engine
from delivery.models.engine import Counted
from delivery.redaction import without_secrets
from delivery.shared import Shared, shared


class LevelSerializer(serializers.Serializer):
    """A limit, and how much of it could be used at once now, at the present pace."""

    limit = serializers.IntegerField(allow_null=True, help_text="Its id; null: the warm-up.")
    counts = serializers.ChoiceField(Counted.choices)
    tokens = serializers.IntegerField()


class EngineStateSerializer(serializers.Serializer):
    """The condition of an engine. `pace` is the share of its limits that it gets: 1 is all of them."""

    circuit = serializers.ChoiceField([(each.value, each.value) for each in State])
    faults_in_a_row = serializers.IntegerField()
    probe_at = serializers.DateTimeField(allow_null=True)
    pace = serializers.FloatField()
    pace_changed_at = serializers.DateTimeField(allow_null=True)
    paused_until = serializers.DateTimeField(allow_null=True)
    held_until = serializers.DateTimeField(allow_null=True)
    held = serializers.BooleanField()
    enabled = serializers.BooleanField()
    last_error = serializers.CharField(allow_blank=True)
    last_error_at = serializers.DateTimeField(allow_null=True)
    levels = LevelSerializer(many=True)


def state_of(engine: Engine, now: datetime, store: Shared | None = None) -> dict[str, object]:
    """The state. Raises SharedAway."""
    store = store or shared()
    condition = store.conditions([engine.pk])[engine.pk]
    levels = EngineDesk(StoredCatalogue(), store).levels(engine.pk, now)
    limits = {limit.bucket_key: (limit.pk, limit.counts) for limit in engine.limits.all()}
    return {
        "circuit": condition.breaker.state,
        "faults_in_a_row": condition.breaker.faults,
        "probe_at": condition.breaker.probe_at,
        "pace": condition.pace,
        "pace_changed_at": condition.pace_changed_at,
        "paused_until": condition.paused_until if condition.paused_until and condition.paused_until > now else None,
        "held": engine.is_held(now),
        "held_until": engine.held_until if engine.is_held(now) else None,
        "enabled": engine.enabled,
        "last_error": without_secrets(condition.last_error),
        "last_error_at": condition.last_error_at,
        "levels": [
            {"limit": pk, "counts": counts, "tokens": tokens}
            for key, tokens in levels.items()
            for pk, counts in [limits.get(key, (None, Counted.MESSAGES))]
        ],
    }
