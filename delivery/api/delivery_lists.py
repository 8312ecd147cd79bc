"""Lists of deliveries: what of each is shown, and by what they are narrowed, so that none reads the whole table.

A batch is a slice of the primary key, and an address has an index. By state, engine and step a list is only narrowed
within one of these: no index leads to them.
"""

from collections.abc import Collection, Iterable

import django_filters
from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from delivery.api.narrowing import NamedFilter, NumberFilter
from delivery.api.suppressions import AddressFilter
from delivery.models import NO_DEADLINE, OPEN_STATES, Batch, Delivery, DeliveryState, Engine, Message
from delivery.models.batch import BatchState

HELD = {DeliveryState.LEASED, DeliveryState.SENDING}  # by a worker's lease
OPEN = "open"  # beside the states: those that are not an end
STATES = [*DeliveryState.choices, (OPEN, "any state but an end")]
# Two small queries beside it and no join, which could lead the planner away from the primary key.
ROWS = Delivery.objects.prefetch_related(
    Prefetch("engine", Engine.objects.only("slug")), Prefetch("message", Message.objects.only("position"))
)


class DeliverySerializer(serializers.ModelSerializer):
    """One message for one recipient. `step`: which of the messages of its batch; `deadline` null: there is none."""

    step = serializers.SerializerMethodField()
    engine_slug = serializers.SerializerMethodField()
    deadline = serializers.SerializerMethodField()

    class Meta:
        model = Delivery
        fields = (
            "id",
            "batch",
            "step",
            "address",
            "name",
            "key",
            "state",
            "engine",
            "engine_slug",
            "attempts",
            "code",
            "words",
            "provider_id",
            "priority",
            "deadline",
            "not_before",
            "tried_at",
            "settled_at",
        )
        extra_kwargs = {name: {"read_only": True} for name in fields}

    def get_step(self, delivery: Delivery) -> int | None:
        return delivery.message.position if is_there(delivery, "message") else None

    def get_engine_slug(self, delivery: Delivery) -> str | None:
        return delivery.engine.slug if is_there(delivery, "engine") else None

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_deadline(self, delivery: Delivery) -> object:
        return None if delivery.deadline == NO_DEADLINE else delivery.deadline


def is_there(delivery: Delivery, reference: str) -> bool:
    """Whether a reference that was fetched leads anywhere: none of a delivery's has a constraint in the database."""
    return delivery._state.fields_cache.get(reference) is not None


class DeliveryFilter(django_filters.FilterSet):
    batch = NumberFilter(help_text="Those of one batch, by its id.")
    address = AddressFilter()
    state = django_filters.MultipleChoiceFilter(choices=STATES, help_text="Of one batch or address.")
    engine = NamedFilter(Engine, help_text="Of one batch or address: those last tried by an engine.")
    step = NumberFilter(max_value=32_767, help_text="Of one batch.")

    class Meta:
        model = Delivery
        fields = ()

    within = ("batch",)  # what a batch is named by

    def filter_queryset(self, rows: QuerySet) -> QuerySet:
        given = {name: value for name, value in self.form.cleaned_data.items() if value not in (None, "", [])}
        _refuse_unbounded(given, self.within)
        named = [self.batch_of(name, given[name]) for name in self.within if name in given]
        for batch in named:
            if batch is None:
                return rows.none()
            rows = rows.filter(batch=batch.pk, pk__range=(batch.first_id or 0, batch.last_id or 0))
        if "address" in given:
            rows = rows.filter(identity=given["address"])
        if "state" in given:
            rows = _in_states(rows, _states(given["state"]), named)
        if "engine" in given:
            rows = rows.filter(engine=given["engine"])
        if "step" in given:
            rows = rows.filter(message__in=[m.pk for m in named[0].messages.filter(position=given["step"])])
        return rows

    def batch_of(self, name: str, value: object) -> Batch | None:
        """The batch that is named; None when there is none."""
        return Batch.objects.filter(pk=value).first()


def _refuse_unbounded(given: Iterable[str], within: tuple[str, ...]) -> None:
    """Raises ValidationError."""
    of_batch = any(name in given for name in within)
    wanted = " or ".join(within)
    wrong = [name for name in ("state", "engine") if name in given and not of_batch and "address" not in given]
    problems = {name: [f"This is of one {wanted}, or of one address: name that, too."] for name in wrong}
    if "step" in given and not of_batch:
        problems["step"] = [f"This is of one {wanted}: name that, too."]
    if problems:
        raise serializers.ValidationError(problems)


def _in_states(rows: QuerySet, states: Collection[str], batches: Iterable[Batch]) -> QuerySet:
    """The rows in these states, of batches that are named. Where an end is certain, or an index leads to what a worker
    has, the whole batch is not read for a few."""
    if set(states) <= set(OPEN_STATES) and any(batch.state == BatchState.DONE for batch in batches):
        return rows.none()
    rows = rows.filter(state__in=states)
    return rows.filter(lease__isnull=False) if set(states) <= HELD else rows


def _states(chosen: Iterable[str]) -> list[str]:
    return sorted({state for each in chosen for state in (OPEN_STATES if each == OPEN else [each])})
