"""All there is to say of one delivery: what it waits for, its tries, what was heard of it, and how it hangs together
with others. Of each kind at most `MOST` are shown."""

from django.utils.timezone import now
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from delivery import related
from delivery.admin.delivery_links import waits_for
from delivery.api.delivery_lists import DeliverySerializer, is_there
from delivery.models import OPEN_STATES, Attempt, Batch, Composition, Delivery, DeliveryState, Dependency, Event
from delivery.models.batch import BatchState

MOST = related.MOST


class AttemptSerializer(serializers.ModelSerializer):
    """A try that did not succeed, in the provider's words."""

    class Meta:
        model = Attempt
        fields = ("at", "engine", "kind", "code", "words", "seconds")
        extra_kwargs = {name: {"read_only": True} for name in fields}


class EventSerializer(serializers.ModelSerializer):
    """Something that was heard of a delivery."""

    class Meta:
        model = Event
        fields = ("kind", "at", "source")
        extra_kwargs = {name: {"read_only": True} for name in fields}


class OtherSerializer(serializers.Serializer):
    """Another delivery. `key` is its name among the recipients."""

    id = serializers.IntegerField()
    key = serializers.CharField(allow_blank=True)
    address = serializers.CharField()
    state = serializers.ChoiceField(DeliveryState.choices)


class DependencySerializer(serializers.ModelSerializer):
    """What has to be accepted before it. `met`: it is waited for no longer; `id` null: not found so far."""

    id = serializers.IntegerField(source="predecessor_id", allow_null=True, read_only=True)
    state = serializers.SerializerMethodField()

    class Meta:
        model = Dependency
        fields = ("id", "on_key", "state", "met")
        extra_kwargs = {"on_key": {"read_only": True}, "met": {"read_only": True}}

    @extend_schema_field(serializers.ChoiceField(DeliveryState.choices, allow_null=True))
    def get_state(self, dependency: Dependency) -> str | None:
        return dependency.predecessor.state if dependency.predecessor else None


class OtherStepSerializer(serializers.Serializer):
    """What the same recipient gets of another message of the batch."""

    step = serializers.IntegerField()
    id = serializers.IntegerField()
    state = serializers.ChoiceField(DeliveryState.choices)
    words = serializers.CharField(allow_blank=True)


class ComposedSerializer(serializers.ModelSerializer):
    """The words that a model writes for it."""

    class Meta:
        model = Composition
        fields = ("state", "text", "words", "engine", "composed_at", "reviewed_by", "reviewed_at")
        extra_kwargs = {name: {"read_only": True} for name in fields}


class BatchSerializer(serializers.ModelSerializer):
    """The batch that it belongs to."""

    class Meta:
        model = Batch
        fields = ("id", "label", "reference", "state", "hold_reason")
        extra_kwargs = {name: {"read_only": True} for name in fields} | {
            "state": {"read_only": True, "help_text": ", ".join(BatchState.values)}
        }


class DeliveryDetailSerializer(DeliverySerializer):
    """One delivery, in full. `waits` says what keeps one that is open; `more` names the lists that are cut short."""

    of_batch = serializers.SerializerMethodField()
    waits = serializers.SerializerMethodField()
    failures = serializers.SerializerMethodField()
    events = serializers.SerializerMethodField()
    depends_on = serializers.SerializerMethodField()
    depended_on_by = serializers.SerializerMethodField()
    other_steps = serializers.SerializerMethodField()
    answers = serializers.SerializerMethodField(help_text="The ids of the mails that it answers, the first one first.")
    composition = serializers.SerializerMethodField()
    more = serializers.SerializerMethodField()

    class Meta(DeliverySerializer.Meta):
        fields = (
            *DeliverySerializer.Meta.fields,
            "of_batch",
            "resends",
            "pinned",
            "pending",
            "waits",
            "data",
            "failures",
            "events",
            "depends_on",
            "depended_on_by",
            "other_steps",
            "answers",
            "composition",
            "more",
        )
        extra_kwargs = {name: {"read_only": True} for name in fields}

    def to_representation(self, delivery: Delivery) -> dict[str, object]:
        batch = delivery.batch if is_there(delivery, "batch") else None
        self.lists = {
            "failures": list(delivery.failures.order_by("-pk")[: MOST + 1]),
            "events": related.events_of(delivery),
            "depends_on": related.depends_on(delivery) if batch and batch.ordered else [],
            "depended_on_by": related.depended_on_by(delivery, batch) if batch and batch.ordered else [],
            "other_steps": related.other_steps(delivery) if batch else [],
        }
        return super().to_representation(delivery)

    def _shown(self, name: str, serializer: type[serializers.BaseSerializer]) -> list[dict[str, object]]:
        return serializer(self.lists[name][:MOST], many=True).data

    @extend_schema_field(BatchSerializer(allow_null=True))
    def get_of_batch(self, delivery: Delivery) -> dict[str, object] | None:
        return BatchSerializer(delivery.batch).data if is_there(delivery, "batch") else None

    def get_waits(self, delivery: Delivery) -> str:
        if delivery.state not in OPEN_STATES:
            return ""
        return waits_for(delivery, delivery.batch if is_there(delivery, "batch") else None, now())

    @extend_schema_field(AttemptSerializer(many=True))
    def get_failures(self, delivery: Delivery) -> list[dict[str, object]]:
        return self._shown("failures", AttemptSerializer)

    @extend_schema_field(EventSerializer(many=True))
    def get_events(self, delivery: Delivery) -> list[dict[str, object]]:
        return self._shown("events", EventSerializer)

    @extend_schema_field(DependencySerializer(many=True))
    def get_depends_on(self, delivery: Delivery) -> list[dict[str, object]]:
        return self._shown("depends_on", DependencySerializer)

    @extend_schema_field(OtherSerializer(many=True))
    def get_depended_on_by(self, delivery: Delivery) -> list[dict[str, object]]:
        return self._shown("depended_on_by", OtherSerializer)

    @extend_schema_field(OtherStepSerializer(many=True))
    def get_other_steps(self, delivery: Delivery) -> list[dict[str, object]]:
        return [
            {"step": position, "id": other.pk, "state": other.state, "words": other.words}
            for position, other in self.lists["other_steps"][:MOST]
        ]

    def get_answers(self, delivery: Delivery) -> list[int]:
        return related.conversation(delivery)

    @extend_schema_field(ComposedSerializer(allow_null=True))
    def get_composition(self, delivery: Delivery) -> dict[str, object] | None:
        found = Composition.objects.filter(pk=delivery.pk).first()
        return ComposedSerializer(found).data if found else None

    def get_more(self, delivery: Delivery) -> list[str]:
        return [name for name, rows in self.lists.items() if len(rows) > MOST]
